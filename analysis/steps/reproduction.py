"""VGGT-1B and published test sets -> its own table beside published figures: ``reproduction.json`` and ``.md``.

In this order, each step resumable: the baseline and its gate, the profile, plans, their rounding, every variant on
every scene.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from analysis.evaluation.results import null_if_not_finite
from analysis.report.document import Document, Section, Text
from analysis.report.renderers import RENDERERS
from analysis.reproduction.measuring import FiguresByVariant, MeasuringWork, TestSet, measure_variants
from analysis.reproduction.published import LEAST_FRAMES
from analysis.reproduction.table import gate_of, table_values, tables
from analysis.reproduction.variants import BASELINE, Variant
from analysis.steps.device import pick_device
from analysis.steps.plan import RUNNABLE_FORMATS
from analysis.steps.plan_source import plan_source
from analysis.steps.profile import make_profile
from analysis.steps.rounding import checkpoint_path, digest_of_plan, weights_of
from analysis.steps.run_folder import PROFILE, check_writable, scenes_for
from analysis.steps.view import View
from mixedprec import parse_request, save_plan, solve_plan, uniform_assignment
from mixedprec.checkpoint import overhead_bytes
from sensitivity import Profile, open_profile
from vggtkit.core.atomic import replacing_all
from vggtkit.core.errors import InputError, check_number
from vggtkit.core.executors import Workers, demand_of
from vggtkit.core.journal import Parts
from vggtkit.core.memory import bytes_of
from vggtkit.core.program import setting
from vggtkit.core.provenance import Progress, Say, provenance, require_same, silent
from vggtkit.core.seal import digest_of, sealed
from vggtkit.model import model_fingerprint, pick_dtype, resolve_source
from vggtkit.quant import UNIFORM_SCHEMES, get_format, quantized_nbytes
from vggtkit.scenes import SCENE_KINDS, SceneSource, draw_scenes, fingerprint, parse_scenes
from vggtkit.subject import Subject, open_subject

RESULTS, REPORT = "reproduction.json", "reproduction.md"
PROFILE_PASSES = 23.0
"""What a profile costs a scene, in passes of the whole model (``benchmarks/results/full_size.json``)."""


@dataclass(frozen=True)
class Protocol:
    """What is measured, and on what.

    Attributes:
        tests: sets as ``--scenes`` takes them, ``co3d-test:DIR``.
        frames: of a scene; every set is measured with each.
        calibration: scenes of the profile, likewise; "" for the training sequences of the first set that has some.
        calibration_scenes: how many.
        budgets: of the plans.
        rounding: key of `vggtkit.quant.rounding.ROUNDINGS`.
        per_group: sequences of every category, at most; 0 for all, as published.
        least_frames: that a sequence must have.
        seed: of what is drawn.
        believes: go on where the baseline does not get through the gate.
    """

    tests: tuple[str, ...]
    frames: tuple[int, ...] = (10, 20)
    calibration: str = ""
    calibration_scenes: int = 8
    budgets: tuple[str, ...] = ("600MB", "650MB", "4bpw", "3bpw")
    rounding: str = "gptq"
    per_group: int = 0
    least_frames: int = LEAST_FRAMES
    seed: int = 0
    believes: bool = False


def make_reproduction(
    run: Path,
    model_name: str,
    protocol: Protocol,
    *,
    device: str = "auto",
    dtype: str = "auto",
    workers: Workers | None = None,
    progress: Progress = silent,
    say: Say = lambda _: None,
) -> View:
    """Measure everything and write the table.

    Args:
        run: folder of the run; what is done there is not done again, if it was made for the same.
        model_name: ``vggt-1b``, which is fetched, or a folder or checkpoint that is there.
        protocol: what is measured.
        device: as `pick_device` takes it.
        dtype: of the trunk, as `pick_dtype` takes it.
        workers: who measures and profiles; this process by default.
        progress: told about every step.
        say: told what it costs beforehand, and whether the gate was passed.

    Raises:
        InputError: the baseline does not get through the gate, a profile there is of something else, or what the user
            can mend.
    """
    check_writable(run)
    sets = drawn_sets(protocol)
    progress("loading", 0, 1)
    place = pick_device(device)
    precision = pick_dtype(dtype, place)
    subject = open_subject(model_name, "pretrained", place, say=say)
    _check_profile(run, subject, protocol, precision)
    baseline = Variant(BASELINE, f"baseline, {str(precision).removeprefix('torch.')}", _bytes_in(subject, "fp16"))
    work = MeasuringWork(subject, (baseline,), sets, precision)
    executor = (workers or Workers()).executor(demand_of(subject.model, bytes_of(list(subject.model.parameters()))))
    parts = Parts(
        run / RESULTS,
        {
            "model": model_fingerprint(subject.model), "dtype": str(precision), "threads": executor.threads,
            "seed": protocol.seed, "sets": digest_of({each.key: _shown(each) for each in sets}),
        },
    )  # fmt: skip
    say(_cost(work, parts, protocol))
    results = measure_variants(work, executor, parts, progress)
    gate = gate_of(sets, results)
    if gate.passed or protocol.believes:
        say(gate.said())
    else:
        raise InputError(f"{gate.said()} Nothing else was measured; {setting('believe')} goes on all the same")
    infeasible: dict[str, str] = {}
    variants = [baseline, *_uniform(subject)]
    variants += _plans(run, model_name, subject, protocol, infeasible, dtype, device, workers, progress, say)
    results = measure_variants(replace(work, variants=variants), executor, parts, progress)
    return _written(run, variants, sets, results, infeasible, subject, protocol)


def drawn_sets(protocol: Protocol) -> tuple[TestSet, ...]:
    """Every set with every number of frames.

    Raises:
        InputError: no set, an unknown kind, or no recording with enough frames.
    """
    if not protocol.tests:
        raise InputError(f"{setting('on')}: give a test set, such as co3d-test:DIR")
    sets = []
    for text in protocol.tests:
        kind, folder = parse_scenes(text)
        read = SCENE_KINDS[kind].read
        if read is None or not folder:
            raise InputError(f"{setting('on', text)}: give recordings with cameras, such as co3d-test:DIR")
        recordings = read(Path(folder))
        for frames in protocol.frames:
            check_number("frames", frames, 2)
            drawn = draw_scenes(
                recordings, frames, least=protocol.least_frames, seed=protocol.seed, per_group=protocol.per_group
            )
            sets.append(TestSet(f"{kind}-{frames}", f"{len(drawn)} scenes of {frames} frames", tuple(drawn)))
    return tuple(sets)


def _shown(test_set: TestSet) -> list[list[str]]:
    return [[scene.name, scene.digest()] for scene in test_set.scenes]


def _cost(work: MeasuringWork, parts: Parts, protocol: Protocol) -> str:
    """What it will take, from passes over the first scene: time in proportion to frames, and alike for all formats."""
    variants = 1 + len(UNIFORM_SCHEMES) + len(protocol.budgets)
    scenes = [scene for each in work.sets for scene in each.scenes]
    passes = len(scenes) * variants
    done = len(parts.done())
    seconds = []
    with work.opened() as run:
        for _ in range(2):  # the first is warm-up
            begun = time.perf_counter()
            run((0, 0, 0))
            seconds.append(time.perf_counter() - begun)
    frames, first = sum(len(scene.frames) for scene in scenes), len(scenes[0].frames)
    whole = variants * frames * seconds[1] / first * max(0, passes - done) / passes
    profile = protocol.calibration_scenes * PROFILE_PASSES
    return (
        f"{len(scenes)} scenes x {variants} models = {passes} passes, {done} done before: about {_duration(whole)} of "
        f"one worker ({seconds[1]:.2g} s for {first} frames, more in proportion); a profile of "
        f"{protocol.calibration_scenes} scenes as {profile:.0f} whole passes; {len(protocol.budgets)} checkpoints of "
        "the budgets' sizes on disk"
    )


def _duration(seconds: float) -> str:
    """For people.

    >>> _duration(90), _duration(9000)
    ('1.5 min', '2.5 h')
    """
    return f"{seconds / 60:.2g} min" if seconds < 3600 else f"{seconds / 3600:.2g} h"


def _bytes_in(subject: Subject, keep: str) -> int:
    return overhead_bytes(subject, keep) + sum(quantized_nbytes(layer.shape, keep) for layer in subject.layers)


def _uniform(subject: Subject) -> list[Variant]:
    overhead = overhead_bytes(subject, "fp16")
    variants = []
    for key in UNIFORM_SCHEMES:
        size = overhead + sum(quantized_nbytes(layer.shape, key) for layer in subject.layers)
        variants.append(Variant(key, get_format(key).short_title, size, uniform_assignment(subject.layers, key)))
    return variants


def _plans(
    run: Path, model_name: str, subject: Subject, protocol: Protocol, infeasible: dict[str, str], dtype: str,
    device: str, workers: Workers | None, progress: Progress, say: Say,
) -> list[Variant]:  # fmt: skip
    """A plan for every budget, rounded; those that cannot be are said."""
    if not (run / PROFILE).is_file():
        make_profile(
            run, model_name, "pretrained", _calibration(protocol), probes=0, disk_budget="4GB", device=device,
            seed=protocol.seed, dtype=dtype, workers=workers, progress=progress, say=say,
        )  # fmt: skip
    profile, source = open_profile(run / PROFILE), plan_source(run, model_name, device=device)
    say(_source_of_plans(profile))
    variants = []
    for budget in protocol.budgets:
        name = f"plan-{budget}"
        try:
            planned = solve_plan(source.resolve(parse_request(budget, formats=str(RUNNABLE_FORMATS))))
        except InputError as error:
            infeasible[budget] = str(error)
            say(f"no plan at {budget}: {error}")
            continue
        plan = replace(planned.plan, rounding=protocol.rounding)
        folder = run / "plans" / name
        folder.mkdir(parents=True, exist_ok=True)
        save_plan(plan, folder / "plan.json")
        rounded = weights_of(
            folder, plan, profile, subject.reading(profile.layers), workers=workers, progress=progress, say=say
        )
        checkpoint = None if rounded is None else checkpoint_path(folder)
        title = f"plan {budget}, {protocol.rounding}"
        variants.append(Variant(name, title, plan.size_bytes, dict(plan.formats), checkpoint, digest_of_plan(plan)))
    return variants


def _check_profile(run: Path, subject: Subject, protocol: Protocol, precision: torch.dtype) -> None:
    """Refuse a profile in the run's folder that is not the one which would be made now; without one, nothing.

    Raises:
        InputError: with what differs, or as `scenes_for`.
    """
    path = run / PROFILE
    if not path.is_file():
        return
    needed = {
        "model_fingerprint": model_fingerprint(subject.model), "seed": protocol.seed, "dtype": str(precision),
        "scene_fingerprint": fingerprint(scenes_for(subject, _calibration(protocol), "calibration")),
    }  # fmt: skip
    require_same(f"{path} is of another purpose", needed, open_profile(path).facts, tuple(needed))


def _source_of_plans(profile: Profile) -> str:
    """Which scenes the plans are made from."""
    facts = profile.facts
    source = SceneSource.from_dict(facts["scene_source"])
    return f"plans are made from {profile.path}: {len(facts['scenes'])} scenes ({source.kind}), seed {facts['seed']}"


def _calibration(protocol: Protocol) -> SceneSource:
    """The scenes that are profiled: by default training sequences of the first set that has some, else rooms."""
    text = protocol.calibration
    if not text:
        own = next((test for test in protocol.tests if test.partition(":")[0].endswith("-test")), None)
        text = "synthetic" if own is None else own.replace("-test:", "-train:", 1)
    kind, folder = parse_scenes(text)
    drawn = "runs" if folder is None else "random"
    return SceneSource(kind, folder, protocol.calibration_scenes, seed=protocol.seed, sampling=drawn)  # type: ignore[arg-type]


def _written(
    run: Path, variants: Sequence[Variant], sets: Sequence[TestSet], results: FiguresByVariant,
    infeasible: dict[str, str], subject: Subject, protocol: Protocol,
) -> View:  # fmt: skip
    profiled = open_profile(run / PROFILE).facts
    facts = provenance(
        model=resolve_source(subject.source), model_fingerprint=model_fingerprint(subject.model), seed=protocol.seed,
        profile={name: profiled[name] for name in ("scenes", "scene_source", "scene_fingerprint", "seed")},
    )  # fmt: skip
    said: dict[str, Any] = null_if_not_finite(table_values(variants, sets, results, infeasible))  # type: ignore[assignment]
    gate, shown = gate_of(sets, results).said(), tables(variants, sets, results)
    text = Text((gate, *(f"No plan at {budget}: {reason}" for budget, reason in infeasible.items())))
    document = Document("Cameras of VGGT under quantisation", (Section("Result", (text, *shown)),))
    paths = [run / RESULTS, run / REPORT]
    with replacing_all(paths) as (results_file, report):
        whole = sealed({"schema_version": 1, "provenance": facts} | said)
        results_file.write_text(json.dumps(whole, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        report.write_text(RENDERERS["markdown"].render(document), encoding="utf-8")
    return View({"path": str(paths[0])} | said, shown, [gate, f"written: {', '.join(map(str, paths))}"])
