"""``plan.json`` and scenes -> the three reports; and the reports once more."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from analysis.evaluation.depth_maps import DepthMaps, DepthWatch, save_maps
from analysis.evaluation.kept import Kept
from analysis.evaluation.results import Evaluation, format_number
from analysis.evaluation.results_file import evaluation_to_json
from analysis.evaluation.run import check_runs, evaluate
from analysis.evaluation.verdict import Verdict, verdict
from analysis.report import text as reports
from analysis.report.charts import comprehensive as plots
from analysis.report.charts.difference_charts import depth_shares, draw_differences
from analysis.report.geometry_tables import too_few_scenes
from analysis.report.wording import Wording
from analysis.steps.experiment import read_evaluation
from analysis.steps.rivals import rivals_of
from analysis.steps.rounding import digest_of_plan, weights_of
from analysis.steps.run_folder import (
    CHARTS,
    DEPTH_DIFFERENCES,
    DEPTH_MAPS,
    POINT_DIFFERENCES,
    PROFILE,
    REPORT,
    RESULTS,
    check_writable,
    held_out_scenes,
    plan_of,
    subject_of_run,
    weights_of_plan,
)
from analysis.steps.unseen import SELECTION, check_not_chosen_on
from analysis.steps.view import View
from mixedprec import Plan
from sensitivity import Profile, open_profile
from vggtkit.core.arrays import Map
from vggtkit.core.atomic import Write, of_text, write_all
from vggtkit.core.errors import check_number
from vggtkit.core.journal import Parts
from vggtkit.core.program import command, setting
from vggtkit.core.provenance import Progress, provenance, silent
from vggtkit.core.seal import digest_of
from vggtkit.metrics import METRICS
from vggtkit.metrics.depth import get_alignment
from vggtkit.quant import UNIFORM_SCHEMES
from vggtkit.runtime.backend import Options
from vggtkit.runtime.backends import BACKENDS
from vggtkit.runtime.machine import machine_facts
from vggtkit.scenes import SceneSource, fingerprint, notes_on

RANDOM = "RANDOM WEIGHTS"
PURPOSE = ("model_fingerprint", "scene_fingerprint", "seed", "device", "depth_alignment", "threads", "tool_version")
"""Facts that decide the numbers of an evaluation."""


def make_evaluation(
    run: Path,
    choose_scenes: Callable[[SceneSource], SceneSource] = lambda profiled: profiled,
    *,
    repeats: int,
    device: str,
    model_name: str | None = None,
    depth_alignment: str = "median",
    execute: str = "reference",
    resident: str = "packed",
    convert: bool = False,
    schemes: Sequence[str] = UNIFORM_SCHEMES,
    also: Sequence[Path] = (),
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> View:
    """Evaluate the run's plan against the uniform schemes; writes the three reports.

    Args:
        run: folder with ``profile.h5`` and ``plan.json``.
        choose_scenes: where scenes come from, given where those of the profile did; their evaluation half is used.
        repeats: timed repeats of each scheme; 0 leaves out timing.
        device: as `pick_device` takes it.
        model_name: what the user calls the run's model; a function runs only if it is named, or was for this folder.
        depth_alignment: ``median``, ``scale_shift`` or ``none``.
        execute: key of the backend that executes the plan.
        resident: how it keeps weights, ``packed`` or ``int8``.
        convert: let it round once more what it does not run.
        schemes: formats that stand beside the plan.
        also: files of further plans.
        progress: called as the work goes on.
        say: told what was left out of the scenes' folder.

    Raises:
        InputError: the files do not belong together or to the model, or the scenes are those of the profile.
    """
    check_number("repeats", repeats, 0, 10**4)
    alignment = get_alignment(depth_alignment)
    backend, options = BACKENDS.pick(execute), Options(resident, convert)
    check_writable(run)
    profile = open_profile(run / PROFILE)
    plan = plan_of(run, profile)
    source = choose_scenes(SceneSource.from_dict(profile.facts["scene_source"]))
    for note in notes_on(source):
        say(note)
    progress("loading", 0, 1)
    subject = subject_of_run(run, profile, device, model_name, say).with_heads(plan.heads)
    check_runs(backend, subject, plan, options)
    held_out = held_out_scenes(run, subject, profile, source)
    check_not_chosen_on(plan, source, held_out)
    rivals = rivals_of(schemes, also, plan, subject, source, held_out)
    rounded = weights_of(run, plan, profile, subject, progress=progress, say=say)
    facts = provenance(
        schema_version=1,
        repeatability=profile.facts.get("repeatability") or {},
        model_fingerprint=plan.model_fingerprint,
        scene_fingerprint=fingerprint(held_out),
        calibration_scene_fingerprint=profile.facts["scene_fingerprint"],
        seed=profile.facts["seed"], device=str(subject.device), depth_alignment=alignment,
        selection_scenes=(plan.provenance.get(SELECTION) or {}).get("scenes", []),
    )  # fmt: skip
    watch = DepthWatch(held_out)
    purpose = {
        "facts": {name: facts[name] for name in PURPOSE}, "plan": digest_of_plan(plan), "executions": plan.executions,
        "schemes": list(rivals.schemes), "repeats": repeats,
        "others": [[other.key, digest_of(other.assignment), other.keep, other.title] for other in rivals.others],
        "execute": [execute, resident, convert], "weights": weights_of_plan(plan), "metrics": list(METRICS),
        "scenes": [scene.name for scene in held_out], "machine": machine_facts(),
    }  # fmt: skip
    with _resumable(run, purpose, say) as parts:
        evaluation = evaluate(
            subject, held_out, plan, facts=facts, weights_note=_weights_note(profile), repeats=repeats,
            output_weights=weights_of_plan(plan), alignment=alignment, calibration_scenes=profile.facts["scenes"],
            execute=backend.key, options=options, rounded=rounded, rivals=rivals, watch=watch, kept=Kept(parts),
            progress=progress,
        )  # fmt: skip
        answer = write_reports(evaluation, run, watch.maps(evaluation))
    more = [*_predicted(plan.takes, evaluation, execute), *_tuned(plan.tuned)]
    return evaluation_view(evaluation, run, answer, worst_of(evaluation, plan, profile), more)


def _tuned(facts: Mapping[str, Any]) -> list[str]:
    """How the plan's weights were tuned, where they were."""
    if not facts:
        return []
    return [
        f"The plan's weights are tuned on {facts['scenes']} other scenes in {facts['steps']} steps of the whole model "
        f"and {facts['recipe']['block_steps']} of every block: damage {facts['damage_before']:.2e} -> "
        f"{facts['damage_after']:.2e} on {facts['selection_scenes']} selection scenes."
    ]


@contextmanager
def _resumable(run: Path, purpose: Mapping[str, object], say: Callable[[str], None]) -> Iterator[Parts]:
    """Steps that stay if the work inside ends early, and go when it is done."""
    parts = Parts(run / RESULTS, purpose)
    if done := parts.done():
        say(f"resuming: {len(done)} steps were done before and are skipped, the last is {done[-1]}")
    try:
        with parts.kept_if_any():
            yield parts
    except KeyboardInterrupt as error:
        if not parts.done():
            raise
        again = command(*sys.argv[1:])
        raise type(error)(f"interrupted; what is done is kept, and this goes on from there: {again}") from error
    parts.remove()


class Worst(NamedTuple):
    """Where the plan does the most damage.

    Attributes:
        scene: of the evaluation,
        scene_damage: and the plan's damage there; None where it is not a number.
        layer: whose weights are expected to do the most under the plan; "" where that is not known.
        layer_format: that it has,
        layer_share: and what it does, as a share of what all layers are expected to do one by one.
    """

    scene: str
    scene_damage: float | None
    layer: str
    layer_format: str
    layer_share: float | None

    def sentences(self) -> list[str]:
        """For people."""
        said = [f"Worst scene of the plan: {self.scene}, damage {format_number(self.scene_damage)}."]
        if self.layer and self.layer_share is not None:
            share = f"{self.layer_share:.0%} of what the layers are expected to do one by one"
            said.append(f"Worst layer of the plan: {self.layer} ({self.layer_format}), {share}.")
        return said


def worst_of(evaluation: Evaluation, plan: Plan, profile: Profile) -> Worst:
    """The scene on which the plan does the most damage, measured, and the layer of which most is expected."""
    result = evaluation.plan
    assert result is not None
    damages = [math.inf if math.isnan(damage) else damage for damage in result.per_scene]
    number = damages.index(max(damages))
    named = evaluation.scenes[number], damages[number] if math.isfinite(damages[number]) else None
    rows = {layer.name: row for row, layer in enumerate(profile.layers)}
    expected = {
        name: float(profile.total_damage[rows[name], profile.column(key)])
        for name, key in plan.formats.items()
        if key in profile.candidates
    }
    expected = {name: damage for name, damage in expected.items() if math.isfinite(damage)}
    total = math.fsum(expected.values())
    if not total:
        return Worst(*named, "", "", None)
    layer = max(expected, key=lambda name: expected[name])
    return Worst(*named, layer, plan.formats[layer], expected[layer] / total)


def _predicted(takes: Mapping[str, Any], evaluation: Evaluation, execute: str) -> list[str]:
    """The time that a plan was made for, beside the one that was measured."""
    own = next((result for result in evaluation.results if result.key == "plan"), None)
    if "seconds" not in takes or own is None or own.seconds is None:
        return []
    if execute != "int8":
        return [f"The plan's time is predicted for {setting('execute', 'int8')}; here it ran dequantised."]
    shared = (
        f"{own.seconds:.3f} s measured on the wall, {takes['seconds']:.3f} s predicted for {takes['views']} pictures"
    )
    ratios = (
        f"of FP32's time {1 / own.speed_ratio:.2f} and {takes['seconds'] / takes['fp32_seconds']:.2f}"
        if own.speed_ratio
        else ""
    )
    return [f"The plan's time: {shared}; {ratios}."]


def show_evaluation(run: Path) -> View:
    """The last evaluation of a run, with its text report and charts drawn anew."""
    check_writable(run)
    evaluation = read_evaluation(run)
    return evaluation_view(evaluation, run, write_reports(evaluation, run))


def write_reports(
    evaluation: Evaluation, run: Path, maps: DepthMaps | None = None, answer: Verdict | None = None
) -> Verdict:
    """Write the JSON, text and chart reports of a run, and depth to look at; all change, or none.

    Returns:
        The verdict that they say, made where nobody has it yet.
    """
    answer = answer or verdict(evaluation)
    write_all(reports_of(evaluation, run, answer) | (depth_of(evaluation, run, maps) if maps else {}))
    return answer


def reports_of(evaluation: Evaluation, run: Path, answer: Verdict) -> dict[Path, Write]:
    """How the JSON, text and chart reports of a run are written, by where they belong."""
    return {
        run / RESULTS: of_text(evaluation_to_json(evaluation, answer)),
        run / REPORT: of_text(reports.to_text(evaluation, answer)),
        run / CHARTS: lambda path: plots.draw(evaluation, path, answer),
    }


def depth_of(evaluation: Evaluation, run: Path, maps: DepthMaps) -> dict[Path, Write]:
    """How depth to look at is written, and the pictures of its differences, by where they belong."""

    def drawn(title: str, shares: Mapping[str, Map]) -> Write:
        return lambda path: draw_differences(shares, maps.pictures[0], evaluation, title, path)

    pictures = differences_of(maps, Wording("en"))
    files: dict[Path, Write] = {run / DEPTH_MAPS: lambda path: save_maps(maps, path)}
    return files | {run / name: drawn(*each) for name, each in pictures.items()}


def differences_of(maps: DepthMaps, say: Wording) -> dict[str, tuple[str, Mapping[str, Map]]]:
    """Title and maps of the pictures of differences, by the name of the file."""
    depth = say("Depth of {scene}, |scheme - FP32| / median depth of FP32", scene=maps.scene)
    points = say("Points of {scene}, distance from FP32's / spread of FP32's points", scene=maps.scene)
    drawn = {DEPTH_DIFFERENCES: (depth, depth_shares(maps)), POINT_DIFFERENCES: (points, maps.points)}
    return {name: (title, shares) for name, (title, shares) in drawn.items() if shares}


def evaluation_view(
    evaluation: Evaluation,
    run: Path,
    answer: Verdict,
    worst: Worst | None = None,
    more: Sequence[str] = (),
) -> View:
    """What an evaluation says; last its verdict, what is recommended."""
    results = [
        {
            "key": r.key,
            "size_bytes": r.size_bytes,
            "damage": r.damage,
            "seconds": r.seconds,
            "speed_ratio": r.speed_ratio,
            "bfloat16_ratio": r.bfloat16_ratio,
            "execution": r.execution,
            "stages": r.stages,
            "cost": r.cost,
            "changes": {key: estimate._asdict() for key, estimate in r.changes.items()},
            "geometry": {key: estimate.mean for key, estimate in r.geometry.items()},
        }
        for r in evaluation.results
    ]
    values: dict[str, object] = {
        "path": str(run / RESULTS),
        "verdict": answer.sentence,
        "holds": answer.holds,
        "recommended": answer.recommended or None,
        "results": results,
    }
    written = ", ".join(str(run / name) for name in (RESULTS, REPORT, CHARTS))
    lines = [too_few_scenes(evaluation), f"timed: {evaluation.executed}", f"written: {written}"]
    lines.append(_noise(evaluation))
    is_random = evaluation.weights_note.startswith(RANDOM)
    lines += [evaluation.weights_note] * is_random
    if worst is not None:
        values["worst"] = worst._asdict()
        lines += worst.sentences()
    lines += more
    lines.append(answer.sentence)
    tables = reports.terminal_tables(evaluation, answer, with_outputs=False)
    return View(values, tables, [line for line in lines if line]).of_weights("random" if is_random else "trained")


def _noise(evaluation: Evaluation) -> str:
    """What FP32 itself differs by from pass to pass, where it does."""
    noise = evaluation.provenance.get("repeatability")
    loudest = max(noise.values(), default=0.0) if isinstance(noise, dict) else 0.0
    if not loudest:
        return ""
    return f"NOT REPEATABLE: two FP32 passes differ by an NMSE of up to {loudest:.1e}; less damage says nothing."


def _weights_note(profile: Profile) -> str:
    if profile.facts["weights"] == "random":
        return f"{RANDOM}: these numbers say nothing about a trained VGGT"
    return "bundled, trained on rendered scenes" if profile.facts["model"] == "tiny" else "trained"
