"""An interrupted command leaves the files as they were."""

import sys
from pathlib import Path
from typing import NoReturn

import pytest

from analysis import plots
from tests.commands.running import cli, content


@pytest.mark.parametrize("moment", ["computing", "drawing"])
def test_interrupted_evaluation_leaves_the_earlier_files(
    run: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def interrupt(*_arguments: object) -> NoReturn:
        raise KeyboardInterrupt

    target = (sys.modules["analysis.evaluate"], "average") if moment == "computing" else (plots, "draw")
    monkeypatch.setattr(*target, interrupt)
    before = content(run)
    ran = cli("evaluate", "--run", run, "--repeats", 0)
    assert (ran.code, ran.out, ran.err.count("\n")) == (130, "", 1)
    assert content(run) == before


def test_interrupted_profile_leaves_the_earlier_one(
    run: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_arguments: object, **_options: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("sensitivity.profiler._side_by_side", interrupt)
    before = content(run)
    assert cli("profile", "--run", run, "--model", model_folder, "--num-scenes", 1, "--views", 1).code == 130
    assert content(run) == before
