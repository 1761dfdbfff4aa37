"""A minute's worth of every script about trust: as many cases as each did in one minute of a core before it was made
faster. Commands that draw or compute take longest and are tried in the slow tests; the committed results have more.
"""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.trust import faults, fuzz, kill
from vggtkit.quant import UNIFORM_SCHEMES

FILES = ("profile", "plan", "packed", "results", "depth_maps", "audit", "roles", "config_of_run", "weights_of_run")
"""That need no more than a run which is finished, and are read in moments."""
ENDED = ("profile", "plan", "export", "formats", "pareto", "tune")
FAULTY = ("profile", "plan", "export", "formats", "forecast", "view")
LONG = ("evaluate", "report", "inspect", "reconstruct", "audit", "plan-draw", "pareto", "tune", "kernels", "reproduce")
LONGER = 12
"""Seconds of all kinds, in the tests that take longest."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first script makes a finished run, which the second finds."""
    return tmp_path_factory.mktemp("trust")


@pytest.fixture
def few_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Profiles score the uniform schemes alone."""
    monkeypatch.setattr("sensitivity.profiler.scored_formats", lambda: UNIFORM_SCHEMES)


@pytest.mark.usefixtures("few_formats")
def test_mutated_files_are_refused_or_read_as_they_were(folder: Path) -> None:
    counts = fuzz.fuzz(220, seed=1, folder=folder, kinds=FILES)
    assert counts["cases"] == 220
    assert counts["wrong"] == 0, counts["first_wrong"]


@pytest.mark.usefixtures("few_formats")
def test_kills_and_signals_lose_nothing(tmp_path: Path) -> None:
    counts = kill.kill(9, 6, seed=1, folder=tmp_path, commands=ENDED)
    assert (counts["kills"], counts["signals"], counts["fresh_interpreters"]) == (9, 6, 2)
    assert (counts["lost"], counts["different"], counts["other_exit_code"]) == (0, 0, 0), counts["first_faults"]


@pytest.mark.usefixtures("few_formats")
def test_faults_are_one_line_and_leave_everything(folder: Path) -> None:
    counts = faults.faults(folder, commands=FAULTY)
    assert counts["cases"] >= 140
    assert counts["wrong"] == 0, counts["first_wrong"]


@pytest.mark.slow
@pytest.mark.usefixtures("few_formats")
def test_all_kinds_of_files_and_commands_hold(tmp_path: Path) -> None:
    files = fuzz.fuzz(200, seed=2, folder=tmp_path / "files", seconds=LONGER)
    commands = [
        command for command in kill.COMMANDS if command in ("profile", "evaluate") or command not in kill.SELDOM
    ]
    ends = kill.kill(8, 8, seed=2, folder=tmp_path / "ends", seconds=LONGER, commands=commands)
    assert (files["wrong"], files["first_wrong"], ends["first_faults"]) == (0, [], [])
    assert files["cases"]
    assert ends["kills"] + ends["signals"]


@pytest.mark.slow
@pytest.mark.usefixtures("few_formats")
def test_faults_of_commands_that_take_long_are_one_line_and_leave_everything(tmp_path: Path) -> None:
    counts = faults.faults(tmp_path, every=6, commands=LONG)
    assert counts["cases"] >= 30
    assert counts["wrong"] == 0, counts["first_wrong"]


@pytest.mark.parametrize("seed", range(50))
def test_a_mutation_is_one(seed: int) -> None:
    original = bytes(range(256)) * 4
    assert fuzz.mutated(original, np.random.default_rng(seed)) != original
