"""Weight formats: quantise, dequantise, pack, count bytes, and run quantised layers.

| module | holds |
|---|---|
| `formats` | the table of formats |
| `quantizer` | weight -> codes, scales, zero points -> weight; exact bytes |
| `simulate` | the weight that a format stands for, without packing |
| `packing` | integer codes <-> bytes |
| `roles` | roles and blocks of layers, told from their names |
| `layers` | the quantisable layers of a model; simulated and packed execution |
"""

from quant.formats import CANDIDATES, FORMATS, INT3_GROUPS, UNIFORM_SCHEMES, Format, get_format, register
from quant.layers import (
    Layer,
    PackedWeight,
    dequantize_layer,
    find_layers,
    from_out_first,
    layer_kind,
    out_first,
    pack_layer,
    quantize_layer,
    replaced_weights,
    simulate_layer,
    unpack_layer,
)
from quant.packing import pack, packed_nbytes, unpack
from quant.quantizer import QuantizedTensor, dequantize, quantize, quantized_nbytes
from quant.roles import NameTable, read_roles
from quant.simulate import simulate, stored_nbytes

__all__ = [
    "CANDIDATES",
    "FORMATS",
    "INT3_GROUPS",
    "UNIFORM_SCHEMES",
    "Format",
    "Layer",
    "NameTable",
    "PackedWeight",
    "QuantizedTensor",
    "dequantize",
    "dequantize_layer",
    "find_layers",
    "from_out_first",
    "get_format",
    "layer_kind",
    "out_first",
    "pack",
    "pack_layer",
    "packed_nbytes",
    "quantize",
    "quantize_layer",
    "quantized_nbytes",
    "read_roles",
    "register",
    "replaced_weights",
    "simulate",
    "simulate_layer",
    "stored_nbytes",
    "unpack",
    "unpack_layer",
]
