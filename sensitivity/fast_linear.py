"""Matrix products of linear layers by oneDNN, for measurements that run a model thousands of times.

torch multiplies float32 matrices with MKL, which on some processors (AMD with AVX512: 110 against 230 GFLOP/s of one
core) reaches half of what oneDNN, inside the same torch, does. Results differ in the last bits of float32, so what is
compared must be computed alike: reference and candidate both inside the context, or both outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor


@contextmanager
def fast_linear() -> Iterator[bool]:
    """``torch.nn.functional.linear`` by oneDNN within the block, where torch has it, for inference on the CPU.

    Yields:
        Whether anything is different inside the block.

    >>> x, weight = torch.rand(3, 5), torch.rand(2, 5)
    >>> expected = F.linear(x, weight)
    >>> with fast_linear(), torch.no_grad():
    ...     F.linear(x, weight).allclose(expected)
    True
    """
    usual = F.linear
    product = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None

    def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        plain = input.dtype == weight.dtype == torch.float32 and input.device.type == "cpu"
        if product is None or not plain or torch.is_grad_enabled():
            return usual(input, weight, bias)
        result: Tensor = product(input, weight, bias, "none", [], "")
        return result

    F.linear = linear
    try:
        yield product is not None
    finally:
        F.linear = usual
