"""The list of formats."""

from pathlib import Path

import pytest

from analysis.steps import formats_view
from mixedprec import overhead_bytes
from vggtkit.model import architecture
from vggtkit.quant import FORMATS, candidates, find_layers, quantized_nbytes

CANDIDATES = candidates()


@pytest.mark.parametrize("model", [None, "vggt-1b"])
def test_formats_view_lists_every_format_with_the_bytes_of_the_model(tmp_path: Path, model: str | None) -> None:
    view = formats_view(tmp_path, model)
    assert list(view.values) == list(FORMATS)
    assert len(view.tables[0].rows) == len(FORMATS)
    network = architecture(model or "tiny")
    layers = find_layers(network)
    for key, values in view.values.items():
        size = sum(quantized_nbytes(layer.shape, key) for layer in layers)
        assert values["size_bytes"] == overhead_bytes(network) + size
        assert values["bits_per_weight"] == pytest.approx(8 * size / sum(layer.weights for layer in layers))
        assert values["in_plans"] == (key in CANDIDATES)
    if model:
        assert 4.12 < view.values["int4_group_128"]["bits_per_weight"] < 4.14
        assert view.values["int4_group_128"]["size_bytes"] == 652_584_412
