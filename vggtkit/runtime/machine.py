"""The machine that a command runs on, for whoever reads a report later."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from vggtkit.core.provenance import tool_version
from vggtkit.runtime import processor

_NVIDIA = Path("/proc/driver/nvidia/version")


def machine_facts() -> dict[str, str]:
    """Processor, accelerator with its driver, and versions, in words.

    >>> facts = machine_facts()
    >>> list(facts)
    ['processor', 'cores', 'accelerator', 'system', 'python', 'torch', 'numpy', 'tool']
    """
    return {
        "processor": f"{processor.name()} ({processor.instructions()})",
        "cores": str(os.cpu_count() or "unknown"),
        "accelerator": _accelerator(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "tool": tool_version(),
    }


def _accelerator() -> str:
    if torch.cuda.is_available():
        parts = [torch.cuda.get_device_name(), f"CUDA {torch.version.cuda}"]
        with suppress(OSError, IndexError):
            parts.append(f"driver {_NVIDIA.read_text(encoding='utf-8').partition('Module')[2].split()[0]}")
        return ", ".join(parts)
    return "Apple GPU (Metal)" if torch.backends.mps.is_available() else "none"
