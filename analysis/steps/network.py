"""A checkpoint, a run or a model -> the network that pictures are shown to, packed and executed as asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from analysis.reconstruction.views import SEEN_HEADS
from analysis.steps.checkpoint import PLANNED, of_run
from analysis.steps.device import pick_device
from analysis.steps.rounding import OF_PLAN, checkpoint_path, digest_of_plan, weights_of
from analysis.steps.run_folder import DEFAULT_MODEL, PLAN
from mixedprec import Plan, load_plan, load_quantized, packed_with, quantized_weights, read_info
from mixedprec.checkpoint_file import CheckpointInfo
from vggtkit.core.errors import InputError
from vggtkit.core.program import command, setting
from vggtkit.core.provenance import Progress, Say, silent
from vggtkit.model import model_fingerprint, skeleton
from vggtkit.runtime.backend import Options
from vggtkit.runtime.backends import BACKENDS, REFERENCE
from vggtkit.subject import Subject, VGGTSubject, open_subject, subject_of


@dataclass(frozen=True)
class NetworkChoice:
    """Which network, and how it is executed.

    Attributes:
        run: whose plan; None for none.
        checkpoint: a packed file; None for none.
        model: of a run its model, of a checkpoint the model that it was made from; without both, to be run in FP32.
        execute: key of a backend.
        device: as `pick_device` takes it.
    """

    run: Path | None = None
    checkpoint: Path | None = None
    model: str | None = None
    execute: str = REFERENCE
    device: str = "auto"

    @property
    def is_packed(self) -> bool:
        """Whether it is another than the network in FP32."""
        return self.run is not None or self.checkpoint is not None

    def check(self) -> None:
        """Refuse what cannot be asked for together, and what is not known.

        Raises:
            InputError: with the way out.
        """
        BACKENDS.pick(self.execute)
        pick_device(self.device)
        if self.run is not None and self.checkpoint is not None:
            raise InputError(f"{setting('run')} and {setting('checkpoint')} are both given; name one of them")
        if not self.is_packed and self.execute != REFERENCE:
            raise InputError(
                f"{setting('execute', self.execute)}: a network in FP32 has no packed weights to execute; name"
                f" {setting('run')} or {setting('checkpoint')}"
            )


class Network(NamedTuple):
    """A network, ready to be shown pictures.

    Attributes:
        subject: with cameras and depth alone.
        bare: its architecture, for shapes.
        title: in tables.
        weight_bytes: in memory.
        largest_bytes: that the largest layer takes besides, while it runs.
        facts: where it comes from, for files.
        writes_files: as of `vggtkit.runtime.backend.Prepared`.
    """

    subject: Subject
    bare: Subject
    title: str
    weight_bytes: int
    largest_bytes: int
    facts: Mapping[str, Any]
    writes_files: bool = False


@contextmanager
def open_network(choice: NetworkChoice, *, progress: Progress = silent, say: Say = lambda _: None) -> Iterator[Network]:
    """Within the block the network runs packed, as its backend executes it; without a run or a checkpoint, in FP32.

    Args:
        choice: which.
        progress: told while a run's weights are calibrated.
        say: told what was done to make a model loadable.

    Raises:
        InputError: a file is missing, damaged or of another model; it predicts no cameras and depth; or the backend
            does not run its formats.
    """
    choice.check()
    with ExitStack() as contexts:
        if choice.checkpoint is not None:
            info = _info_of_vggt(choice.checkpoint)
            if info.executions is None and choice.execute != REFERENCE:
                say(
                    f"{choice.checkpoint} was made before checkpoints said how layers run, so"
                    f" {setting('execute', choice.execute)} decides that itself"
                )
            yield _packed_file(choice.checkpoint, info, choice, contexts)
        elif choice.run is not None:
            yield _of_run(choice, choice.run, contexts, progress, say)
        else:
            yield full_network(choice, say=say)


def full_network(choice: NetworkChoice, *, progress: Progress = silent, say: Say = lambda _: None) -> Network:
    """The same network in FP32: that which a checkpoint or a plan was made from.

    Raises:
        InputError: as `open_network`, or the model is not that of the checkpoint.
    """
    choice.check()
    if choice.run is not None:
        opened = of_run(choice.run, PLANNED, "pretrained", progress, choice.model, say)
        whole, source = opened.subject, str(opened.subject.source)
        whole.model.to(pick_device(choice.device))
    else:
        source = choice.model or DEFAULT_MODEL
        whole = open_subject(source, device=pick_device(choice.device), say=say)
        if choice.checkpoint is not None:
            _check_same(choice.checkpoint, whole, source)
    facts = {"model": source, "model_fingerprint": model_fingerprint(whole.model), "weights": "fp32"}
    subject = seeing(whole, source)
    return Network(
        subject, VGGTSubject(skeleton(subject.vggt.config)), f"{source}, FP32", 4 * subject.parameters, 0, facts
    )


def seeing(subject: Subject, what: str) -> VGGTSubject:
    """The same network with what a reconstruction needs.

    Args:
        subject: any.
        what: it is, for the error.

    Raises:
        InputError: it predicts no cameras or no depth.
    """
    if not isinstance(subject, VGGTSubject):
        raise InputError(f"{what} predicts no cameras and depth: only a VGGT can reconstruct")
    if absent := [head for head in SEEN_HEADS if head not in subject.heads]:
        raise InputError(
            f"{what} is without its {absent[0]} head, of which a reconstruction is made; plan with"
            f" {setting('heads', ','.join(SEEN_HEADS))} at least, or name another model"
        )
    return subject.with_heads(SEEN_HEADS)


def _of_run(choice: NetworkChoice, run: Path, contexts: ExitStack, progress: Progress, say: Say) -> Network:
    """From the run's checkpoint where that is of its plan, which takes the least memory; else packed here."""
    path, plan = checkpoint_path(run), load_plan(run / PLAN) if (run / PLAN).is_file() else None
    if plan is not None and (info := _info_of_plan(path, plan)) is not None:
        return _packed_file(path, info, choice, contexts)
    opened = of_run(run, PLANNED, "pretrained", progress, choice.model, say)
    assert opened.plan is not None
    plan, subject = opened.plan, opened.subject
    seeing(subject, plan.model)
    subject.model.to(pick_device(choice.device))
    rounded = None
    if opened.profile is not None:
        rounded = weights_of(run, plan, opened.profile, subject, progress=progress, say=say)
    weights = quantized_weights(subject, plan.formats, plan.keep) if rounded is None else rounded
    contexts.enter_context(packed_with(subject, weights, plan.keep))
    facts = {
        "model": plan.model, "model_fingerprint": plan.model_fingerprint, "plan": str(run / PLAN),
        "weights": str(opened.facts["weights"]),
    }  # fmt: skip
    say(
        f"{run} has no checkpoint of its plan, so it is packed beside the original; `{command('export', '--run', run)}`"
    )
    options = Options(executions=_seen(plan.executions))
    network = _executed(subject, f"plan of {run}", choice, options, contexts, facts)
    return network._replace(weight_bytes=network.weight_bytes + 4 * subject.parameters)


def _packed_file(path: Path, info: CheckpointInfo, choice: NetworkChoice, contexts: ExitStack) -> Network:
    """It says itself how its layers run."""
    whole = subject_of(load_quantized(path, pick_device(choice.device)), str(path))
    facts = {
        "checkpoint": str(path), "model_fingerprint": info.model_fingerprint,
        "weights": str(info.note.get("weights", "unknown")),
    }  # fmt: skip
    return _executed(whole, str(path), choice, Options(), contexts, facts)


def _executed(
    whole: Subject, title: str, choice: NetworkChoice, options: Options, contexts: ExitStack, facts: Mapping[str, Any]
) -> Network:
    """A packed network, executed as asked for from here on."""
    subject = seeing(whole, title)
    bare = VGGTSubject(skeleton(subject.vggt.config))
    prepared = BACKENDS.pick(choice.execute).prepare(subject, options)
    contexts.enter_context(prepared.running())
    kept = 4 * (bare.parameters - sum(layer.weights for layer in bare.layers))
    said = {**facts, "execute": choice.execute, "kernels": prepared.execution.kernels}
    largest = 4 * max(layer.weights for layer in bare.layers)
    size = kept + prepared.execution.weight_bytes
    return Network(subject, bare, title, size, largest, said, prepared.writes_files)


def _info_of_vggt(path: Path) -> CheckpointInfo:
    info = read_info(path)
    if info.factory is not None:
        made = f" ({info.factory})" if info.factory else ""
        raise InputError(
            f"{path} is of a network{made} that predicts no cameras and depth: only a VGGT can reconstruct"
        )
    return info


def _info_of_plan(path: Path, plan: Plan) -> CheckpointInfo | None:
    """What the run's checkpoint is, if it is of the plan as it stands now."""
    try:
        info = read_info(path)
    except InputError:
        return None
    stated = (info.formats, info.keep, info.model_fingerprint, info.executions or {})
    planned = (plan.formats, plan.keep, plan.model_fingerprint, plan.executions)
    same = info.note.get(OF_PLAN) == (digest_of_plan(plan) if plan.only_in_checkpoint else None)
    return info if same and stated == planned and info.factory is None else None


def _seen(executions: Mapping[str, str]) -> dict[str, str]:
    """Executions of the layers that a reconstruction runs."""
    outside = ("point_head.", "track_head.")
    return {name: how for name, how in executions.items() if not name.startswith(outside)}


def _check_same(path: Path, whole: Subject, source: str) -> None:
    """Refuse to compare a checkpoint with another model than it was made from."""
    info, compared = _info_of_vggt(path), seeing(whole, source)
    same = whole.description() and set(info.config.heads) <= set(whole.heads)
    own = model_fingerprint(whole.with_heads(info.config.heads).model if same else compared.model)
    if own != info.model_fingerprint:
        raise InputError(
            f"{path} was made from weights {info.model_fingerprint}, {setting('model', source)} has {own}; name the"
            f" model that it was made from with {setting('model')}"
        )
