"""Products of 8-bit activations and 8-bit weights, by the kernels that torch has; and the choice among them.

Activations get one scale per row (token), symmetric, as they come; sums are 32-bit whole numbers. torch's own kernels
take one scale for all rows at most, so they multiply whole numbers and the rows are scaled afterwards, with the bias.

A kernel is used only if it multiplies extreme numbers exactly here, and the fastest is. That is measured, because the
names of instructions do not tell: with AVX512-VNNI and no AMX, oneDNN has no kernel for signed activations and falls
back to one that is three thousand times slower, while unsigned ones around a zero point of 128 run as they should.

Any processor has `InFP32`, which gives the same sums at FP32's pace: what rounding inputs does can be judged without
instructions for whole numbers, only not what time it saves.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial, reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vggtkit.core.accelerator import wait_for
from vggtkit.quant.activations import row_scales
from vggtkit.runtime import processor
from vggtkit.runtime.codes import Int8Weight

LARGEST = 127
EXACT_INPUTS = (2**24 - 1) // LARGEST**2
"""Products of codes that FP32 adds up exactly, in any order: whole numbers below 2^24 are not rounded."""
PIECE_ROWS = 256
"""Rows that are scaled at a time, so that they are still in the processor's cache."""


def quantize_rows(x: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Rows as whole numbers from -127 to 127, each row with a scale of its own.

    Args:
        x: ``[rows, in]``, floating.
        dtype: scales are rounded up to numbers of this type, so that it can multiply by them without rounding them.

    Returns:
        Codes, int8 ``[rows, in]``, and scales ``[rows, 1]`` in FP32: ``max|row| / 127``, or a little more.

    >>> codes, scales = quantize_rows(torch.tensor([[127.0, -2.4], [0.0, 0.0]]))
    >>> codes.tolist(), scales[0].tolist()
    ([[127, -2], [0, 0]], [1.0])
    """
    x = x.float()
    scales = row_scales(x, LARGEST)
    if dtype != torch.float32:
        scales = scales.mul_(1 + torch.finfo(dtype).eps).to(dtype).float()
    return (x / scales).round_().to(torch.int8), scales


class Kernel(ABC):
    """Products of whole numbers.

    Attributes:
        key: what the function is called in torch.
        title: in words.
        loads_at_once: whether `load` costs nothing.
    """

    key: str
    title: str
    loads_at_once = False

    def takes(self, inputs: int, outputs: int) -> bool:  # noqa: ARG002
        """Whether it multiplies weights of a shape."""
        return True

    @abstractmethod
    def load(self, weight: Int8Weight) -> tuple[Tensor, Tensor]:
        """The weight as the kernel wants it."""

    @abstractmethod
    def multiply(
        self, codes: Tensor, steps: Tensor, weight: tuple[Tensor, Tensor], bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        """``(codes @ weight.codes.T) * weight.scales * steps + bias`` as ``[rows, out]`` of a dtype.

        Args:
            codes: int8 ``[rows, in]``.
            steps: scales of the rows, FP32 ``[rows, 1]``.
            weight: as `load` gave it.
            bias: ``[out]``.
            dtype: FP32 or bfloat16.
        """


class IntMM(Kernel):
    """torch's own product of int8 matrices; weights need no preparation."""

    key, title = "torch._int_mm", "oneDNN's integer product (torch._int_mm)"
    loads_at_once = True

    def load(self, weight: Int8Weight) -> tuple[Tensor, Tensor]:
        """A view."""
        return weight.codes.t(), weight.scales

    def multiply(
        self, codes: Tensor, steps: Tensor, weight: tuple[Tensor, Tensor], bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        """As `Kernel.multiply`."""
        return _scaled(self.whole(codes, weight[0]), weight[1], steps, bias, dtype)

    def whole(self, codes: Tensor, weight: Tensor) -> Tensor:
        """Sums ``[rows, out]`` of int8 ``[rows, in]`` times ``[in, out]``: whole numbers, in int32 or FP32."""
        sums: Tensor = torch._int_mm(codes, weight)
        return sums


def _scaled(whole: Tensor, scales: Tensor, steps: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Sums times both scales, and the bias; a piece of the rows is scaled and rounded while it is in the cache."""
    y = torch.empty(whole.shape, dtype=dtype)
    bias = None if bias is None else bias.float()
    for start in range(0, len(whole), PIECE_ROWS):
        part = slice(start, start + PIECE_ROWS)
        piece = whole[part].float().mul_(scales).mul_(steps[part])
        y[part] = piece if bias is None else piece.add_(bias)
    return y


class InFP32(IntMM):
    """Whole numbers multiplied in FP32, as many at a time as it adds up exactly; on any processor, as fast as FP32.

    >>> kernel, codes = InFP32(), torch.full((1, 2000), 127, dtype=torch.int8)
    >>> kernel.whole(codes, codes.t()).item() == 2000 * 127**2
    True
    """

    key, title = "torch.mm", "products of whole numbers in FP32 (torch.mm), exact and no faster than FP32"

    def whole(self, codes: Tensor, weight: Tensor) -> Tensor:
        """As `IntMM.whole`; one share of the inputs stays in FP32, the sums of several shares are added in int32."""
        shares = zip(codes.split(EXACT_INPUTS, 1), weight.split(EXACT_INPUTS), strict=True)
        sums: Iterator[Tensor] = (x.float() @ w.float() for x, w in shares)
        return reduce(lambda total, more: total.int().add_(more.int()), sums)


class OneDNN(Kernel):
    """oneDNN's product of unsigned activations and signed weights, which are brought into its own order before."""

    key, title = "onednn.qlinear_pointwise", "oneDNN's u8 x s8 product (onednn.qlinear_pointwise)"
    middle = 128

    def load(self, weight: Int8Weight) -> tuple[Tensor, Tensor]:
        """Reordered: 5 ns a weight, which pays where it is done once."""
        packed: Tensor = torch.ops.onednn.qlinear_prepack(weight.codes, None)
        return packed, weight.scales

    def multiply(
        self, codes: Tensor, steps: Tensor, weight: tuple[Tensor, Tensor], bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        """As `Kernel.multiply`."""
        shifted = codes.view(torch.uint8).bitwise_xor(self.middle)  # as unsigned, x + 128
        packed, scales = weight
        zeros = torch.zeros(len(scales), dtype=torch.int32)
        weights = packed, scales, zeros
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            shifted, 1.0, self.middle, *weights, None, 1.0, 0, dtype, "none", [], ""
        )
        steps = steps.to(dtype)
        return y.mul_(steps) if bias is None else torch.addcmul(bias.to(dtype), y, steps, out=y)


KERNELS: tuple[Kernel, ...] = (IntMM(), OneDNN(), InFP32())


class KernelChoice(NamedTuple):
    """The kernels that a measurement chose.

    Attributes:
        once: for weights that are loaded once.
        each: for weights that are loaded in every call.
        has_bfloat16: whether bfloat16 is multiplied faster than FP32.
        said: what was measured, in words.
    """

    once: Kernel
    each: Kernel
    has_bfloat16: bool
    said: str


WORTH_LOADING = 1.1
"""A kernel that must reorder weights has to gain a tenth: the 1.15 billion of VGGT-1B take it 10 s."""
HOPELESS = 10
"""A kernel that takes so many times as long as another one is not measured again."""
BFLOAT16_GAIN = 1.3
"""Least gain for which it is used."""
_ROWS, _IN, _OUT = 512, 1024, 1024
CPU = torch.device("cpu")


@lru_cache(maxsize=4)
def choose(threads: int, device: torch.device = CPU, kernels: tuple[Kernel, ...] = KERNELS) -> KernelChoice | None:
    """Measure all kernels with so many threads, in half a second, or two where one is hopeless; None if none is exact.

    The size is a layer's of VGGT-1B and as many rows as half a picture has. What is exact is found out with a few rows
    first, and what is slow there is left out, since it could take minutes.
    """
    assert threads == torch.get_num_threads()
    usable = usable_kernels(device, kernels)
    if not usable:
        return None
    x, weight, bias = _example(_ROWS, _IN, _OUT, device)
    codes, steps = quantize_rows(x)
    products = {kernel.key: _multiplying(kernel, codes, steps, weight, bias) for kernel in usable}
    first = fastest(products, repeats=1, device=device)
    usable = [kernel for kernel in usable if first[kernel.key] < HOPELESS * min(first.values())]
    jobs = _float_products(x, weight, bias)
    for kernel in usable:
        jobs |= {kernel.key: products[kernel.key], f"load {kernel.key}": partial(kernel.load, weight)}
    seconds = fastest(jobs, repeats=5, device=device)
    once = min(usable, key=lambda kernel: seconds[kernel.key] * (1 if kernel.loads_at_once else WORTH_LOADING))
    each = min(usable, key=lambda kernel: seconds[kernel.key] + seconds[f"load {kernel.key}"])
    gains = {name: seconds["fp32"] / seconds[name] for name in ("bf16", *products) if name in seconds}
    said = ", ".join(f"{name} {gain:.1f}x" for name, gain in gains.items())
    has_bfloat16 = gains.get("bf16", 0) >= BFLOAT16_GAIN
    return KernelChoice(once, each, has_bfloat16, f"measured against FP32 on {_ROWS} rows: {said}")


@lru_cache(maxsize=4)
def bfloat16_gain(threads: int) -> float:
    """How many times as fast as in FP32 the processor multiplies in bfloat16, measured with so many threads.

    0 where torch knows of no instruction for it.
    """
    assert threads == torch.get_num_threads()
    jobs = _float_products(*_example(_ROWS, _IN, _OUT, CPU))
    if "bf16" not in jobs:
        return 0.0
    seconds = fastest(jobs, repeats=5)
    return seconds["fp32"] / seconds["bf16"]


def _float_products(x: Tensor, weight: Int8Weight, bias: Tensor) -> dict[str, Callable[[], object]]:
    """In FP32, and in bfloat16 where there are instructions for it: what torch falls back to may take seconds."""
    plain = [x, weight.codes * weight.scales[:, None], bias]
    jobs: dict[str, Callable[[], object]] = {"fp32": partial(F.linear, *plain)}
    if x.device.type != CPU.type or processor.multiplies_bfloat16():
        jobs["bf16"] = partial(F.linear, *(value.bfloat16() for value in plain))
    return jobs


def usable_kernels(device: torch.device = CPU, kernels: tuple[Kernel, ...] = KERNELS) -> list[Kernel]:
    """Those that are exact here, and no slower than a kernel of this purpose may be."""
    return [kernel for kernel in kernels if _is_exact(kernel, device)]


def fastest(jobs: Mapping[str, Callable[[], object]], repeats: int = 3, device: torch.device = CPU) -> dict[str, float]:
    """Least seconds of each job, taken in turn after a first run of all."""
    for job in jobs.values():
        job()
    seconds = dict.fromkeys(jobs, float("inf"))
    for _ in range(repeats):
        for name, job in jobs.items():
            seconds[name] = min(seconds[name], _seconds(job, device))
    return seconds


def _seconds(job: Callable[[], object], device: torch.device) -> float:
    wait_for(device)
    start = time.perf_counter()
    job()
    wait_for(device)
    return time.perf_counter() - start


def _example(rows: int, inputs: int, outputs: int, device: torch.device) -> tuple[Tensor, Int8Weight, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, inputs, generator=generator).to(device)
    codes = torch.randint(-LARGEST, LARGEST + 1, (outputs, inputs), dtype=torch.int8, generator=generator).to(device)
    scales = torch.full((outputs,), 2.0**-10, device=device)
    return x, Int8Weight(codes, scales), torch.zeros(outputs, device=device)


SLOWEST = 0.05
"""Seconds for 2**18 products, for which a kernel of this purpose takes microseconds: the best of a few tries."""
_TRIES = 3


def _is_exact(kernel: Kernel, device: torch.device) -> bool:
    """Whether sums of the largest products come out, which on processors without VNNI stop at 16 bits; and in time."""
    codes = torch.full((16, 128), LARGEST, dtype=torch.int8, device=device)
    codes[1::2] *= -1
    ones, zeros = torch.ones(128, device=device), torch.zeros(128, device=device)
    weight = Int8Weight(torch.full((128, 128), LARGEST, dtype=torch.int8, device=device), ones)
    try:
        multiply = _multiplying(kernel, codes, ones[:16, None], weight, zeros)
        y = multiply()
        seconds = min(_seconds(multiply, device) for _ in range(_TRIES))
    except (RuntimeError, AttributeError):
        return False
    return seconds < SLOWEST and y.double().equal(codes.double() @ weight.codes.double().t())


def _multiplying(
    kernel: Kernel, codes: Tensor, steps: Tensor, weight: Int8Weight, bias: Tensor
) -> Callable[[], Tensor]:
    """A call that multiplies by a weight that is loaded."""
    return partial(kernel.multiply, codes, steps, kernel.load(weight), bias, torch.float32)
