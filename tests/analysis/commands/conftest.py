"""A finished run of the tiniest VGGT."""

import shutil
from pathlib import Path

import pytest

from analysis.report import charts
from tests.analysis.commands.running import RESULTS, Ran, cli


@pytest.fixture(scope="package")
def finished(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Ran]]:
    """A run with all its files, and what every command printed; not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    steps = {
        "profile": ("--model", model_folder, "--num-scenes", 1, "--views", 2, "--probes", 1, "--seed", 3),
        "plan": (),
        "evaluate": ("--repeats", 1),
        "export": (),
    }
    printed = {name: cli(name, *options, "--run", run, "--json") for name, options in steps.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charts, "draw", lambda _evaluation, path: path.write_bytes(drawn))
        drawn = (run / RESULTS[2]).read_bytes()
        printed["report"] = cli("report", "--run", run, "--json")
    return run, printed


@pytest.fixture
def run(finished: tuple[Path, dict[str, Ran]], tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    return Path(shutil.copytree(finished[0], tmp_path / "run"))
