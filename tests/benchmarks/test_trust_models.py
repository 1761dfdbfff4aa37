"""The counts of the trust benchmark, on a few of its networks."""

import pytest

from benchmarks.trust import foreign
from benchmarks.trust.models import Row, report


def test_at_least_forty_networks_and_every_count_adds_up() -> None:
    assert len(foreign.MODELS) >= 40
    found = report(["plain", "noisy", "zero_weight"])
    assert (found["modules"], found["profiled"], found["wrong"]) == (3, 2, 0)
    assert found["layers"] == 16
    assert found["within_factor_2"] == found["above_floor"] == 14  # of zero weights nothing is seen
    assert list(found["refused"]) == ["noisy"]


def test_what_is_wrong_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [Row("fc", "output", 1e-3, 2.5e-3, 1e-9), Row("fc", "output", 1e-12, 1e-10, 1e-9)]
    monkeypatch.setattr("benchmarks.trust.models.rows_of", lambda _name: wrong)
    found = report(["plain", "noisy"])
    assert found["wrong"] == 3  # a layer of each, and that the second was not refused
    assert found["above_floor"] == 2
