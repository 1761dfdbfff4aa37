"""Which precision the backward passes of a sketch compute in: that of the model, or bfloat16 where it is faster."""

from __future__ import annotations

import torch

from vggtkit.core.memory import LARGE
from vggtkit.runtime.kernels import bfloat16_gain

LEAST_GAIN = 1.5
"""Of products in bfloat16 over those in FP32, from which on the casts around them are paid for."""


def gradient_dtype(dtype: torch.dtype, device: torch.device, parameters: int) -> torch.dtype:
    """What backward passes compute in when a model runs in ``dtype``.

    bfloat16 where the processor was measured to multiply it faster than FP32 and the network is so large that it
    matters: the estimate's own spread is far beyond what the rounding adds. Never float16, in which small gradients
    vanish.

    >>> gradient_dtype(torch.float16, torch.device("cpu"), 10**9), gradient_dtype(torch.float32, torch.device("cpu"), 5)
    (torch.float32, torch.float32)
    """
    if dtype == torch.float16:
        return torch.float32
    if dtype != torch.float32 or device.type != "cpu" or parameters <= LARGE:
        return dtype
    return torch.bfloat16 if bfloat16_gain(torch.get_num_threads()) >= LEAST_GAIN else dtype
