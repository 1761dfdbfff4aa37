"""The profile: activations, errors per layer and scheme, and damage at the outputs, from calibration scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from errors import InputError
from quant import CANDIDATES, UNIFORM_SCHEMES, Layer, find_layers
from scenes import Scene
from sensitivity.capture import LayerOutputs, side_by_side
from sensitivity.metrics import SUM_NAMES, SsimReference, error_sums, merge_sums, metrics_from_sums
from sensitivity.provenance import Progress, silent
from sensitivity.sketch import DEFAULT_PROBES, WeightErrors, sketch_damage
from sensitivity.store import (
    FP32,
    SCORE_METRICS,
    Array,
    Profile,
    ProfileWriter,
    open_profile,
    writing_profile,
)
from sensitivity.survey import LayerVolume, as_tokens, run, survey

DEFAULT_ACTIVATION_BYTES = 200 * 10**6
SPECIAL_TOKENS = 5  # camera or class token and four registers, in front of the patches of a frame


@dataclass(frozen=True)
class Sampling:
    """How many tokens of each layer and call are kept, so that all activations stay under a number of bytes.

    Attributes:
        per_call: tokens kept of every call, per layer.
        size_bytes: of all activations together.
    """

    per_call: tuple[int, ...]
    size_bytes: int


def plan_sampling(volumes: Sequence[LayerVolume], variants: int, scenes: int, limit_bytes: int) -> Sampling:
    """The largest equal number of tokens per layer that fits.

    Args:
        volumes: of `survey`.
        variants: FP32 and every scheme.
        scenes: to be profiled.
        limit_bytes: for float32 activations.

    Raises:
        InputError: not even one token per call fits.

    >>> plan_sampling([LayerVolume(1, 100, 8), LayerVolume(4, 400, 2)], 2, 1, 1280).per_call
    (16, 4)
    """

    def sized(tokens: int) -> Sampling:
        per_call = tuple(min(max(1, tokens // v.calls), v.tokens // v.calls) if v.calls else 0 for v in volumes)
        values = sum(n * v.calls * v.channels for n, v in zip(per_call, volumes, strict=True))
        return Sampling(per_call, 4 * variants * scenes * values)

    best = sized(1)
    if best.size_bytes > limit_bytes:
        raise InputError(
            f"one token per layer already takes {best.size_bytes / 1e6:.1f} MB of activations, the limit is "
            f"{limit_bytes / 1e6:.1f} MB: raise --disk-budget or profile fewer scenes"
        )
    low, high = 1, max((v.tokens for v in volumes), default=1)
    while low < high:  # the size grows with the number of tokens
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sized(middle).size_bytes <= limit_bytes else (low, middle - 1)
    return sized(low)


class _Recorder:
    """Observes one scene: adds up errors of every layer and keeps sampled tokens."""

    def __init__(self, layers: Sequence[Layer], schemes: Sequence[str], grid: tuple[int, int], seed: int) -> None:
        self.layers, self.schemes, self.grid, self.seed = layers, schemes, grid, seed
        shape = (len(layers), len(schemes))
        self.sums = {
            kind: torch.zeros(*shape, len(SUM_NAMES), dtype=torch.float64) for kind in ("isolated", "accumulated")
        }
        self.ssim = {kind: torch.zeros(shape, dtype=torch.float64) for kind in self.sums}
        self.maps = torch.zeros(len(layers), 1, dtype=torch.float64)
        self.per_call: Sequence[int] = ()
        self.samples: dict[tuple[str, int], list[Tensor]] = {}

    def start(self, sampling: Sampling) -> None:
        """Get ready for the next scene."""
        self.per_call, self.samples = sampling.per_call, {}

    def __call__(self, outputs: LayerOutputs) -> None:
        index = outputs.index
        for kind, candidates in (("isolated", outputs.isolated), ("accumulated", outputs.accumulated)):
            sums = error_sums(outputs.reference, candidates).cpu()
            self.sums[kind][index] = merge_sums(self.sums[kind][index], sums)
        self._similarity(outputs)
        self._sample(outputs)

    def _similarity(self, outputs: LayerOutputs) -> None:
        maps = as_maps(outputs.reference, self.layers[outputs.index].role, self.grid)
        if maps is None:
            return
        role = self.layers[outputs.index].role
        reference = SsimReference(maps, maps.amax((1, 2)) - maps.amin((1, 2)))
        for kind, candidates in (("isolated", outputs.isolated), ("accumulated", outputs.accumulated)):
            laid_out = torch.stack([as_maps(c, role, self.grid) for c in candidates])  # type: ignore[misc]
            self.ssim[kind][outputs.index] += len(maps) * reference.compare(laid_out).cpu()
        self.maps[outputs.index] += len(maps)

    def _sample(self, outputs: LayerOutputs) -> None:
        tokens = as_tokens(outputs.reference)
        generator = torch.Generator().manual_seed(self.seed * len(self.layers) + outputs.index)
        chosen = torch.randperm(len(tokens), generator=generator)[: self.per_call[outputs.index]].sort().values
        kept = {FP32: tokens} | {
            key: as_tokens(output) for key, output in zip(self.schemes, outputs.accumulated, strict=True)
        }
        for scheme, values in kept.items():
            sample = values[chosen.to(values.device)].float().cpu()
            self.samples.setdefault((scheme, outputs.index), []).append(sample)

    def scores(self, kind: str) -> dict[str, Array]:
        """``{metric: [layers, schemes]}``; SSIM is NaN for layers whose output is no picture."""
        found = {name: values.numpy() for name, values in metrics_from_sums(self.sums[kind]).items()}
        found["ssim"] = (self.ssim[kind] / self.maps).numpy()
        return {name: found[name] for name in SCORE_METRICS}


def as_maps(output: Tensor, role: str, grid: tuple[int, int]) -> Tensor | None:
    """A layer's output as pictures ``[M, H, W]``, one per frame and channel; None where it is no picture.

    Maps of convolutions are pictures, and so are the patch tokens of the aggregator, laid back on their grid.

    Args:
        output: ``[N, C, H, W]``, or tokens ``[N, frames * (5 + rows * columns), C]``.
        role: of the layer.
        grid: rows and columns of patches.
    """
    if output.ndim == 4:
        return output.flatten(0, 1)
    frame = SPECIAL_TOKENS + grid[0] * grid[1]
    if role not in ("attention", "mlp") or output.ndim != 3 or output.shape[1] % frame:
        return None
    patches = output.reshape(-1, frame, output.shape[2])[:, SPECIAL_TOKENS:]
    return patches.transpose(1, 2).reshape(-1, *grid)


def profile(
    model: nn.Module,
    scenes: Sequence[Scene],
    path: Path,
    *,
    facts: Mapping[str, Any],
    schemes: Sequence[str] = UNIFORM_SCHEMES,
    candidates: Sequence[str] = CANDIDATES,
    probes: int = DEFAULT_PROBES,
    seed: int = 0,
    patch_size: int,
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
        patch_size: of the model, to lay tokens out as pictures.
        activation_bytes: activations take no more than this on disk.
        progress: told about every step.

    Returns:
        The profile, as `open_profile` gives it.

    Raises:
        InputError: no scenes, scenes of several sizes, or a model that gives no finite outputs.
    """
    _check(scenes)
    layers = find_layers(model)
    grid = (scenes[0].images.shape[-2] // patch_size, scenes[0].images.shape[-1] // patch_size)
    volumes = survey(model, layers, scenes[0])
    sampling = plan_sampling(volumes, 1 + len(schemes), len(scenes), activation_bytes)
    recorder = _Recorder(layers, schemes, grid, seed)
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
        for kind in ("accumulated", "isolated"):
            writer.scores(kind, recorder.scores(kind))
        writer.scores("output", damage)
        writer.scores("uniform", uniform)
    return open_profile(path)


@torch.no_grad()
def _side_by_side(
    model: nn.Module, layers: Sequence[Layer], schemes: Sequence[str], scene: Scene, recorder: _Recorder
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


def _write_samples(writer: ProfileWriter, recorder: _Recorder, scene: int, scenes: int) -> None:
    for (scheme, index), tokens in recorder.samples.items():
        writer.activations(scheme, recorder.layers[index].name, scene, scenes, torch.cat(tokens).numpy())


def _check(scenes: Sequence[Scene]) -> None:
    if not scenes:
        raise InputError("no calibration scenes: give more photographs, or --scenes synthetic")
    first = scenes[0].images.shape
    for scene in scenes:
        if scene.images.shape != first:
            raise InputError(
                f"scenes must agree in size: {scene.name} is {list(scene.images.shape)}, "
                f"{scenes[0].name} is {list(first)}"
            )
