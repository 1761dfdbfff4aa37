"""A few cases of every script about trust; the committed results have thousands."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.trust import faults, fuzz, kill

SECONDS = 3
"""Of cases, once the run that they are tried on is there."""
QUICK = ("profile", "plan", "evaluate", "export")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first script makes a finished run, which the second finds."""
    return tmp_path_factory.mktemp("trust")


def test_mutated_files_are_refused_or_read_as_they_were(folder: Path) -> None:
    counts = fuzz.fuzz(40, seed=1, folder=folder, seconds=SECONDS)
    assert counts["cases"]
    assert counts["wrong"] == 0, counts["first_wrong"]


def test_kills_and_signals_lose_nothing(tmp_path: Path) -> None:
    counts = kill.kill(4, 4, seed=1, folder=tmp_path, seconds=SECONDS, commands=QUICK)
    assert counts["kills"] + counts["signals"]
    assert (counts["lost"], counts["different"], counts["other_exit_code"]) == (0, 0, 0), counts["first_faults"]


def test_faults_are_one_line_and_leave_everything(folder: Path) -> None:
    counts = faults.faults(folder, every=41, seconds=SECONDS)
    assert counts["cases"]
    assert counts["wrong"] == 0, counts["first_wrong"]


@pytest.mark.parametrize("seed", range(50))
def test_a_mutation_is_one(seed: int) -> None:
    original = bytes(range(256)) * 4
    assert fuzz.mutated(original, np.random.default_rng(seed)) != original
