"""The steps of a run, each from the files of its folder to the next file: profile, plan, evaluation, checkpoint."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from analysis import plots
from analysis import report as reports
from analysis.evaluate import evaluate
from analysis.results import Evaluation, from_json, to_json, verdict
from errors import InputError
from mixedprec import (
    Plan,
    Request,
    check_plan,
    format_bytes,
    load_plan,
    parse_budget,
    planner,
    save_plan,
    save_quantized,
    uniform_assignment,
)
from mixedprec.planner import layers_by_format
from mixedprec.tables import plan_sentences, plan_tables
from model import VGGT, VGGTConfig, load_vggt, model_fingerprint, skeleton
from quant import Format, find_layers, get_format
from scenes import Scene, SceneSource, fingerprint, load_scenes, parse_scenes
from scenes.source import Split
from sensitivity import Profile, open_profile
from sensitivity import profile as profile_model
from sensitivity.atomic import replacing
from sensitivity.provenance import Progress, provenance, require_same, silent
from sensitivity.tables import profile_tables, summary

PROFILE, PLAN = "profile.h5", "plan.json"
RESULTS, REPORT, CHARTS = (
    "comprehensive_results.json",
    "comprehensive_report.txt",
    "comprehensive_visualizations.png",
)
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class View:
    """A result as people and as machines see it.

    Attributes:
        values: plain values for ``--json``.
        tables: for the terminal.
        lines: below the tables.
    """

    values: Mapping[str, Any]
    tables: Sequence[Table] = field(default_factory=tuple)
    lines: Sequence[str] = field(default_factory=tuple)


def scene_source(
    images: str | None, scenes: str | None, *, count: int, views: int, seed: int, max_images: int | None
) -> SceneSource:
    """The scenes that ``--images`` or ``--scenes`` ask for; rendered rooms where neither is given.

    Raises:
        InputError: both are given, or one is not usable, or a number is out of range.

    >>> scene_source(None, None, count=2, views=0, seed=0, max_images=None).views
    4
    """
    if images is not None and scenes is not None:
        raise InputError("--images and --scenes are both given; --images DIR is short for --scenes photos:DIR")
    _check_number("--num-scenes", count, 1)
    _check_number("--views", views, 0)
    _check_number("--seed", seed, 0, LARGEST_SEED)
    if max_images is not None:
        _check_number("--max-images", max_images, 1)
    kind, folder = parse_scenes((scenes or "synthetic") if images is None else f"photos:{images}")
    absolute = str(Path(folder).expanduser().resolve()) if folder else None
    return SceneSource(kind, absolute, count=count, views=views, seed=seed, max_images=max_images)


def evaluation_source(
    profiled: SceneSource,
    images: str | None,
    scenes: str | None,
    *,
    count: int = 0,
    views: int = 0,
    max_images: int | None = None,
) -> SceneSource:
    """Where evaluation scenes come from: what was profiled, unless other scenes or numbers are asked for.

    Raises:
        InputError: as `scene_source`.

    >>> evaluation_source(SceneSource("photos", "kitchen", stride=2), None, None, count=8).stride
    2
    """
    _check_number("--num-scenes", count, 0)
    asked = scene_source(
        images, scenes, count=count or profiled.count, views=views, seed=profiled.seed, max_images=max_images
    )
    if images is not None or scenes is not None:
        return asked
    numbers = {"count": asked.count, "views": views or profiled.views, "max_images": max_images or profiled.max_images}
    return SceneSource.from_dict(profiled.to_dict() | numbers)


def make_profile(
    run: Path,
    model_name: str,
    weights: str,
    source: SceneSource,
    *,
    probes: int,
    disk_budget: str,
    device: str,
    seed: int,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> Profile:
    """Profile a model on the calibration half of the scenes; writes ``profile.h5``."""
    _check_number("--probes", probes, 1)
    _check_writable(run)
    progress("loading", 0, 1)
    model = load_vggt(model_name, weights, pick_device(device))
    scenes = _load(source, "calibration", model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    limit = _disk_bytes(disk_budget, parameters)
    facts = provenance(
        model=model_name,
        weights="random" if weights == "random" else "trained",
        config=model.config.to_json(),
        parameters=parameters,
        model_fingerprint=model_fingerprint(model),
        scene_fingerprint=fingerprint(scenes),
        scene_source=source.to_dict(),
        scenes=[scene.name for scene in scenes],
        seed=seed,
    )
    views, size = len(scenes[0].images), tuple(scenes[0].images.shape[-2:])
    say(
        f"profiling {model_name} ({facts['weights']} weights, {parameters:,} parameters) on "
        f"{len(scenes)} scene{'s' * (len(scenes) > 1)} of {views} picture{'s' * (views > 1)} of {size}; "
        f"{run / PROFILE} will take at most {format_bytes(limit)} and a little"
    )
    return profile_model(
        model, scenes, run / PROFILE, facts=facts, probes=probes, seed=seed, activation_bytes=limit,
        progress=progress,
    )  # fmt: skip


def profile_view(profile: Profile) -> View:
    """What a profile says."""
    lines = [f"written: {profile.path}"]
    if profile.facts["weights"] != "trained":
        lines.append("RANDOM WEIGHTS: these scores say nothing about a trained network.")
    return View(summary(profile), profile_tables(profile), lines)


def make_plan(run: Path, budget: str, *, policy: str, formats: str, keep: str, progress: Progress = silent) -> View:
    """Plan from the run's profile; writes ``plan.json``."""
    _check_writable(run)
    progress("choosing formats", 0, 1)
    profile = open_profile(run / PROFILE)
    architecture = skeleton(VGGTConfig.from_json(str(profile.facts["config"])))
    found = planner.planned(profile, architecture, Request(budget, policy=policy, formats=formats, keep=keep))
    plan = found.plan
    save_plan(plan, run / PLAN)
    values = {
        "path": str(run / PLAN),
        "policy": plan.policy,
        "size_bytes": plan.size_bytes,
        "budget_bytes": plan.budget_bytes,
        "predicted_damage": plan.total_damage,
        "bound": plan.bound,
        "optimal": plan.optimal,
        "layers_by_format": layers_by_format(plan),
    }
    return View(values, plan_tables(found), [*plan_sentences(found), f"written: {run / PLAN}"])


def make_evaluation(
    run: Path,
    images: str | None,
    scenes: str | None,
    *,
    num_scenes: int,
    views: int,
    max_images: int | None,
    repeats: int,
    device: str,
    progress: Progress = silent,
) -> View:
    """Evaluate the run's plan against the uniform schemes; writes the three reports.

    Without scenes of its own it takes the evaluation half of those that were profiled.
    """
    _check_number("--repeats", repeats, 0)
    _check_writable(run)
    profile = open_profile(run / PROFILE)
    plan = _plan_of(run, profile)
    source = evaluation_source(
        SceneSource.from_dict(profile.facts["scene_source"]),
        images,
        scenes,
        count=num_scenes,
        views=views,
        max_images=max_images,
    )
    progress("loading", 0, 1)
    model = _model_of(profile, device)
    held_out = _load(source, "evaluation", model)
    facts = provenance(
        schema_version=1,
        model_fingerprint=plan.model_fingerprint,
        scene_fingerprint=fingerprint(held_out),
        calibration_scene_fingerprint=profile.facts["scene_fingerprint"],
        seed=profile.facts["seed"],
    )
    if facts["scene_fingerprint"] == facts["calibration_scene_fingerprint"]:
        raise InputError("the evaluation scenes are the calibration scenes; give others with --images")
    found = evaluate(
        model, held_out, plan, facts=facts, weights_note=_weights_note(profile), repeats=repeats,
        calibration_scenes=profile.facts["scenes"], progress=progress,
    )  # fmt: skip
    write_reports(found, run)
    return evaluation_view(found, run)


def write_reports(evaluation: Evaluation, run: Path) -> None:
    """Write the JSON, text and chart reports of a run; all three are there before any takes its name."""
    with ExitStack() as files:
        results, report, charts = (files.enter_context(replacing(run / name)) for name in (RESULTS, REPORT, CHARTS))
        results.write_text(to_json(evaluation), encoding="utf-8")
        report.write_text(reports.to_text(evaluation), encoding="utf-8")
        plots.draw(evaluation, charts)


def evaluation_view(evaluation: Evaluation, run: Path) -> View:
    """What an evaluation says."""
    answer = verdict(evaluation)
    results = [
        {
            "key": r.key,
            "size_bytes": r.size_bytes,
            "damage": r.damage,
            "seconds": r.seconds,
            "speed_ratio": r.speed_ratio,
            "cost": r.cost,
            "geometry": {key: estimate.mean for key, estimate in r.geometry.items()},
        }
        for r in evaluation.results
    ]
    values = {
        "path": str(run / RESULTS),
        "verdict": answer.sentence,
        "holds": answer.holds,
        "results": results,
    }
    written = ", ".join(str(run / name) for name in (RESULTS, REPORT, CHARTS))
    lines = [answer.sentence, f"timed: {evaluation.executed}", f"written: {written}"]
    return View(values, reports.rich_tables(evaluation, with_outputs=False), lines)


def show_evaluation(run: Path) -> View:
    """The last evaluation of a run, with its text report and charts drawn anew."""
    _check_writable(run)
    path, remedy = run / RESULTS, f"make it with `python cli.py evaluate --run {run}`"
    if not path.is_file():
        raise InputError(f"{path}: no such file; {remedy}")
    try:
        evaluation = from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: {error}; {remedy}") from error
    write_reports(evaluation, run)
    return evaluation_view(evaluation, run)


def export(run: Path, scheme: str, progress: Progress = silent) -> View:
    """Write the packed checkpoint of the run's plan, or of a uniform scheme."""
    if scheme != "plan":
        get_format(scheme)
    _check_writable(run)
    profile = open_profile(run / PROFILE)
    plan = _plan_of(run, profile) if scheme == "plan" else None
    progress("loading", 0, 1)
    model = _model_of(profile, "cpu")
    layers = find_layers(model)
    if plan:
        check_plan(model, plan)
    written = itertools.count(1)

    def on_layer(_name: str) -> None:
        progress("writing", next(written), len(layers))

    path = run / f"model-{scheme}.safetensors"
    size = save_quantized(
        model,
        plan.formats if plan else uniform_assignment(layers, scheme),
        path,
        keep=plan.keep if plan else "fp16",
        note=provenance(scene_fingerprint=profile.facts["scene_fingerprint"], seed=profile.facts["seed"]),
        on_layer=on_layer,
    )
    lines = [
        f"written: {path}, {format_bytes(size)} ({size:,} bytes)",
        f'load it with: from mixedprec import load_quantized; model = load_quantized("{path}")',
    ]
    return View({"path": str(path), "size_bytes": size}, (), lines)


def formats_view(known: Mapping[str, Format], uniform: Sequence[str], candidates: Sequence[str]) -> View:
    """The formats, with the bits that a weight of a large layer takes."""
    table = Table(title="Weight formats", title_justify="left")
    for name in ("key", "format", "bits per weight", "uniform scheme", "in plans"):
        table.add_column(name, justify="right" if name == "bits per weight" else "left")
    values = {}
    for key, kind in known.items():
        bits = kind.bits + (16 / kind.group_size if kind.group_size else 0)
        values[key] = {"title": kind.title, "bits_per_weight": bits, "in_plans": key in candidates}
        table.add_row(key, kind.title, f"{bits:g}", "yes" if key in uniform else "", "yes" if key in candidates else "")
    return View(
        values,
        (table,),
        ("Per-tensor and per-channel scales are not counted here; they add less than 0.02 bits.",),
    )


def pick_device(name: str) -> torch.device:
    """A device by name; ``"auto"`` takes CUDA, then Metal, then the CPU.

    Raises:
        InputError: unknown, or not on this machine.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if name not in available:
        raise InputError(f"--device {name}: not known; use auto, {', '.join(available)}")
    if not available[name]:
        raise InputError(f"--device {name}: this machine has none; use --device auto")
    return torch.device(name)


def _check_number(option: str, value: int, least: int, most: int | None = None) -> None:
    if value < least or (most is not None and value > most):
        limits = f"{least} or more" if most is None else f"{least} to {most}"
        raise InputError(f"{option} {value}: give a whole number, {limits}")


def _check_writable(run: Path) -> None:
    """Refuse a folder that cannot be written before minutes of work, not after them."""
    place = run
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"--run {run}: {place} cannot be written to ({reason}); name another folder") from error


def _disk_bytes(text: str, parameters: int) -> int:
    try:
        return parse_budget(text, parameters=parameters, fp32_bytes=planner.FP32_BYTES * parameters)
    except InputError as error:
        raise InputError(f"--disk-budget: {error}") from None


def _load(source: SceneSource, split: Split, model: VGGT) -> list[Scene]:
    return load_scenes(source, split, img_size=model.config.img_size, patch_size=model.config.patch_size)


def _plan_of(run: Path, profile: Profile) -> Plan:
    """The run's plan; refused when it was made from another profile."""
    path = run / PLAN
    if not path.is_file():
        raise InputError(f"{path}: no such file; make it with `python cli.py plan --run {run}`")
    plan = load_plan(path)
    facts = {**plan.provenance, "model_fingerprint": plan.model_fingerprint}
    require_same(str(path), profile.facts, facts, ("model_fingerprint", "scene_fingerprint"))
    return plan


def _model_of(profile: Profile, device: str) -> VGGT:
    """The profiled model; refused when its weights have changed since."""
    weights = "random" if profile.facts["weights"] == "random" else "pretrained"
    model = load_vggt(str(profile.facts["model"]), weights, pick_device(device))
    found = {"model_fingerprint": model_fingerprint(model)}
    require_same(f"{profile.path} and --model {profile.facts['model']}", found, profile.facts, ("model_fingerprint",))
    return model


def _weights_note(profile: Profile) -> str:
    if profile.facts["weights"] == "random":
        return "RANDOM WEIGHTS: these numbers say nothing about a trained VGGT"
    return "bundled, trained on rendered rooms" if profile.facts["model"] == "tiny" else "trained"
