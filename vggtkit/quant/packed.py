"""A weight that is kept packed in memory, and put back for the moment in which it is used.

Layers keep their class: packing removes the parameter and adds a submodule with the codes; hooks on the modules that
read the weight put the dequantised one in place while they run. It computes what the simulated model does, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vggtkit.quant.quantizer import PARTS, QuantizedTensor, dequantize


class PackedWeight(nn.Module):
    """The packed weight of one layer, as the buffers named in `vggtkit.quant.quantizer.PARTS`.

    Args:
        q: the quantised weight, output channels first.
        kind: kind of the layer that it belongs to.
        like: the weight that it stands for; its dtype and ``requires_grad`` are kept.
        execution: how its layer is to run, for whatever executes it; None where that is not decided.
    """

    codes: Tensor
    scales: Tensor | None
    zero_points: Tensor | None
    multipliers: Tensor | None

    def __init__(self, q: QuantizedTensor, kind: str, like: Tensor, execution: str | None = None) -> None:
        super().__init__()
        self.format, self.shape, self.kind, self.execution = q.format, q.shape, kind, execution
        self.dtype, self.requires_grad = like.dtype, like.requires_grad
        self.places: tuple[tuple[nn.Module, str], ...] = ()
        self.handles: tuple[RemovableHandle, ...] = ()
        self.running = 0
        for name in PARTS:
            self.register_buffer(name, getattr(q, name))

    @property
    def twins(self) -> tuple[tuple[nn.Module, str], ...]:
        """Further modules that hold this weight, each with its name there."""
        return self.places[1:]

    @property
    def quantized(self) -> QuantizedTensor:
        """The quantised weight; it shares memory with the buffers."""
        return QuantizedTensor(self.format, self.shape, self.codes, self.scales, self.zero_points, self.multipliers)

    def forward(self) -> nn.Parameter:
        """The dequantised weight in the layout of its layer."""
        weight = from_out_first(dequantize(self.quantized), self.kind).to(self.dtype)
        # On strided input torch picks the matrix product, and so the last bits, by whether the weight (or the
        # tensor that it is a view of) requires a gradient, even under no_grad: should_fold in ATen's
        # LinearAlgebra.cpp. Only a parameter like the simulated model's gives the simulated model's bits.
        return nn.Parameter(weight, self.requires_grad)

    def materialise(self, _reader: nn.Module, _arguments: object) -> None:
        """Hook: put the weight in place right before a module that reads it runs."""
        self.running += 1
        if self.running == 1:
            weight = self()
            for owner, name in self.places:
                # Past nn.Module's own __setattr__, which admits only parameters under a parameter's name.
                owner.__dict__[name] = weight

    def drop(self, _reader: nn.Module, _arguments: object, _output: object) -> None:
        """Hook: forget the weight right after, also when the module fails."""
        self.running = max(0, self.running - 1)
        if self.running == 0:
            for owner, name in self.places:
                owner.__dict__.pop(name, None)

    @contextmanager
    def left_packed(self) -> Iterator[None]:
        """Within the block the weight is not put back: something else than the module's own forward reads it."""
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Within the block the weight stays where it was, dequantised once."""
        self.materialise(self, None)
        try:
            yield
        finally:
            self.drop(self, None, None)

    def extra_repr(self) -> str:
        """Format and shape, for ``print(model)``."""
        return f"{self.format.key}, shape={self.shape}"


def out_first(weight: Tensor, kind: str) -> Tensor:
    """A module's own weight with the output channels first; a view.

    Args:
        weight: the weight in its module's layout.
        kind: kind of the layer; a transposed convolution stores ``[in, out, kh, kw]``.

    >>> import torch
    >>> out_first(torch.zeros(3, 8, 2, 2), "conv_transpose2d").shape
    torch.Size([8, 3, 2, 2])
    """
    return weight.transpose(0, 1) if kind.startswith("conv_transpose") else weight


def from_out_first(weight: Tensor, kind: str) -> Tensor:
    """Undo ``out_first`` of a weight ``[out, in, ...]``; contiguous, as the module's own weight is.

    >>> import torch
    >>> from_out_first(torch.zeros(8, 3, 2, 2), "conv_transpose2d").shape
    torch.Size([3, 8, 2, 2])
    """
    return out_first(weight, kind).contiguous()


def pack_parameter(
    module: nn.Module,
    parameter: str,
    packed: PackedWeight,
    *,
    twins: Sequence[tuple[nn.Module, str]] = (),
    readers: Sequence[nn.Module] = (),
) -> None:
    """Replace a parameter by its packed weight.

    Args:
        module: that owns the parameter; it gets a submodule ``packed``.
        parameter: its name there.
        packed: the codes.
        twins: further modules that hold the same parameter, each with its name there.
        readers: modules in whose calls the weight is used; those that hold it by default.
    """
    packed.places = ((module, parameter), *twins)
    hooked = readers or [owner for owner, _ in packed.places]
    packed.handles = tuple(
        handle
        for reader in hooked
        for handle in (
            reader.register_forward_pre_hook(packed.materialise),
            reader.register_forward_hook(packed.drop, always_call=True),
        )
    )
    module.packed = packed
    for owner, name in packed.places:
        # None keeps the parameter's place: the order of parameters survives packing and unpacking.
        owner.register_parameter(name, None)


def unpack_parameter(module: nn.Module, weight: nn.Parameter) -> None:
    """Undo `pack_parameter` with a weight of the caller's choice.

    Raises:
        ValueError: the module is not packed, or the weight has another shape.
    """
    packed = getattr(module, "packed", None)
    if not isinstance(packed, PackedWeight):
        raise ValueError(f"{type(module).__name__} is not packed")
    if out_first(weight, packed.kind).shape != packed.shape:
        raise ValueError(f"weight of shape {list(weight.shape)} does not fit {packed}")
    for handle in packed.handles:
        handle.remove()
    del module.packed
    for owner, name in packed.places:
        setattr(owner, name, weight)
