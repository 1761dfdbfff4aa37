"""Scenes and a model -> ``profile.h5``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from analysis.steps.device import pick_device
from analysis.steps.run_folder import PICTURE_DIGESTS, PROFILE, check_writable, scenes_for
from analysis.steps.view import View
from mixedprec import parse_budget, planner
from sensitivity import Profile
from sensitivity import profile as profile_model
from sensitivity.jacobian_sketch import DEFAULT_PROBES
from sensitivity.tables import profile_tables, summary
from vggtkit.core.errors import InputError, check_number
from vggtkit.core.memory import LARGE
from vggtkit.core.provenance import Progress, provenance, silent
from vggtkit.model import (
    VGGT,
    gradient_dtype,
    is_factory,
    load_custom,
    load_inputs,
    load_vggt,
    model_fingerprint,
    pick_dtype,
)
from vggtkit.quant import find_layers, read_roles
from vggtkit.scenes import Scene, SceneSource, check_source, fingerprint, picture_digests

OVERHEAD_PER_LAYER = 20_000
"""Bytes that HDF5 and the scores add to the activations of a layer, measured: 15,500 with seven schemes."""


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
    dtype: str = "auto",
    inputs: str | None = None,
    roles: str | None = None,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> Profile:
    """Profile a model on the calibration half of the scenes; writes ``profile.h5``.

    Args:
        run: folder of the run.
        model_name: as `load_vggt` takes it, or ``package.module:function`` that makes any other model.
        weights: ``"pretrained"`` or ``"random"``.
        source: of the scenes.
        probes: random vectors per output and scene; 0 for 4, and 1 for large networks.
        disk_budget: activations take at most this.
        device: as `pick_device` takes it.
        seed: of samples and probes.
        dtype: as `vggtkit.model.pick_dtype` takes it.
        inputs: ``package.module:function`` that yields what the model is called with, in the place of scenes.
        roles: TOML file of name patterns, see `vggtkit.quant.roles`.
        progress: told about every step.
        say: told what is worth knowing beforehand.

    Raises:
        InputError: what the user can mend.
        KeyboardInterrupt: with the command that resumes.
    """
    check_number("--probes", probes, 0)
    check_writable(run)
    if inputs is None:
        check_source(source)
    names = read_roles(roles) if roles else None
    progress("loading", 0, 1)
    place = pick_device(device)
    precision = pick_dtype(dtype, place)
    model = _model(model_name, weights, place)
    scenes = _given(inputs, source.count) if inputs else scenes_for(model, source, "calibration", say)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    limit = _disk_bytes(disk_budget, parameters)
    layers = find_layers(model, names)
    probes = probes or (DEFAULT_PROBES if parameters <= LARGE else 1)
    facts = provenance(
        model=model_name,
        weights="random" if weights == "random" else "trained",
        config=model.config.to_json() if isinstance(model, VGGT) else "",
        parameters=parameters,
        model_fingerprint=model_fingerprint(model),
        scene_fingerprint=fingerprint(scenes),
        scene_source=source.to_dict(),
        **{PICTURE_DIGESTS: [] if inputs else sorted(picture_digests(source, "calibration"))},
        scenes=[scene.name for scene in scenes],
        seed=seed,
    )
    say(f"profiling {model_name} ({facts['weights']} weights, {parameters:,} parameters) on {_described(scenes)}")
    try:
        return profile_model(
            model,
            scenes,
            run / PROFILE,
            facts=facts,
            layers=layers,
            probes=probes,
            seed=seed,
            activation_bytes=max(0, limit - OVERHEAD_PER_LAYER * len(layers)),
            dtype=precision,
            gradient_dtype=gradient_dtype(precision, place, parameters),
            progress=progress,
            say=say,
        )
    except KeyboardInterrupt as error:
        again = shlex.join(["python", "cli.py", *sys.argv[1:]])
        raise KeyboardInterrupt(f"interrupted; what is done is kept, and this goes on from there: {again}") from error


def profile_view(profile: Profile) -> View:
    """What a profile says."""
    lines = [f"written: {profile.path}"]
    if profile.facts["weights"] != "trained":
        lines.append("RANDOM WEIGHTS: these scores say nothing about a trained network.")
    facts = {
        name: profile.facts.get(name) for name in ("expected_peak_bytes", "peak_resident_bytes", "probes", "dtype")
    }
    return View(summary(profile) | facts, profile_tables(profile), lines).of_weights(str(profile.facts["weights"]))


def _model(name: str, weights: str, device: torch.device) -> nn.Module:
    if not is_factory(name):
        return load_vggt(name, weights, device)
    if weights != "pretrained":
        raise InputError(f"--weights {weights}: a model made by a function has the weights that this gives it")
    return load_custom(name, device)


def _given(inputs: str, count: int) -> list[Scene]:
    """What a model is called with as scenes."""
    nothing = torch.zeros(0)
    items = load_inputs(inputs, count)
    return [Scene(f"{inputs}[{number}]", nothing, nothing, inputs=item) for number, item in enumerate(items)]


def _described(scenes: list[Scene]) -> str:
    images, count = scenes[0].images, f"{len(scenes)} scene{'s' * (len(scenes) > 1)}"
    if scenes[0].inputs is not None:
        return f"{count} of inputs {[list(value.shape) for value in scenes[0].inputs]}"
    return f"{count} of {len(images)} picture{'s' * (len(images) > 1)} of {images.shape[-2]}x{images.shape[-1]}"


def _disk_bytes(text: str, parameters: int) -> int:
    try:
        return parse_budget(text, parameters=parameters, fp32_bytes=planner.FP32_BYTES * parameters)
    except InputError as error:
        raise InputError(f"--disk-budget: {error}") from None
