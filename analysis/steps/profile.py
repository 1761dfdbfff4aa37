"""Scenes and a model -> ``profile.h5``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from analysis.steps.device import pick_device
from analysis.steps.run_folder import PROFILE, check_writable, scenes_for
from analysis.steps.view import View
from errors import InputError, check_number
from mixedprec import format_bytes, parse_budget, planner
from model import load_vggt, model_fingerprint
from scenes import SceneSource, fingerprint
from sensitivity import Profile
from sensitivity import profile as profile_model
from sensitivity.provenance import Progress, provenance, silent
from sensitivity.tables import profile_tables, summary


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
    check_number("--probes", probes, 1)
    check_writable(run)
    progress("loading", 0, 1)
    model = load_vggt(model_name, weights, pick_device(device))
    scenes = scenes_for(model, source, "calibration")
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


def _disk_bytes(text: str, parameters: int) -> int:
    try:
        return parse_budget(text, parameters=parameters, fp32_bytes=planner.FP32_BYTES * parameters)
    except InputError as error:
        raise InputError(f"--disk-budget: {error}") from None
