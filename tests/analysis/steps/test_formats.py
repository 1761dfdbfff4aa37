"""The list of formats."""

from analysis.steps import formats_view
from quant import CANDIDATES, FORMATS, UNIFORM_SCHEMES


def test_formats_view_lists_every_format() -> None:
    view = formats_view(FORMATS, UNIFORM_SCHEMES, CANDIDATES)
    assert list(view.values) == list(FORMATS)
    assert view.values["int4_group_128"]["bits_per_weight"] == 4.125
    assert view.tables[0].row_count == len(FORMATS)
