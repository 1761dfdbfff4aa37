"""Rounded weights of a whole model."""

import torch
from torch import nn

from mixedprec import quantized_weights
from mixedprec.rounding import rounded_weights
from sensitivity.moments import UNREACHED, UNSEEN, Moments
from vggtkit.quant import dequantize, find_layers
from vggtkit.quant.rounding import ROUNDINGS
from vggtkit.subject import subject_of


def test_without_what_it_needs_a_layer_is_said_to_be_rounded_without() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.MultiheadAttention(8, 2), nn.Linear(8, 8), nn.Linear(8, 8))
    layers = find_layers(model)
    formats = {layer.name: "int4_group_32" for layer in layers} | {"3": "fp16"}
    moments = Moments(subject_of(model), layers)
    moments.add("0", [torch.randn(30, 8)])
    done: list[str] = []
    rounded = rounded_weights(model, formats, ROUNDINGS["gptq"], moments, on_layer=done.append)
    assert done == [layer.name for layer in layers]
    assert rounded.fell_back == {"1": UNSEEN, "1.out_proj": UNSEEN, "2": UNREACHED}
    nearest = rounded_weights(model, formats, ROUNDINGS["nearest"])
    assert nearest.fell_back == {}
    assert dequantize(rounded.weights["2"]).equal(dequantize(nearest.weights["2"]))
    assert not dequantize(rounded.weights["0"]).equal(dequantize(nearest.weights["0"]))


def test_to_the_nearest_is_what_formats_are() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Conv2d(2, 3, 3))
    formats = {"0": "int4_two_level_64", "1": "int8_per_channel_asym"}
    nearest, plain = rounded_weights(model, formats, ROUNDINGS["nearest"]).weights, quantized_weights(model, formats)
    assert all(dequantize(nearest[name]).equal(dequantize(q)) for name, q in plain.items())
