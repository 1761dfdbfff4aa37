"""Names of formats and files of plans -> what stands beside the plan in an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.evaluation.candidates import Candidate, Rivals
from analysis.evaluation.results import OTHER_PLAN
from analysis.steps.rounding import OF_PLAN, checkpoint_path, digest_of_plan
from analysis.steps.run_folder import PLAN, PROFILE, check_held_out, check_not_profiled
from analysis.steps.unseen import check_not_chosen_on
from mixedprec import Plan, check_plan_size, load_plan, read_info
from mixedprec.checkpoint import read_weights
from sensitivity import open_profile
from vggtkit.core.errors import InputError
from vggtkit.core.program import command, setting
from vggtkit.quant import UNIFORM_SCHEMES, QuantizedTensor, get_format
from vggtkit.scenes import Scene, SceneSource, fingerprint
from vggtkit.subject import Subject

QUICK_SCHEMES = ("int8_per_channel_sym", "int4_group_128")
"""The schemes of a quick evaluation: the usual one of 8 bits, and the smallest."""
NONE = "none"


def parse_schemes(text: str | None) -> tuple[str, ...]:
    """Formats, with commas; the seven uniform schemes where nothing is asked for.

    Raises:
        InputError: one is not known, or named twice.

    >>> parse_schemes("int4_group_64, fp16"), parse_schemes("none"), len(parse_schemes(None))
    (('int4_group_64', 'fp16'), (), 7)
    """
    if text is None:
        return UNIFORM_SCHEMES
    if text.strip() == NONE:
        return ()
    keys = tuple(get_format(part.strip()).key for part in text.split(","))
    if twice := [key for key in dict.fromkeys(keys) if keys.count(key) > 1]:
        raise InputError(f"{setting('schemes', text)}: {twice[0]} is named {keys.count(twice[0])} times; name it once")
    if "fp32" in keys:
        raise InputError(f"{setting('schemes', text)}: fp32 is what all are compared with; leave it out")
    return keys


def rivals_of(
    schemes: Sequence[str],
    also: Sequence[Path],
    own: Plan,
    subject: Subject,
    source: SceneSource,
    scenes: Sequence[Scene],
) -> Rivals:
    """Further plans, checked: of the same weights and heads, and made from none of the scenes to judge on.

    Args:
        schemes: formats.
        also: plan files, or folders of runs that have one.
        own: the plan of the run.
        subject: the run's model with the plan's heads.
        source: of the scenes to judge on.
        scenes: to judge on.

    Raises:
        InputError: a file is missing, or of another model, or was made from these scenes.
    """
    others: list[Candidate] = []
    for given in also:
        path = given / PLAN if given.is_dir() else given
        if not path.is_file():
            raise InputError(
                f"{setting('also', given)}: no such plan; make it with `{command('plan', '--run', given)}`"
            )
        if f"{OTHER_PLAN}{path}" in [other.key for other in others]:
            raise InputError(f"{setting('also', given)}: is named twice; name it once")
        others.append(_other(path, own, subject, source, scenes))
    return Rivals(tuple(schemes), tuple(others))


def _other(path: Path, own: Plan, subject: Subject, source: SceneSource, scenes: Sequence[Scene]) -> Candidate:
    plan = load_plan(path)
    if plan.model_fingerprint != own.model_fingerprint and not plan.for_any_weights:
        raise InputError(
            f"{setting('also', path)}: it is for weights {plan.model_fingerprint}, the run's plan for "
            f"{own.model_fingerprint}"
        )
    if plan.heads != own.heads:
        again = command("plan", "--run", path.parent, "--heads", ",".join(own.heads))
        raise InputError(
            f"{setting('also', path)}: it has the heads {', '.join(plan.heads)}, the run's plan has "
            f"{', '.join(own.heads)}, and damage is a mean over their outputs, which one table cannot compare; plan it "
            f"again with the same heads (`{again}`), or evaluate it in its own run "
            f"(`{command('evaluate', '--run', path.parent)}`)"
        )
    if (plan.formats, plan.keep, plan.rounding, plan.tuned) == (own.formats, own.keep, own.rounding, own.tuned):
        raise InputError(f"{setting('also', path)}: it is the same as the run's own plan; leave it out")
    check_plan_size(subject, plan)
    check_not_chosen_on(plan, source, scenes)
    beside = path.with_name(PROFILE)
    if plan.provenance.get("scene_fingerprint") == fingerprint(scenes):
        raise InputError(f"{setting('also', path)}: it was made from the scenes to judge on; give others")
    if beside.is_file():
        profile = open_profile(beside)
        check_held_out(profile, source)
        check_not_profiled(profile, scenes)
    name = path.parent.name or path.stem
    return Candidate(
        f"{OTHER_PLAN}{path}", f"{name} ({plan.how})", dict(plan.formats), plan.keep, _rounded(path, plan, subject)
    )


def _rounded(path: Path, plan: Plan, subject: Subject) -> dict[str, QuantizedTensor] | None:
    """The weights of a plan whose codes were chosen on scenes: those of the checkpoint beside it."""
    if not plan.only_in_checkpoint:
        return None
    packed = checkpoint_path(path.parent)
    if not packed.is_file() or read_info(packed).note.get(OF_PLAN) != digest_of_plan(plan):
        made = command("export", "--run", path.parent)
        raise InputError(
            f"{path}: only its checkpoint holds what {plan.how} has made of the weights; write it with `{made}`"
        )
    return read_weights(packed, subject)
