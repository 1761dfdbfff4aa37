"""Deviations and floors on numbers whose answer is known."""

import numpy as np
import pytest

from analysis.audit.stability import _by_count, _deviations


def test_deviations_of_probes_and_scenes_are_told_apart() -> None:
    """Estimates with known relative spread: 0.8 of a probe, 0.5 of scenes, 4 probes a scene."""
    generator = np.random.default_rng(0)
    truth = 10 ** generator.uniform(-6, -3, (400, 2))
    singles = [truth * (1 + 0.8 * generator.standard_normal(truth.shape)) for _ in range(30)]
    whole = [
        truth * (1 + 0.5 * generator.standard_normal(truth.shape) + 0.4 * generator.standard_normal(truth.shape))
        for _ in range(30)
    ]
    probe, scene = _deviations(singles, whole, probes=4)
    assert probe == pytest.approx(0.8, rel=0.1)
    assert scene == pytest.approx(0.5, rel=0.15)


def test_more_scenes_agree_better_with_the_others() -> None:
    generator = np.random.default_rng(1)
    truth = 10 ** generator.uniform(-6, -3, (200, 2))
    whole = [truth * np.exp(generator.standard_normal(truth.shape)) for _ in range(8)]
    found = _by_count(whole)
    assert list(found) == [1, 2, 3, 4]
    assert found[1] < found[2] < found[4]
