"""Which operator a linear layer gets, by its format."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vggtkit.core.registry import Registry
from vggtkit.model import VGGT
from vggtkit.quant import Format, PackedWeight, find_layers
from vggtkit.runtime.backend import is_whole
from vggtkit.runtime.int8 import is_small, stays_plain
from vggtkit.runtime.onnx.weights import (
    LARGEST_BLOCK,
    SMALLEST_BLOCK,
    Codes,
    Dynamic,
    NBits,
    OnnxWeight,
    UnsignedDynamic,
)
from vggtkit.runtime.processor import may_overflow

Chooser = Callable[[Format], "type[OnnxWeight] | None"]
"""None for a layer that is computed in FP32."""


def _has_channels(fmt: Format) -> bool:
    """Whether weights are 8 bits per channel or tensor, whatever they are packed in."""
    return fmt.two_level or fmt.granularity in ("channel", "tensor")


def _auto(fmt: Format) -> type[OnnxWeight] | None:
    return _eight_bits(fmt) if _has_channels(fmt) and fmt.bits > 4 else _nbits(fmt)


def _dynamic(fmt: Format) -> type[OnnxWeight] | None:
    return _eight_bits(fmt) if _has_channels(fmt) else _nbits(fmt)


def _eight_bits(fmt: Format) -> type[OnnxWeight]:
    """The operator of which this processor loses no sums."""
    return UnsignedDynamic if fmt.symmetric and may_overflow() else Dynamic


def _nbits(fmt: Format) -> type[OnnxWeight] | None:
    size = fmt.group_size or SMALLEST_BLOCK
    has_blocks = SMALLEST_BLOCK <= size <= LARGEST_BLOCK and size & (size - 1) == 0
    return NBits if has_blocks else None


def _exact(_fmt: Format) -> type[OnnxWeight] | None:
    return None


AUTO_STYLE = "auto"
STYLES: Registry[Chooser] = Registry("ONNX style")
"""By name.

- ``auto``: as small as the plan; 5 to 8 bits by the faster operator. Layers that are too small to gain by
  ``MatMulNBits`` (`vggtkit.runtime.int8.stays_plain`; all of a small model) are in FP32, as in ``exact``.
- ``dynamic``: the faster operator for all that is INT8 per channel, two-level formats too, which then take 8 bits.
- ``nbits``: activations rounded in blocks everywhere, for networks with outliers.
- ``exact``: only weights are quantised, all products are in FP32: the numbers of the simulated model.
"""
for key, chooser in {AUTO_STYLE: _auto, "dynamic": _dynamic, "nbits": _nbits, "exact": _exact}.items():
    STYLES.register(key, chooser)


def operators(model: VGGT, style: str, executions: Mapping[str, str] | None = None) -> dict[str, OnnxWeight | None]:
    """What every layer of a packed model multiplies with, by name; None for layers that are computed in FP32.

    Args:
        model: packed.
        style: of `STYLES`.
        executions: of `vggtkit.runtime.backend.EXECUTIONS`, by the layers whose plan decides them: none but whole
            numbers rounds a layer's input.

    Raises:
        InputError: an unknown style.
    """
    choose = STYLES.pick(style)
    chosen: dict[str, OnnxWeight | None] = {}
    layers = find_layers(model)
    small = style == AUTO_STYLE and is_small(layers)
    for layer in layers:
        packed = getattr(model.get_submodule(layer.name), "packed", None)
        chosen[layer.name] = None
        if not isinstance(packed, PackedWeight) or packed.format.is_float or layer.kind.startswith("conv"):
            continue
        kind = choose(packed.format)
        if kind is NBits and (small or (style == AUTO_STYLE and stays_plain(layer))):
            continue
        if kind is not None and is_whole((executions or {}).get(layer.name)):
            chosen[layer.name] = kind(Codes(packed.quantized))
    return chosen
