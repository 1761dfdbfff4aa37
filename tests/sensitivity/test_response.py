"""Response curves: what is fitted, and from which pairs."""

import numpy as np
import pytest

from sensitivity.response import Response, fit_response, spread_pairs
from vggtkit.core.errors import InputError


@pytest.mark.parametrize(
    "true",
    [Response(0.5, 0.0, 0.5), Response(2.0, 3e-5, 0.08), Response(1e-2, 4e-3, 0.4)],
    ids=["linear", "chaos", "both"],
)
def test_a_known_curve_is_found_again_through_noise(true: Response) -> None:
    generator = np.random.default_rng(0)
    cause = 10 ** generator.uniform(-11, -2, 60)
    found = fit_response(cause, true(cause) * np.exp(0.1 * generator.standard_normal(60)))
    at = 10 ** np.linspace(-10, -2.5, 20)
    np.testing.assert_allclose(found(at), true(at), rtol=0.15)


def test_an_outlier_does_not_bend_the_curve() -> None:
    cause = 10 ** np.linspace(-9, -3, 30)
    effect = 0.7 * cause
    effect[15] *= 1e4
    np.testing.assert_allclose(fit_response(cause, effect)(cause), 0.7 * cause, rtol=0.1)


def test_a_curve_never_falls_and_keeps_zero() -> None:
    curve = Response(0.3, 1e-5, 0.05)
    values = curve(np.concatenate([[0.0], 10.0 ** np.arange(-15, 2)]))
    assert values[0] == 0
    assert (np.diff(values) > 0).all()


def test_too_few_pairs_are_refused() -> None:
    cause = np.array([0.0, 1.0, 2.0])
    with pytest.raises(InputError, match="8 measured pairs"):
        fit_response(cause, cause)


def test_pairs_cover_the_range_of_every_output() -> None:
    generator = np.random.default_rng(1)
    sketched = {"depth": 10 ** generator.uniform(-9, -3, (20, 7)), "vis": 10 ** generator.uniform(-9, -3, (20, 7))}
    sketched["vis"][:10] = 0  # layers that the output does not see
    pairs = spread_pairs(sketched, 24)
    assert len(pairs) == len(set(pairs)) <= 24
    for values in sketched.values():
        chosen = sorted(values[pair] for pair in pairs if values[pair] > 0)
        assert chosen[0] == values[values > 0].min()
        assert chosen[-1] == values.max()
    assert sum(sketched["vis"][pair] > 0 for pair in pairs) >= 12
