"""How scales are stored: FP16 where that holds them, else FP32 for the whole tensor."""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST, _LARGEST = torch.finfo(torch.float16).smallest_normal, torch.finfo(torch.float16).max
_EXACT = 1023
"""Between these scales FP16 is within a part of 2^11, which moves a code up to here by less than half a step."""


def stored_scales(scales: Tensor, largest_code: int) -> Tensor:
    """The scales as stored: FP16, or FP32 for all where one overflows, vanishes or moves a code.

    Args:
        scales: FP32, positive, of any shape.
        largest_code: a rounding of the scale that moves this code by more than half a step is too coarse.

    >>> import torch
    >>> stored_scales(torch.tensor([0.5]), 127).dtype, stored_scales(torch.tensor([1e-9]), 127).dtype
    (torch.float16, torch.float32)
    """
    low, high = scales.aminmax()
    if low >= _SMALLEST and high <= _LARGEST and largest_code <= _EXACT:
        return scales.half()
    half = scales.half()
    shift_of_largest_code = (scales / half.float() - 1).abs_() * largest_code
    return scales if bool((shift_of_largest_code > 0.5).any()) else half
