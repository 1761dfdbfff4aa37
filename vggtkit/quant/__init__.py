"""Weight formats: quantise, dequantise, pack, count bytes, and run quantised layers.

| module | holds |
|---|---|
| `formats` | the table of formats |
| `quantizer` | weight -> codes, scales, zero points -> weight; exact bytes |
| `activations` | how inputs of layers are rounded |
| `blocks` | a weight cut into blocks that share a scale, once for all formats that cut it alike |
| `scales`, `two_level` | how scales are stored; whole numbers per group under a scale per channel |
| `grid`, `rounding` | the values that given scales allow, and how codes are chosen among them |
| `simulate` | the weight that a format stands for, without packing |
| `packing` | integer codes <-> bytes |
| `roles` | roles and blocks of layers, told from their names |
| `learned` | a weight whose codes and scales are learned |
| `layers` | the quantisable layers of a model |
| `layer_names` | their names in tables, and the layers that a name or pattern means |
| `packed` | a weight that is kept packed and put back while it is used |
| `layer_weights` | other weights in layers: quantised, simulated, packed, replaced for a while |
"""

from vggtkit.quant.formats import (
    FORMATS,
    INT3_GROUPS,
    TWO_LEVEL,
    UNIFORM_SCHEMES,
    Format,
    candidates,
    get_format,
    register,
)
from vggtkit.quant.layer_names import named_layers, one_layer, short_name
from vggtkit.quant.layer_weights import (
    dequantize_layer,
    pack_layer,
    quantize_layer,
    replaced_weights,
    simulate_formats,
    simulate_layer,
    unpack_layer,
)
from vggtkit.quant.layers import Layer, find_layers, layer_kind, own_weight, readers_of, twins_of, weight_of
from vggtkit.quant.packed import PackedWeight, from_out_first, out_first
from vggtkit.quant.packing import pack_codes, packed_nbytes, unpack_codes
from vggtkit.quant.quantizer import (
    QuantizedTensor,
    as_int8_per_channel,
    dequantize,
    part_names,
    quantize,
    quantized_nbytes,
    scale_count,
)
from vggtkit.quant.roles import NameTable, read_roles
from vggtkit.quant.simulate import simulate, stored_nbytes

__all__ = [
    "FORMATS",
    "INT3_GROUPS",
    "TWO_LEVEL",
    "UNIFORM_SCHEMES",
    "Format",
    "Layer",
    "NameTable",
    "PackedWeight",
    "QuantizedTensor",
    "as_int8_per_channel",
    "candidates",
    "dequantize",
    "dequantize_layer",
    "find_layers",
    "from_out_first",
    "get_format",
    "layer_kind",
    "named_layers",
    "one_layer",
    "out_first",
    "own_weight",
    "pack_codes",
    "pack_layer",
    "packed_nbytes",
    "part_names",
    "quantize",
    "quantize_layer",
    "quantized_nbytes",
    "read_roles",
    "readers_of",
    "register",
    "replaced_weights",
    "scale_count",
    "short_name",
    "simulate",
    "simulate_formats",
    "simulate_layer",
    "stored_nbytes",
    "twins_of",
    "unpack_codes",
    "unpack_layer",
    "weight_of",
]
