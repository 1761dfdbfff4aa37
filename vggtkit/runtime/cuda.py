"""The backend ``cuda``: the same whole numbers as ``int8``, multiplied by what torch has for an NVIDIA GPU.

Products of whole numbers are cuBLASLt's, by `torch._int_mm`, which wants more than 16 rows and sides that are multiples
of 8; scales and bias come after, in one kernel of `torch.compile` where that works and is faster. Layers that do not
fit, attention and convolutions are computed in bfloat16, and whichever is the fastest is measured, as on the processor.

Its arithmetic is tested on the processor; it has not been checked on a GPU yet.

Source of the limits: torch, ``aten/src/ATen/native/cuda/Blas.cpp``, ``_int_mm_out_cuda``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.runtime.codes import Int8Weight
from vggtkit.runtime.int8 import Int8Backend
from vggtkit.runtime.kernels import Kernel
from vggtkit.subject import Subject

LEAST_ROWS = 17
SIDE = 8
"""Rows and columns of a weight are multiples of it."""


def scaled(whole: Tensor, scales: Tensor, steps: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Sums of whole numbers ``[rows, out]`` by the scales of channels and rows, with the bias, as numbers of a dtype.

    >>> scaled(torch.tensor([[6]]), torch.tensor([0.5]), torch.tensor([[2.0]]), torch.tensor([1.0]), torch.float32)
    tensor([[7.]])
    """
    y = whole.float() * scales * steps
    return (y if bias is None else y + bias.float()).to(dtype)


class CudaIntMM(Kernel):
    """torch's product of int8 matrices on a GPU; weights need no preparation."""

    key, title = "torch._int_mm", "cuBLASLt's integer product (torch._int_mm)"
    loads_at_once = True

    def takes(self, inputs: int, outputs: int) -> bool:
        """As `Kernel.takes`.

        >>> CudaIntMM().takes(1024, 3072), CudaIntMM().takes(1024, 9)
        (True, False)
        """
        return inputs % SIDE == 0 and outputs % SIDE == 0

    def load(self, weight: Int8Weight) -> tuple[Tensor, Tensor]:
        """A view."""
        return weight.codes.t(), weight.scales

    def multiply(
        self, codes: Tensor, steps: Tensor, weight: tuple[Tensor, Tensor], bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        """As `Kernel.multiply`; a few rows are filled up with zeros."""
        rows = len(codes)
        if rows < LEAST_ROWS:
            codes = F.pad(codes, (0, 0, 0, LEAST_ROWS - rows))
        return self.scale(torch._int_mm(codes, weight[0])[:rows], weight[1], steps, bias, dtype)

    def scale(self, whole: Tensor, scales: Tensor, steps: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        """As `scaled`."""
        return scaled(whole, scales, steps, bias, dtype)


class FusedIntMM(CudaIntMM):
    """The same, scaled in one kernel."""

    key, title = "torch._int_mm, compiled", "cuBLASLt's integer product (torch._int_mm), scaled by torch.compile"

    def scale(self, whole: Tensor, scales: Tensor, steps: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        """As `scaled`."""
        return _compiled()(whole, scales, steps, bias, dtype)


@cache
def _compiled() -> Callable[..., Tensor]:
    compiled: Callable[..., Tensor] = torch.compile(scaled, dynamic=True)
    return compiled


class Cuda(Int8Backend):
    """Integer products on a GPU.

    >>> Cuda().runs("int4_two_level_64", "linear"), Cuda().rounds_inputs_to("int8_per_channel_sym")
    (True, 'int8_token')
    """

    key, title = "cuda", "cuda (8-bit weights and activations per token, on a GPU)"
    needs = "an NVIDIA GPU that torch computes on"
    is_listed = False
    device_type = "cuda"
    kernels: tuple[Kernel, ...] = (CudaIntMM(), FusedIntMM())

    @property
    def missing(self) -> str:
        """As `Backend.missing`."""
        return "" if torch.cuda.is_available() else self.needs

    def machine(self) -> str:
        """As `Int8.machine`."""
        return torch.cuda.get_device_name()

    def check(self, subject: Subject) -> None:
        """Refuse a machine without a GPU, and a model that is not on it."""
        if self.missing:
            raise InputError(
                f"{setting('execute', self.key)}: this machine lacks {self.missing}; "
                f"{setting('execute', Int8Backend.key)} runs on the processor"
            )
        if subject.device.type != self.device_type:
            raise InputError(
                f"{setting('execute', self.key)}: the model is on {subject.device.type}; give "
                f"{setting('device', self.device_type)}"
            )
