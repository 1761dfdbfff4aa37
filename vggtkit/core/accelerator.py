"""What a device that computes beside the processor still has to do."""

from __future__ import annotations

import torch


def wait_for(device: torch.device) -> None:
    """Return when a device has done all that it was given; the processor has at once.

    >>> wait_for(torch.device("cpu"))
    """
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
