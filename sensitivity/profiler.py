"""The profile: activations, errors per layer and scheme, and damage at the outputs, from calibration scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from errors import InputError
from model import VGGT
from quant import CANDIDATES, UNIFORM_SCHEMES, Layer, find_layers
from scenes import Scene
from sensitivity.capture import side_by_side
from sensitivity.metrics import error_sums, metrics_from_sums
from sensitivity.provenance import Progress, silent
from sensitivity.recorder import Grid, Recorder, plan_sampling
from sensitivity.sketch import DEFAULT_PROBES, WeightErrors, sketch_damage
from sensitivity.store import KINDS, Array, Profile, ProfileWriter, open_profile, writing_profile
from sensitivity.survey import run, survey

DEFAULT_ACTIVATION_BYTES = 200 * 10**6


def profile(
    model: VGGT,
    scenes: Sequence[Scene],
    path: Path,
    *,
    facts: Mapping[str, Any],
    schemes: Sequence[str] = UNIFORM_SCHEMES,
    candidates: Sequence[str] = CANDIDATES,
    probes: int = DEFAULT_PROBES,
    seed: int = 0,
    activation_bytes: int = DEFAULT_ACTIVATION_BYTES,
    progress: Progress = silent,
) -> Profile:
    """Profile a model on calibration scenes and write ``profile.h5``.

    Args:
        model: in eval mode; unchanged afterwards.
        scenes: calibration scenes, all of one number of views and one size.
        path: of the file.
        facts: provenance to be written into it.
        schemes: keys of the formats whose errors are captured layer by layer.
        candidates: keys of the formats whose bytes and damage are scored, for a planner to choose from.
        probes: random vectors per output and scene, see `sensitivity.sketch`.
        seed: of what is sampled and of the probes.
        activation_bytes: activations take no more than this on disk.
        progress: told about every step.

    Returns:
        The profile, as `open_profile` gives it.

    Raises:
        InputError: no scenes, scenes of several sizes, or a model that gives no finite outputs.
    """
    _check(scenes)
    layers = find_layers(model)
    patch = model.config.patch_size
    rows, columns = (length // patch for length in scenes[0].images.shape[-2:])
    volumes = survey(model, layers, scenes[0])
    sampling = plan_sampling(volumes, 1 + len(schemes), len(scenes), activation_bytes)
    recorder = Recorder(layers, schemes, Grid(model.config.patch_start, rows, columns), seed)
    errors = WeightErrors(model, layers, candidates)
    damage: dict[str, Array] = {}
    uniform: dict[str, Array] = {}
    steps = 2 * len(scenes)
    facts = dict(facts) | {"activation_tokens": list(sampling.per_call)}
    with writing_profile(path, layers, schemes, candidates, facts) as writer:
        for number, scene in enumerate(scenes):
            progress("errors of every layer, all schemes side by side", 2 * number, steps)
            recorder.start(sampling)
            found = _side_by_side(model, layers, schemes, scene, recorder)
            _accumulate(uniform, found, len(scenes))
            _write_samples(writer, recorder, number, len(scenes))
            progress("damage at the outputs, layer by layer", 2 * number + 1, steps)
            sketched = sketch_damage(model, layers, errors, scene, probes=probes, seed=seed * len(scenes) + number)
            _accumulate(damage, {name: value.numpy() for name, value in sketched.items()}, len(scenes))
        progress("writing scores", steps, steps)
        writer.table([errors.size_bytes[layer.name] for layer in layers])
        for kind in KINDS:
            writer.scores(kind, recorder.scores(kind))
        writer.scores("output", damage)
        writer.scores("uniform", uniform)
    return open_profile(path)


@torch.no_grad()
def _side_by_side(
    model: nn.Module, layers: Sequence[Layer], schemes: Sequence[str], scene: Scene, recorder: Recorder
) -> dict[str, Array]:
    """Run a scene under all schemes at once; NMSE of each output, ``[schemes]``."""
    with side_by_side(model, layers, schemes, recorder):
        outputs = run(model, scene, copies=1 + len(schemes))
    return {
        name: metrics_from_sums(error_sums(value[0], value[1:]))["nmse"].cpu().numpy()
        for name, value in outputs.items()
    }


def _accumulate(total: dict[str, Array], part: Mapping[str, Array], count: int) -> None:
    for name, value in part.items():
        total[name] = total.get(name, np.zeros_like(value)) + value / count


def _write_samples(writer: ProfileWriter, recorder: Recorder, scene: int, scenes: int) -> None:
    for (scheme, index), tokens in recorder.samples.items():
        writer.activations(scheme, recorder.layers[index].name, scene, scenes, torch.cat(tokens).numpy())


def _check(scenes: Sequence[Scene]) -> None:
    if not scenes:
        raise InputError("no calibration scenes: give more photographs, or --scenes synthetic")
    first = scenes[0]
    for scene in scenes:
        for what, found, expected in (
            ("size", scene.images.shape, first.images.shape),
            ("number of query points", scene.query_points.shape, first.query_points.shape),
        ):
            if found != expected:
                raise InputError(
                    f"scenes must agree in {what}: {scene.name} is {list(found)}, {first.name} is {list(expected)}"
                )
