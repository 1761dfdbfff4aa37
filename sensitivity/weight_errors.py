"""Quantisation errors of layers' weights, and their inner products with gradients.

At full size the errors of all layers in all formats do not fit into memory. They are made anew for every scene, some
output channels in all formats at a time, multiplied with the gradients, and forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sensitivity.going_back import computed_in
from vggtkit.quant import Layer, simulate_formats, weight_of
from vggtkit.quant.blocks import CutWeight
from vggtkit.quant.formats import get_format
from vggtkit.quant.packed import out_first
from vggtkit.quant.simulate import simulate_pieces, stored_nbytes_cut

NOISE_DRAWS = 2
"""Gaussian matrices of every layer whose damage stands for that of noise."""
CACHE_BYTES = 2 * 10**9
SHARES = 64
"""Of long inner products, added up one by one."""
WEIGHTS_AT_ONCE = 2**20
"""Weights whose errors in all schemes are made at a time where they are not kept."""


class WeightErrors:
    """Quantisation error of every layer's weight in every scheme; kept in memory where they fit, else made anew.

    Args:
        model: not packed.
        layers: of `vggtkit.quant.find_layers`.
        schemes: keys of formats.
        cache_bytes: how much to keep at most; all errors or none are kept.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        schemes: Sequence[str],
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.model, self.layers, self.schemes = model, layers, schemes
        self.keep = 4 * len(schemes) * sum(layer.weights for layer in layers) <= cache_bytes
        self.cache: dict[str, Tensor] = {}
        self.squares: dict[str, Tensor] = {}
        self.sizes: dict[str, list[int]] = {}
        self.noise = torch.empty(NOISE_DRAWS, 0)

    def __call__(self, layer: Layer) -> Tensor:
        """``[schemes, weights]``: stored minus original weight, in the module's own order of weights."""
        if layer.name not in self.cache:
            errors = self._simulate(layer)
            if not self.keep:
                return errors
            self.cache[layer.name] = errors
        return self.cache[layer.name]

    def products(self, layer: Layer, gradients: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Inner products of n gradients like a layer's weight with its errors, and with noise.

        The noise is Gaussian, of norm 1, and the same numbers for all layers, which are never looked at together.

        Returns:
            float64 ``[n, schemes]`` and ``[n, NOISE_DRAWS]``.
        """
        kind = layer.kind
        if self.keep:
            pieces: Iterable[tuple[slice, Tensor]] = [(slice(0, layer.weights), self(layer))]
            rows = [gradient.flatten() for gradient in gradients]
        else:
            pieces = self._pieces(layer)
            rows = [out_first(gradient, kind).flatten() for gradient in gradients]
        noise = self._noise(layer, rows[0].device)
        of_errors = torch.zeros(len(rows), len(self.schemes), dtype=torch.float64)
        of_noise = torch.zeros(len(rows), NOISE_DRAWS, dtype=torch.float64)
        squares = torch.zeros(len(self.schemes), dtype=torch.float64)
        for part, errors in pieces:
            some = torch.stack([row[part] for row in rows]).to(errors)  # of many gradients at full size, in the cache
            of_errors += _inner(some, errors).double().cpu()
            of_noise += _inner(some, noise[:, part].to(some)).double().cpu()
            if layer.name not in self.squares:
                squares += torch.linalg.vector_norm(errors, dim=1).double().square().cpu()
        self.squares.setdefault(layer.name, squares)
        return of_errors, of_noise / noise.norm(dim=1).double().cpu()

    def _noise(self, layer: Layer, device: torch.device) -> Tensor:
        if self.noise.shape[1] < layer.weights or self.noise.device != device:
            generator = torch.Generator().manual_seed(0)
            largest = max(one.weights for one in self.layers)
            self.noise = torch.randn(NOISE_DRAWS, largest, generator=generator).to(device)
        return self.noise[:, : layer.weights]

    def squared_norms(self) -> Tensor:
        """Of the errors of all layers that products were asked of, float64 ``[layers, schemes]``; 0 of the others."""
        none = torch.zeros(len(self.schemes), dtype=torch.float64)
        return torch.stack([self.squares.get(layer.name, none) for layer in self.layers])

    def size_bytes(self, known: NDArray[np.int64] | None = None) -> list[list[int]]:
        """Bytes of every layer's weight in a file, in every scheme; exact, so all weights are read.

        Args:
            known: what `known_sizes` gave, here or elsewhere.
        """
        if known is None:
            known = self.known_sizes()
        return [
            row.tolist() if row.any() else self._sizes(self._cut(layer))
            for layer, row in zip(self.layers, known, strict=True)
        ]

    def known_sizes(self) -> NDArray[np.int64]:
        """The same of layers whose errors were made anew, which tells it by the way; 0 of the others."""
        nothing = [0] * len(self.schemes)
        return np.array([self.sizes.get(layer.name, nothing) for layer in self.layers], dtype=np.int64)

    def _sizes(self, cut: CutWeight) -> list[int]:
        cut.look_for(map(get_format, self.schemes))
        return [stored_nbytes_cut(cut, key) for key in self.schemes]

    def _cut(self, layer: Layer) -> CutWeight:
        return CutWeight(out_first(weight_of(self.model, layer).detach(), layer.kind), layer.name)

    def _simulate(self, layer: Layer) -> Tensor:
        """All errors of a layer's weight, ``[schemes, weights]``, in the module's own order."""
        module, weight = self.model.get_submodule(layer.name), weight_of(self.model, layer).detach()
        dtype = computed_in(weight.dtype)
        errors = weight.new_empty(len(self.schemes), layer.weights, dtype=dtype)
        original = weight.flatten().to(dtype)
        for row, stored in zip(errors, simulate_formats(module, self.schemes, layer.name), strict=True):
            torch.sub(stored.to(weight.dtype).flatten().to(dtype), original, out=row)  # as the module can hold it
        return errors

    def _pieces(self, layer: Layer) -> Iterator[tuple[slice, Tensor]]:
        """The same, output channels first, some of them at a time; see `simulate_pieces`."""
        cut = self._cut(layer)
        dtype = computed_in(cut.original.dtype)
        original = cut.original.flatten().to(dtype)
        for part, stored in simulate_pieces(cut, self.schemes, WEIGHTS_AT_ONCE):
            yield part, stored.to(cut.original.dtype).to(dtype).sub_(original[part])
        if layer.name not in self.sizes:
            self.sizes[layer.name] = self._sizes(cut)


def _inner(some: Tensor, others: Tensor) -> Tensor:
    """Inner products ``[n, m]`` of long rows; cut into `SHARES`, where that is possible, in a quarter less time."""
    if some.shape[1] % SHARES:
        return some @ others.T
    left, right = (rows.unflatten(1, (SHARES, -1)).transpose(0, 1) for rows in (some, others))
    return torch.bmm(left, right.transpose(1, 2)).sum(0)
