"""Which precision a model computes in: FP32, or mixed as VGGT is published (trunk in 16 bits, heads in FP32)."""

from __future__ import annotations

import torch

from vggtkit.core.errors import InputError
from vggtkit.core.program import setting

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FIRST_WITH_BF16 = 8  # CUDA compute capability, major


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """A precision by name; ``"auto"`` is the published mixed one on CUDA and FP32 elsewhere.

    Published: bfloat16 from compute capability 8 on, float16 before.

    Raises:
        InputError: unknown, or float16 on a processor that does not compute in it.

    >>> pick_dtype("auto", torch.device("cpu")), pick_dtype("bf16", torch.device("cpu"))
    (torch.float32, torch.bfloat16)
    """
    if name == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= FIRST_WITH_BF16 else torch.float16
    if name not in DTYPES:
        raise InputError(f"{setting('dtype', name)}: not known; use auto, {', '.join(DTYPES)}")
    if name == "fp16" and device.type == "cpu":
        raise InputError(
            f"{setting('dtype', 'fp16')}: processors do not compute in it; use bf16 or fp32, or "
            f"{setting('device', 'cuda')}"
        )
    return DTYPES[name]
