"""What the processor is called and can multiply."""

from __future__ import annotations

from pathlib import Path
from platform import machine, processor

import torch

_CPUINFO = Path("/proc/cpuinfo")


def name() -> str:
    """As the system calls it.

    >>> len(name()) > 0
    True
    """
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return model or processor() or machine() or "unknown"


def missing_for_int8() -> str:
    """What it lacks to sum products of 8-bit numbers exactly and fast; "" where nothing."""
    if not _is_x86():
        return f"an x86 processor (this is {machine()})"
    capable = torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported()
    return "" if capable else "AVX512-VNNI or AMX"


def multiplies_bfloat16() -> bool:
    """Whether it has instructions for products in bfloat16; what torch falls back to may take a hundred times as long.

    >>> isinstance(multiplies_bfloat16(), bool)
    True
    """
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def may_overflow() -> bool:
    """Whether kernels of others may lose sums of two products of bytes, which stop at 16 bits: x86 without VNNI."""
    return _is_x86() and bool(missing_for_int8())


def _is_x86() -> bool:
    return machine().lower() in ("x86_64", "amd64")


def instructions() -> str:
    """Those that matter here, in words.

    >>> isinstance(instructions(), str)
    True
    """
    known = {
        "AMX": torch.cpu._is_amx_tile_supported(),
        "AVX512-VNNI": torch.cpu._is_vnni_supported(),
        "AVX512-BF16": torch.cpu._is_avx512_bf16_supported(),
    }
    return ", ".join(title for title, is_there in known.items() if is_there) or "neither VNNI nor bfloat16"
