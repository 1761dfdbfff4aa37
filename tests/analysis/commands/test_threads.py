"""The number of threads changes the order of sums, and with it last digits, but no plan."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mixedprec import load_plan
from sensitivity import Profile, open_profile
from tests.analysis.commands.running import cli

ROOT = Path(__file__).resolve().parents[3]
PASSIVE = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
"""Two threads that do not keep a core busy while they wait for each other."""


def scores(profile: Profile) -> Iterator[tuple[str, np.ndarray]]:
    yield from profile.damage.items()
    yield from profile.uniform.items()
    for kind, metrics in profile.scores.items():
        for metric, values in metrics.items():
            yield f"{kind} {metric}", values


@pytest.mark.slow
def test_two_threads_give_the_scores_and_the_plan_of_one(run: Path, model_folder: Path) -> None:
    """Scores agree to 1e-5 of the largest; a rectifier at its kink may move a few of them by more."""
    other = run.with_name("two-threads")
    command = [sys.executable, "cli.py", "profile", "--run", str(other), "--model", str(model_folder), "--views", "2"]
    command += ["--num-scenes", "1", "--probes", "1", "--seed", "3", "--rounding", "nearest", "--json"]
    subprocess.run(command, cwd=ROOT, env=os.environ | PASSIVE, check=True, capture_output=True)
    one, two = open_profile(run), open_profile(other)
    assert (one.facts["threads"], two.facts["threads"]) == (1, 2)
    for (name, first), (_, second) in zip(scores(one), scores(two), strict=True):
        apart = np.abs(first - second) / np.nanmax(np.abs(first))
        np.testing.assert_array_equal(np.isfinite(first), np.isfinite(second))
        assert np.nanquantile(apart, 0.99) < 1e-5, name
        assert np.nanmax(apart) < 1e-3, name
    for budget in ("30%", "45%"):
        for folder in (run, other):
            assert cli("plan", "--run", folder, "--budget", budget).code == 0
        assert load_plan(run / "plan.json").formats == load_plan(other / "plan.json").formats
