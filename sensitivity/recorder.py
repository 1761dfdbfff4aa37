"""What is kept of every layer while schemes run side by side: sums of errors, and a sample of the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from errors import InputError
from quant import Layer
from sensitivity.capture import LayerOutputs
from sensitivity.metrics import SUM_NAMES, SsimReference, error_sums, merge_sums, metrics_from_sums
from sensitivity.store import FP32, KINDS, SCORE_METRICS, Array
from sensitivity.survey import CONVOLUTIONS, LayerVolume, as_tokens


class Grid(NamedTuple):
    """How the tokens of one frame lie.

    Attributes:
        special: class or camera token and registers, in front of the patches.
        rows: of patches.
        columns: of patches.
    """

    special: int
    rows: int
    columns: int


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


class Recorder:
    """Observes scene after scene: adds up the errors of every layer, and samples the tokens of the present scene.

    Args:
        layers: those that are hooked.
        schemes: those that run side by side.
        grid: how tokens lie in the pictures.
        seed: of which tokens are sampled; the same ones in every call, scene and scheme.
    """

    def __init__(self, layers: Sequence[Layer], schemes: Sequence[str], grid: Grid, seed: int) -> None:
        self.layers, self.schemes, self.grid, self.seed = layers, schemes, grid, seed
        shape = (len(layers), len(schemes))
        self.sums = {kind: torch.zeros(*shape, len(SUM_NAMES), dtype=torch.float64) for kind in KINDS}
        self.ssim = {kind: torch.zeros(shape, dtype=torch.float64) for kind in self.sums}
        self.maps = torch.zeros(len(layers), 1, dtype=torch.float64)
        self.per_call: Sequence[int] = ()
        self.samples: dict[tuple[str, int], list[Tensor]] = {}

    def start(self, sampling: Sampling) -> None:
        """Get ready for the next scene."""
        self.per_call, self.samples = sampling.per_call, {}

    def __call__(self, outputs: LayerOutputs) -> None:
        """Take note of one call of one layer."""
        index = outputs.index
        for kind, candidates in (("isolated", outputs.isolated), ("accumulated", outputs.accumulated)):
            sums = error_sums(outputs.reference, candidates).cpu()
            self.sums[kind][index] = merge_sums(self.sums[kind][index], sums)
        self._similarity(outputs)
        self._sample(outputs)

    def _similarity(self, outputs: LayerOutputs) -> None:
        layer = self.layers[outputs.index]
        maps = as_maps(outputs.reference, layer, self.grid)
        if maps is None:
            return
        reference = SsimReference(maps, maps.amax((1, 2)) - maps.amin((1, 2)))
        for kind, candidates in (("isolated", outputs.isolated), ("accumulated", outputs.accumulated)):
            laid_out = [found for c in candidates if (found := as_maps(c, layer, self.grid)) is not None]
            self.ssim[kind][outputs.index] += len(maps) * reference.compare(torch.stack(laid_out)).cpu()
        self.maps[outputs.index] += len(maps)

    def _sample(self, outputs: LayerOutputs) -> None:
        kind = self.layers[outputs.index].kind
        tokens = as_tokens(outputs.reference, kind)
        generator = torch.Generator().manual_seed(self.seed * len(self.layers) + outputs.index)
        chosen = torch.randperm(len(tokens), generator=generator)[: self.per_call[outputs.index]].sort().values
        kept = {FP32: tokens} | {
            key: as_tokens(output, kind) for key, output in zip(self.schemes, outputs.accumulated, strict=True)
        }
        for scheme, values in kept.items():
            sample = values[chosen.to(values.device)].float().cpu()
            self.samples.setdefault((scheme, outputs.index), []).append(sample)

    def scores(self, kind: str) -> dict[str, Array]:
        """``{metric: [layers, schemes]}``; SSIM is NaN for layers whose output is no picture."""
        found = {name: values.numpy() for name, values in metrics_from_sums(self.sums[kind]).items()}
        found["ssim"] = (self.ssim[kind] / self.maps).numpy()
        return {name: found[name] for name in SCORE_METRICS}


def as_maps(output: Tensor, layer: Layer, grid: Grid) -> Tensor | None:
    """A layer's output as pictures ``[M, H, W]``, one per frame and channel; None where it is no picture.

    Maps of convolutions are pictures, and so are the patch tokens of the aggregator, laid back on their grid.

    Args:
        output: ``[N, C, H, W]``, or tokens ``[N, frames * (special + rows * columns), C]``.
        layer: that gave it.
        grid: of the model and the size of the pictures.

    >>> layer = Layer("fc1", "linear", "mlp", "frame.0", (8, 2), 16)
    >>> as_maps(torch.zeros(1, 2 * (5 + 4 * 6), 8), layer, Grid(5, 4, 6)).shape
    torch.Size([16, 4, 6])
    """
    if layer.kind in CONVOLUTIONS:
        return output.flatten(0, 1)
    frame = grid.special + grid.rows * grid.columns
    if layer.role not in ("attention", "mlp") or output.ndim != 3 or output.shape[1] % frame:
        return None
    patches = output.reshape(-1, frame, output.shape[2])[:, grid.special :]
    return patches.transpose(1, 2).reshape(-1, grid.rows, grid.columns)
