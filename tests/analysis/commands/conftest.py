"""A finished run of the tiniest VGGT."""

import shutil
from functools import partial
from pathlib import Path

import pytest

from analysis.audit import plans, ranks
from analysis.report.charts import comprehensive as charts
from analysis.steps import audit
from tests.analysis.commands.running import RESULTS, Ran, cli
from tests.made_once import made_once
from vggtkit.quant import UNIFORM_SCHEMES

PROFILED = ("--num-scenes", 1, "--views", 2, "--probes", 1, "--seed", 3)


@pytest.fixture(scope="package")
def finished(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Ran]]:
    """A run with all its files, and what every command printed; not to be changed."""
    folder, printed = made_once(tmp_path_factory, "finished", partial(_finish, model_folder))
    return folder / "run", printed


def _finish(model_folder: Path, folder: Path) -> dict[str, Ran]:
    run = folder / "run"
    steps = {
        "profile": (*PROFILED, "--model", model_folder, "--rounding", "nearest"),
        "plan": (),
        "evaluate": ("--repeats", 1),
        "export": (),
    }
    printed = {name: cli(name, *options, "--run", run, "--json") for name, options in steps.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charts, "draw", lambda _evaluation, path, *_: path.write_bytes(drawn))
        drawn = (run / RESULTS[2]).read_bytes()
        printed["report"] = cli("report", "--run", run, "--json")
    return printed


@pytest.fixture(scope="package")
def calibrated(
    finished: tuple[Path, dict[str, Ran]], model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same run with a profile that knows what calibrated rounding leaves; not to be changed."""
    return made_once(tmp_path_factory, "calibrated", partial(_calibrate, finished[0], model_folder))[0] / "run"


def _calibrate(finished: Path, model_folder: Path, folder: Path) -> None:
    run = Path(shutil.copytree(finished, folder / "run"))
    assert cli("profile", *PROFILED, "--model", model_folder, "--run", run, "--rounding", "gptq").code == 0


@pytest.fixture(autouse=True)
def nothing_is_calibrated_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a large network; it takes a second of every profile and evaluation."""
    monkeypatch.setattr("analysis.steps.profile.LARGE", 0)


@pytest.fixture
def with_charts() -> None:
    """Asks for charts as users get them."""


@pytest.fixture(autouse=True)
def without_charts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have tests of their own, and take a second for each evaluation."""
    if "with_charts" not in request.fixturenames:
        monkeypatch.setattr(charts, "draw", lambda _evaluation, path, *_: path.write_bytes(b"png"))


@pytest.fixture
def run(finished: tuple[Path, dict[str, Ran]], tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


@pytest.fixture
def few_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Profiles score the uniform schemes alone; an audit resamples little and judges on the scenes of true damage."""
    monkeypatch.setattr(audit, "JUDGES", 0)
    monkeypatch.setattr(ranks, "RESAMPLES", 3)
    monkeypatch.setattr(plans, "SPREAD", (1.1, 1.4))
    monkeypatch.setattr("sensitivity.profiler.scored_formats", lambda: UNIFORM_SCHEMES)
