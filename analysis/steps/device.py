"""Where to compute."""

from __future__ import annotations

import torch

from vggtkit.core.errors import InputError
from vggtkit.core.program import setting


def pick_device(name: str) -> torch.device:
    """A device by name; ``"auto"`` takes CUDA, then Metal, then the CPU.

    Raises:
        InputError: unknown, or not on this machine.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if name not in available:
        raise InputError(f"{setting('device', name)}: not known; use auto, {', '.join(available)}")
    if not available[name]:
        raise InputError(f"{setting('device', name)}: this machine has none; use {setting('device', 'auto')}")
    return torch.device(name)
