"""The narrow network whose page is measured has the layers of VGGT-1B."""

from benchmarks.page import NARROW
from vggtkit.model import VGGTConfig
from vggtkit.model.loading import skeleton
from vggtkit.quant import find_layers

ALL = 506


def test_it_has_the_layers_of_the_published_network() -> None:
    narrow, published = (
        [(layer.name, layer.kind, layer.role, layer.block) for layer in find_layers(skeleton(config))]
        for config in (NARROW, VGGTConfig())
    )
    assert narrow == published
    assert len(narrow) == ALL
    assert NARROW.img_size == VGGTConfig().img_size
