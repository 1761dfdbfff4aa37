"""What stands in for the ``forward`` of a layer: integer products, bfloat16, or FP32 with a weight that stays.

A runner is made once of a layer's packed weight. It reads the bias of its module when it is called, since that is
rounded as the rest of the model is.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggtkit.quant import PackedWeight, QuantizedTensor, dequantize, from_out_first
from vggtkit.runtime.codes import expanded
from vggtkit.runtime.kernels import Kernel, quantize_rows
from vggtkit.runtime.onednn import linear


class Runner(ABC):
    """A layer's product.

    Attributes:
        way: how it is computed, in words.
        dtype: of what it returns; None: as its input.
    """

    way: str

    def __init__(self, module: nn.Module, dtype: torch.dtype | None) -> None:
        self.module, self.dtype = module, dtype

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """As the module's own ``forward``."""

    @property
    @abstractmethod
    def weight_bytes(self) -> int:
        """Bytes of the weight that it reads, as they stay in memory."""

    @property
    def bias(self) -> Tensor | None:
        """The module's, as it is now."""
        bias = self.module.bias
        return bias if isinstance(bias, Tensor) else None


class Int8Runner(Runner):
    """8-bit weights and activations, for linear layers and convolutions of one pixel.

    Args:
        module: `torch.nn.Linear`, or a convolution of `is_pointwise`.
        q: its weight, INT8 per channel in whatever form.
        kernel: the product.
        stays: load the weight now, once.
        dtype: of what it returns; None: as its input.
    """

    way = "int8"

    def __init__(
        self, module: nn.Module, q: QuantizedTensor, kernel: Kernel, *, stays: bool, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(module, dtype)
        self.q, self.kernel = q, kernel
        self.loaded = kernel.load(expanded(q)) if stays else None

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """As `Runner.__call__`, without gradients; a convolution's pixels are rows."""
        if isinstance(self.module, nn.Linear):
            return self._product(x)
        y: Tensor = self._product(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return y

    def _product(self, x: Tensor) -> Tensor:
        dtype = self.dtype or x.dtype
        codes, steps = quantize_rows(x.reshape(-1, x.shape[-1]), dtype)
        loaded = self.loaded or self.kernel.load(expanded(self.q))
        return self.kernel.multiply(codes, steps, loaded, self.bias, dtype).view(*x.shape[:-1], -1)

    @property
    def weight_bytes(self) -> int:
        """As `Runner.weight_bytes`; oneDNN's own order has no size that torch tells, but one byte a weight."""
        if self.loaded is None:
            return self.q.nbytes
        return self.q.shape[0] * (4 + self.q.codes.numel() * 8 // self.q.format.bits // self.q.shape[0])


class FloatRunner(Runner):
    """The module's own function with its weight dequantised to FP32 or bfloat16.

    Args:
        module: a linear layer, a convolution or a transposed one.
        packed: its weight.
        computing: the type of the product, to which the input is rounded.
        stays: dequantise the weight now, once.
        dtype: of what it returns; None: as its input.
    """

    def __init__(
        self,
        module: nn.Module,
        packed: PackedWeight,
        computing: torch.dtype,
        *,
        stays: bool,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(module, dtype)
        self.q, self.kind, self.computing = packed.quantized, packed.kind, computing
        self.way = "bfloat16" if computing == torch.bfloat16 else "FP32"
        self.weight = self._weight() if stays else None

    def _weight(self) -> Tensor:
        return from_out_first(dequantize(self.q), self.kind).to(self.computing)

    def __call__(self, x: Tensor) -> Tensor:
        """As `Runner.__call__`."""
        weight = self._weight() if self.weight is None else self.weight
        bias = None if self.bias is None else self.bias.to(self.computing)
        y = _apply(self.module, x.to(self.computing), weight, bias)
        return y.to(self.dtype or x.dtype)

    @property
    def weight_bytes(self) -> int:
        """As `Runner.weight_bytes`."""
        return self.q.nbytes if self.weight is None else self.weight.nbytes


class PutBack(Runner):
    """The module itself, its weight dequantised to FP32 as long as the model runs; for small layers of any kind."""

    way = "FP32"

    def __init__(self, module: nn.Module, packed: PackedWeight) -> None:
        super().__init__(module, None)
        self.weights = math.prod(packed.shape)

    def __call__(self, x: Tensor) -> Tensor:
        """As the module does."""
        result: Tensor = self.module.forward(x)
        return result

    @property
    def weight_bytes(self) -> int:
        """As `Runner.weight_bytes`."""
        return 4 * self.weights


def _apply(module: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    match module:
        case nn.Linear():
            return linear(x, weight, bias)
        case nn.ConvTranspose2d():
            where = module.stride, module.padding, module.output_padding, module.groups, module.dilation
            result: Tensor = torch.conv_transpose2d(x, weight, bias, *where)  # type: ignore[arg-type]
            return result
        case nn.Conv2d():
            return F.conv2d(x, weight, bias, module.stride, module.padding, module.dilation, module.groups)
        case _:
            raise TypeError(f"{type(module).__name__} has no product of its own")


def has_product(module: nn.Module) -> bool:
    """Whether `FloatRunner` knows what a module computes.

    >>> has_product(nn.Conv2d(2, 3, 3)), has_product(nn.MultiheadAttention(4, 2))
    (True, False)
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return module.padding_mode == "zeros"
    return type(module) is nn.Linear


def is_pointwise(module: nn.Module) -> bool:
    """Whether a module multiplies every pixel by the same matrix.

    >>> is_pointwise(nn.Conv2d(2, 3, 1)), is_pointwise(nn.Conv2d(2, 3, 1, stride=2)), is_pointwise(nn.Linear(2, 3))
    (True, False, False)
    """
    return (
        isinstance(module, nn.Conv2d)
        and (module.kernel_size, module.stride, module.padding) == ((1, 1), (1, 1), (0, 0))
        and (module.dilation, module.groups) == ((1, 1), 1)
    )
