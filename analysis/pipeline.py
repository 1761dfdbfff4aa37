"""The steps of a run, each from the files of its folder to the next file: profile, plan, evaluation, checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from model import VGGT, VGGTConfig, load_vggt, model_fingerprint
from quant import Format, find_layers
from scenes import Scene, SceneSource, fingerprint, load_scenes, parse_scenes
from sensitivity import Profile, open_profile
from sensitivity import profile as profile_model
from sensitivity.provenance import Progress, provenance, replacing, require_same, silent
from sensitivity.tables import profile_tables, summary

PROFILE, PLAN = "profile.h5", "plan.json"
RESULTS, REPORT, CHARTS = (
    "comprehensive_results.json",
    "comprehensive_report.txt",
    "comprehensive_visualizations.png",
)


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
        InputError: both are given, or one is not usable.

    >>> scene_source(None, None, count=2, views=0, seed=0, max_images=None).views
    4
    """
    if images and scenes:
        raise InputError("--images and --scenes are both given; --images DIR is short for --scenes photos:DIR")
    kind, folder = parse_scenes(f"photos:{images}" if images else scenes or "synthetic")
    absolute = str(Path(folder).expanduser().resolve()) if folder else None
    return SceneSource(kind, absolute, count=count, views=views, seed=seed, max_images=max_images)


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
    say: Callable[[str], None] = lambda line: None,
) -> Profile:
    """Profile a model on the calibration half of the scenes; writes ``profile.h5``."""
    if probes < 1:
        raise InputError(f"--probes {probes}: at least 1 is needed")
    progress("loading", 0, 1)
    model = load_vggt(model_name, weights, pick_device(device))
    scenes = _load(source, "calibration", model)
    facts = provenance(
        model=model_name,
        weights="random" if weights == "random" else "trained",
        config=model.config.to_json(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        model_fingerprint=model_fingerprint(model),
        scene_fingerprint=fingerprint(scenes),
        scene_source=source.to_dict(),
        scenes=[scene.name for scene in scenes],
        seed=seed,
    )
    limit = parse_budget(disk_budget, parameters=int(facts["parameters"]), fp32_bytes=4 * int(facts["parameters"]))
    say(
        f"profiling {model_name} ({facts['weights']} weights, {facts['parameters']:,} parameters) on "
        f"{len(scenes)} scenes of {len(scenes[0].images)} pictures of {tuple(scenes[0].images.shape[-2:])}; "
        f"{run / PROFILE} will take at most {format_bytes(limit)} and a little"
    )
    return profile_model(
        model, scenes, run / PROFILE, facts=facts, probes=probes, seed=seed, patch_size=model.config.patch_size,
        activation_bytes=limit, progress=progress,
    )  # fmt: skip


def profile_view(profile: Profile) -> View:
    """What a profile says."""
    lines = [f"written: {profile.path}"]
    if profile.facts["weights"] != "trained":
        lines.append("RANDOM WEIGHTS: these scores say nothing about a trained network.")
    return View(summary(profile), profile_tables(profile), lines)


def make_plan(run: Path, budget: str, *, policy: str, formats: str, keep: str) -> View:
    """Plan from the run's profile; writes ``plan.json``."""
    profile = open_profile(run)
    with torch.device("meta"):
        skeleton = VGGT(VGGTConfig.from_json(str(profile.facts["config"])))
    plan = planner.make_plan(profile, skeleton, budget, policy=policy, formats=formats, keep=keep)
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
    return View(values, plan_tables(profile, plan), [*plan_sentences(profile, plan), f"written: {run / PLAN}"])


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
    if repeats < 0:
        raise InputError(f"--repeats {repeats}: give 0 to leave out timing, or more")
    profile, plan = open_profile(run), load_plan(run / PLAN)
    require_same(str(run / PLAN), profile.facts, vars(plan), ("model_fingerprint",))
    progress("loading", 0, 1)
    model = _model_of(profile, device)
    source = SceneSource.from_dict(profile.facts["scene_source"])
    if images or scenes:
        source = scene_source(
            images,
            scenes,
            count=num_scenes or source.count,
            views=views,
            seed=source.seed,
            max_images=max_images,
        )
    elif num_scenes or views or max_images:
        changes = {"count": num_scenes, "views": views, "max_images": max_images}
        source = replace(source, **{name: value for name, value in changes.items() if value})
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
    """Write the JSON, text and chart reports of a run, each complete or not at all."""
    with replacing(run / RESULTS) as temporary:
        temporary.write_text(to_json(evaluation))
    with replacing(run / REPORT) as temporary:
        temporary.write_text(reports.to_text(evaluation))
    plots.draw(evaluation, run / CHARTS)


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
    return View(values, reports.rich_tables(evaluation)[:2], lines)


def show_evaluation(run: Path) -> View:
    """The last evaluation of a run, with its text report and charts drawn anew."""
    path = run / RESULTS
    if not path.is_file():
        raise InputError(f"{path}: no such file; make it with `python cli.py evaluate --run {run}`")
    evaluation = from_json(path.read_text())
    write_reports(evaluation, run)
    return evaluation_view(evaluation, run)


def export(run: Path, scheme: str) -> View:
    """Write the packed checkpoint of the run's plan, or of a uniform scheme."""
    profile = open_profile(run)
    model = _model_of(profile, "cpu")
    keep, assignment = "fp16", None
    if scheme == "plan":
        plan = load_plan(run / PLAN)
        require_same(str(run / PLAN), profile.facts, vars(plan), ("model_fingerprint",))
        keep, assignment = plan.keep, dict(plan.formats)
    path = run / f"model-{scheme}.safetensors"
    size = save_quantized(model, assignment or uniform_assignment(find_layers(model), scheme), path, keep=keep)
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


def _load(source: SceneSource, split: Any, model: VGGT) -> list[Scene]:
    return load_scenes(source, split, img_size=model.config.img_size, patch_size=model.config.patch_size)


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
