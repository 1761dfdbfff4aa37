"""One layer from close by, against numpy and scipy."""

import numpy as np
import pytest
from scipy.stats import kurtosis

from analysis.inspection.layer import distribution
from vggtkit.core.errors import InputError
from vggtkit.quant import Layer, one_layer

LAYERS = [Layer(f"a.{n}.fc1", "linear", "mlp", "frame.0", (1, 1), 1) for n in range(3)]


def test_moments_and_histogram() -> None:
    values = np.random.default_rng(0).standard_t(4, (50, 40))
    found = distribution(values)
    away = np.abs(values - values.mean()) / values.std()
    assert (found.count, found.outliers) == (2000, int((away > 6).sum()))
    assert found.kurtosis == pytest.approx(kurtosis(values.ravel()))
    assert found.histogram.sum() == 2000
    assert (found.edges[0], found.edges[-1]) == (values.min(), values.max())


@pytest.mark.parametrize("values", [np.zeros(5), np.zeros(0), np.array([np.nan, 1.0])], ids=["flat", "none", "nan"])
def test_degenerate_values(values: np.ndarray) -> None:
    found = distribution(values)
    assert (found.deviation, found.outliers, found.kurtosis) == (0.0, 0, 0.0)


@pytest.mark.parametrize(
    ("name", "message"), [("fc1", "3 layers end so"), ("fc9", "no such layer"), ("", "no such layer")]
)
def test_a_name_that_is_not_one_layer_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        one_layer(LAYERS, name)
