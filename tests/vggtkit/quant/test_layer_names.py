"""Names that tables print are names that a user may type, for every layer of a VGGT."""

import pytest

from vggtkit.core.errors import InputError
from vggtkit.model import VGGT
from vggtkit.model.config import VGGTConfig
from vggtkit.quant import find_layers, named_layers, one_layer, short_name


@pytest.fixture(scope="module")
def layers(small_config: VGGTConfig) -> list:
    return find_layers(VGGT(small_config))


def test_every_printed_name_means_its_layer(layers: list) -> None:
    for row, layer in enumerate(layers):
        assert one_layer(layers, short_name(layer)) == row
        assert one_layer(layers, layer.name) == row


def test_patterns_are_over_full_names_and_else_over_printed_ones(layers: list) -> None:
    tracker = [layer for layer in layers if layer.name.startswith("track_head.tracker.")]
    assert named_layers(layers, "track_head.tracker.*") == tracker
    assert named_layers(layers, "track_head.input_*")[0].name == "track_head.tracker.updateformer.input_transform"
    frames = [layer for layer in layers if layer.block.startswith("frame.")]
    assert named_layers(layers, "frame.*") == frames
    assert named_layers(layers, "frame.[0-9] attn.*") == [layer for layer in frames if ".attn." in layer.name]


def test_the_end_of_a_name_means_all_that_end_so(layers: list) -> None:
    ends = [layer for layer in layers if layer.name.endswith(".attn.qkv")]
    assert len(ends) > 1
    assert named_layers(layers, "attn.qkv") == ends
    assert named_layers(layers, "qk") == []
    with pytest.raises(InputError, match=f"{len(ends)} layers end so"):
        one_layer(layers, "attn.qkv")
