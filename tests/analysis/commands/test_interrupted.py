"""An interrupted command leaves the files as they were."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from analysis.report.charts import comprehensive as charts
from sensitivity import open_profile
from tests.analysis.commands.running import cli, content

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("moment", ["computing", "drawing"])
def test_interrupted_evaluation_leaves_the_earlier_files(
    run: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def interrupt(*_arguments: object) -> NoReturn:
        raise KeyboardInterrupt

    target = (sys.modules["analysis.evaluation.run"], "average") if moment == "computing" else (charts, "draw")
    before, asked = content(run), ("evaluate", "--run", run, "--repeats", 0, "--schemes", "int4_group_32")
    whole = {row["key"]: row for row in json.loads(before["comprehensive_results.json"])["results"]}
    monkeypatch.setattr(sys, "argv", ["cli.py", *map(str, asked)])
    with monkeypatch.context() as patch:
        patch.setattr(*target, interrupt)
        ran = cli(*asked)
    assert (ran.code, ran.out, ran.err.count("\n")) == (130, "", 1)
    assert ran.err.rstrip().endswith(f"goes on from there: python cli.py {' '.join(map(str, asked))}")
    assert {name: data for name, data in content(run).items() if ".parts/" not in name} == before
    again = cli(*asked)
    assert again.code == 0
    assert f"resuming: {2 if moment == 'computing' else 4} steps were done before" in again.err
    assert content(run).keys() == before.keys()
    resumed = json.loads((run / "comprehensive_results.json").read_text())
    assert [row["key"] for row in resumed["results"]] == ["fp32", "int4_group_32", "plan"]
    for ours in resumed["results"]:
        for name in ("damage", "per_scene", "outputs", "geometry", "changes", "size_bytes"):
            assert ours[name] == whole[ours["key"]][name]
    with np.load(run / "depth_maps.npz") as maps, np.load(io.BytesIO(before["depth_maps.npz"])) as earlier:
        rows = [list(whole).index(row["key"]) for row in resumed["results"]]
        np.testing.assert_array_equal(maps["depth"], earlier["depth"][rows])


@pytest.mark.parametrize("change", ["--depth-alignment", "--schemes"])
def test_steps_of_another_evaluation_do_not_count(run: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    def interrupt(*_arguments: object) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["analysis.evaluation.run"], "average", interrupt)
        assert cli("evaluate", "--run", run, "--repeats", 0, "--schemes", "fp16").code == 130
    value = {"--depth-alignment": ("--schemes", "fp16", change, "none"), "--schemes": (change, "int4_group_32")}[change]
    again = cli("evaluate", "--run", run, "--repeats", 0, *value)
    assert again.code == 0
    assert "resuming" not in again.err


def test_interrupted_profile_leaves_the_earlier_one_and_says_how_to_go_on(
    run: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments: object, **_options: object) -> NoReturn:
        raise KeyboardInterrupt

    before = content(run)
    command = ("profile", "--run", run, "--model", model_folder, "--num-scenes", 1, "--views", 1, "--probes", 1)
    monkeypatch.setattr(sys, "argv", ["cli.py", *map(str, command)])
    with monkeypatch.context() as patch:
        patch.setattr("sensitivity.profile_steps.RecordedForward.sketch", interrupt)
        ran = cli(*command)
    assert ran.code == 130
    assert ran.err.splitlines()[-1].endswith(f"goes on from there: python cli.py {' '.join(map(str, command))}")
    (run / "profile.h5.parts" / "purpose.json").stat()
    shutil.move(run / "profile.h5.parts", run.parent / "parts")
    assert content(run) == before
    shutil.move(run.parent / "parts", run / "profile.h5.parts")
    again = cli(*command)
    assert again.code == 0
    assert "resuming: 8 of 9 steps were done before" in again.err
    assert content(run).keys() == before.keys()


@pytest.mark.slow
def test_a_profile_that_is_killed_goes_on_with_the_same_numbers(model_folder: Path, tmp_path: Path) -> None:
    """SIGKILL after the second step or so, in a process of its own, which computes with one thread as the tests do."""
    command = [sys.executable, "cli.py", "profile", "--model", str(model_folder), "--views", "1", "--probes", "1"]
    command += ["--num-scenes", "1", "--rounding", "nearest", "--json", "--run"]
    parts = tmp_path / "killed" / "profile.h5.parts"
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # sums of two threads are rounded in another order
    process = subprocess.Popen([*command, str(tmp_path / "killed")], cwd=ROOT, stdout=-3, stderr=-3, env=one_thread)
    while len(list(parts.glob("*.npz"))) < 2 and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "profile.h5").exists()
    profiles = []
    for name in ("killed", "whole"):
        run = tmp_path / name
        done = cli("profile", "--model", model_folder, "--views", 1, "--probes", 1, "--num-scenes", 1, "--run", run)
        assert ("resuming: " in done.err) == (name == "killed")
        profiles.append(open_profile(run))
    resumed, whole = profiles
    np.testing.assert_array_equal(resumed.total_damage, whole.total_damage)
    np.testing.assert_array_equal(resumed.total_uniform, whole.total_uniform)
    for kind, metrics in whole.scores.items():
        for metric, values in metrics.items():
            np.testing.assert_array_equal(resumed.scores[kind][metric], values)
    for scheme in ("fp32", *whole.schemes):
        name = whole.layers[0].name
        np.testing.assert_array_equal(resumed.activations(scheme, name), whole.activations(scheme, name))
