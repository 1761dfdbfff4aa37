"""What is kept of every layer of one scene: sums of errors under every scheme, and samples of the outputs.

Errors are taken on a sample of a layer's output channels where there are many values (`VALUES_PER_CALL`): all tokens
of each channel, so that it can be laid out as a picture. The values of the FP32 pass are kept in memory until the last
scheme of the scene has been compared with them, a megabyte per call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from sensitivity.capture import LayerCall, alone, observed, under_scheme
from sensitivity.store import SCORE_METRICS
from sensitivity.survey import PICTURES, LayerVolume, as_tokens, channel_axis
from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.metrics.tensors import SUM_NAMES, SsimReference, error_sums, merge_sums, metrics_from_sums
from vggtkit.quant import Layer
from vggtkit.scenes import Scene
from vggtkit.subject import Subject, TokenGrid

VALUES_PER_CALL = 1 << 18
"""Values of a layer's output that errors are taken on, per call; networks with smaller layers are compared whole."""

FEWEST_CHANNELS = 8
FLOAT = 4

REPEATED_BYTES = 2 * 10**9
"""Of weights that are kept quantised from one call of their layer to the next, at most."""

TOKENS_PER_LAYER = 16
"""Tokens of a layer's output that are stored of every scene, at most."""


@dataclass(frozen=True)
class TokenSampling:
    """How many tokens of each layer and call are kept, so that all activations stay under a number of bytes.

    Attributes:
        per_call: tokens kept of every call, per layer.
        size_bytes: of all activations together.
    """

    per_call: tuple[int, ...]
    size_bytes: int


def plan_sampling(volumes: Sequence[LayerVolume], variants: int, scenes: int, limit_bytes: int) -> TokenSampling:
    """The largest equal number of tokens per layer that fits, up to `TOKENS_PER_LAYER`.

    Args:
        volumes: of `survey`.
        variants: FP32 and every scheme.
        scenes: to be profiled.
        limit_bytes: for the float32 activations of all scenes and variants together.

    Raises:
        InputError: not even one token per call fits.

    >>> plan_sampling([LayerVolume(1, 100, 8), LayerVolume(4, 400, 2)], 2, 1, 1280).per_call
    (16, 4)
    """

    def sample_tokens(tokens: int) -> TokenSampling:
        per_call = tuple(min(max(1, tokens // v.calls), v.tokens // v.calls) if v.calls else 0 for v in volumes)
        values = sum(n * v.calls * v.channels for n, v in zip(per_call, volumes, strict=True))
        return TokenSampling(per_call, 4 * variants * scenes * values)

    best = sample_tokens(1)
    if best.size_bytes > limit_bytes:
        raise InputError(
            f"one token per layer already takes {best.size_bytes / 1e6:.1f} MB of activations, what tables leave is "
            f"{limit_bytes / 1e6:.1f} MB: raise {setting('disk_budget')} or profile fewer scenes"
        )
    low, high = 1, max(1, min(TOKENS_PER_LAYER, max((v.tokens for v in volumes), default=1)))
    while low < high:  # the size grows with the number of tokens
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sample_tokens(middle).size_bytes <= limit_bytes else (low, middle - 1)
    return sample_tokens(low)


@dataclass
class Errors:
    """Errors of every layer's output under one scheme, of one kind; sums of scenes are added up.

    Attributes:
        sums: ``[layers, 7]``, columns as in `SUM_NAMES`.
        similarity: ``[layers]``: SSIM summed over maps.
        maps: ``[layers]``: how many.
    """

    sums: Tensor
    similarity: Tensor
    maps: Tensor

    @staticmethod
    def none(layers: int) -> Errors:
        """Before the first call."""
        zeros = torch.zeros(layers, dtype=torch.float64)
        return Errors(zeros[:, None].repeat(1, len(SUM_NAMES)), zeros, zeros.clone())

    def add(self, other: Errors) -> None:
        """Take another scene's errors in."""
        self.sums = merge_sums(self.sums, other.sums)
        self.similarity, self.maps = self.similarity + other.similarity, self.maps + other.maps

    def scores(self) -> dict[str, Array]:
        """``{metric: [layers]}``; SSIM is NaN for layers whose output is no picture."""
        metrics = {name: values.numpy() for name, values in metrics_from_sums(self.sums).items()}
        metrics["ssim"] = (self.similarity / self.maps).numpy()
        return {name: metrics[name] for name in SCORE_METRICS}


class SceneRecorder:
    """Runs one scene in FP32 and under schemes, and compares every layer.

    Args:
        subject: unchanged after every call.
        layers: those that are compared.
        volumes: of the layers, from `survey`.
        scene: what is run.
        sampling: how many tokens are kept.
        seed: of which channels are compared and which tokens are kept; the same ones in every scene and scheme.
    """

    def __init__(
        self,
        subject: Subject,
        layers: Sequence[Layer],
        volumes: Sequence[LayerVolume],
        scene: Scene,
        sampling: TokenSampling,
        seed: int,
    ) -> None:
        self.subject, self.layers, self.scene, self.seed = subject, layers, scene, seed
        self.grid = subject.token_grid(scene)
        self.per_call = sampling.per_call
        self.channels = [choose_channels(volume, self._seed(index)) for index, volume in enumerate(volumes)]
        self.repeated = repeated_layers(layers, volumes)
        self.values: list[list[Tensor]] = [[] for _ in layers]
        self.outputs: dict[str, Tensor] = {}
        self.samples: list[list[Tensor]] = []

    def reference(
        self, schemes: Sequence[str], running: Callable[[], AbstractContextManager[None]] = torch.no_grad
    ) -> dict[str, Errors]:
        """The FP32 pass; errors that each layer makes alone, on clean input, for the schemes given.

        Args:
            schemes: keys of formats.
            running: the pass runs in it.
        """
        errors = {key: Errors.none(len(self.layers)) for key in schemes}
        self.values, self.samples = [[] for _ in self.layers], [[] for _ in self.layers]
        waiting: dict[int, list[LayerCall]] = {}

        def observe(call: LayerCall) -> None:
            self.values[call.index].append(self._chosen(call.output, call.index).clone())
            self._sample(call)
            if not schemes:
                return
            if self.layers[call.index].name in self.repeated:
                waiting.setdefault(call.index, []).append(call.kept())
            else:
                self._alone([call], schemes, errors)

        with running(), observed(self.subject.model, self.layers, observe):
            self.outputs = self.subject.run(self.scene)
        with torch.no_grad():
            for calls in waiting.values():
                self._alone(calls, schemes, errors)
        return errors

    def _alone(self, calls: Sequence[LayerCall], schemes: Sequence[str], errors: Mapping[str, Errors]) -> None:
        """Compare the last calls of a layer with what it gives when it alone is quantised."""
        index = calls[0].index
        candidates = alone(calls, self.layers[index], schemes, self.channels[index])
        for values, outputs in zip(self.values[index][-len(calls) :], candidates, strict=True):
            self._compare(index, values, outputs, list(errors.values()))

    @torch.no_grad()
    def under(self, key: str) -> tuple[Errors, dict[str, Tensor]]:
        """The pass under one scheme, after `reference`: errors of every layer and the sums of every output."""
        errors, calls = Errors.none(len(self.layers)), [0] * len(self.layers)
        self.samples = [[] for _ in self.layers]

        def observe(call: LayerCall) -> None:
            reference = self.values[call.index][calls[call.index]]
            calls[call.index] += 1
            candidate = self._chosen(call.output, call.index)
            self._compare(call.index, reference, candidate[None], [errors])
            self._sample(call)

        model = self.subject.model
        with under_scheme(model, self.layers, key, self.repeated), observed(model, self.layers, observe):
            outputs = self.subject.run(self.scene, check=False)
        return errors, {name: error_sums(self.outputs[name], value[None])[0].cpu() for name, value in outputs.items()}

    def tokens(self) -> dict[int, Tensor]:
        """What was sampled in the last pass, ``[token, channel]`` by layer."""
        return {index: torch.cat(calls) for index, calls in enumerate(self.samples) if calls}

    def _chosen(self, output: Tensor, index: int) -> Tensor:
        channels = self.channels[index]
        if channels is None:
            return output
        return output.index_select(channel_axis(self.layers[index].kind), channels.to(output.device))

    def _compare(self, index: int, reference: Tensor, candidates: Tensor, into: Sequence[Errors]) -> None:
        for errors, sums in zip(into, error_sums(reference, candidates).cpu(), strict=True):
            errors.sums[index] = merge_sums(errors.sums[index], sums)
        maps = as_maps(reference, self.layers[index], self.grid)
        if maps is None:
            return
        prepared = SsimReference(maps, maps.amax((1, 2)) - maps.amin((1, 2)))
        laid_out = [picture for c in candidates if (picture := as_maps(c, self.layers[index], self.grid)) is not None]
        for errors, value in zip(into, prepared.compare(torch.stack(laid_out)).cpu(), strict=True):
            errors.similarity[index] += len(maps) * value
            errors.maps[index] += len(maps)

    def _sample(self, call: LayerCall) -> None:
        tokens = as_tokens(call.output, self.layers[call.index].kind)
        generator = torch.Generator().manual_seed(self._seed(call.index))
        chosen = torch.randperm(len(tokens), generator=generator)[: self.per_call[call.index]].sort().values
        self.samples[call.index].append(tokens[chosen.to(tokens.device)].float().cpu())

    def _seed(self, index: int) -> int:
        return self.seed * len(self.layers) + index


def repeated_layers(layers: Sequence[Layer], volumes: Sequence[LayerVolume]) -> set[str]:
    """Names of layers that run several times a pass on few tokens, whose quantised weights are worth keeping meanwhile.

    Iterations of heads read their whole weights for a handful of tokens. `REPEATED_BYTES` of weights are kept at most.

    >>> layers = [Layer(name, "linear", "mlp", "other", (8, 8), 64) for name in ("once", "thrice")]
    >>> repeated_layers(layers, [LayerVolume(1, 3, 8), LayerVolume(3, 3, 8)])
    {'thrice'}
    """
    names, room = set[str](), REPEATED_BYTES
    for layer, volume in zip(layers, volumes, strict=True):
        few = volume.calls > 1 and volume.tokens <= layer.shape[0]
        if few and (room := room - FLOAT * layer.weights) >= 0:
            names.add(layer.name)
    return names


def choose_channels(volume: LayerVolume, seed: int) -> Tensor | None:
    """Which output channels of a layer are compared, ``[n]`` in order; None for all.

    >>> choose_channels(LayerVolume(1, 2082, 4096), 0).shape, choose_channels(LayerVolume(4, 400, 256), 0)
    (torch.Size([125]), None)
    """
    wanted = max(FEWEST_CHANNELS, VALUES_PER_CALL * max(1, volume.calls) // max(1, volume.tokens))
    if wanted >= volume.channels:
        return None
    return torch.randperm(volume.channels, generator=torch.Generator().manual_seed(seed))[:wanted].sort().values


def as_maps(output: Tensor, layer: Layer, grid: TokenGrid | None) -> Tensor | None:
    """A layer's output as pictures ``[M, H, W]``, one per frame and channel; None where it is no picture.

    Maps of convolutions are pictures, and so are the patch tokens of the aggregator, laid back on their grid.

    Args:
        output: ``[N, C, H, W]``, or tokens ``[N, frames * (special + rows * columns), C]``.
        layer: that gave it.
        grid: of the model and the size of the pictures; None where tokens are not known to lie on one.

    >>> layer = Layer("fc1", "linear", "mlp", "frame.0", (8, 2), 16)
    >>> as_maps(torch.zeros(1, 2 * (5 + 4 * 6), 8), layer, TokenGrid(5, 4, 6)).shape
    torch.Size([16, 4, 6])
    """
    if layer.kind in PICTURES:
        return output.reshape(-1, *output.shape[-2:])
    if grid is None:
        return None
    frame = grid.tokens
    if layer.role not in ("attention", "mlp") or output.ndim != 3 or output.shape[1] % frame:
        return None
    patches = output.reshape(-1, frame, output.shape[2])[:, grid.special :]
    return patches.transpose(1, 2).reshape(-1, grid.rows, grid.columns)
