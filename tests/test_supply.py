"""What the project is built on: lower bounds that are tried, exact versions for development, and no network unasked."""

import re
import socket
from pathlib import Path
from typing import NoReturn

import pytest

from tests.analysis.commands.running import cli
from vggtkit.quant import UNIFORM_SCHEMES

ROOT = Path(__file__).resolve().parents[1]
NOT_RUN = {"ruff", "mypy", "pre-commit"}
"""They check the code and do not run it; pyproject.toml pins them."""


def lines_of(name: str) -> list[str]:
    lines = (line.partition(" #")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def pinned(name: str) -> dict[str, str]:
    """Version by package, of a file of exact versions."""
    pins = (line.partition(";")[0].strip().partition("==") for line in lines_of(name))
    return {package.partition("[")[0].lower().replace("_", "-"): version for package, _, version in pins}


def bounds() -> dict[str, str]:
    """Lower bound by package, of all that pyproject.toml asks for but the benchmarks of other tools."""
    text = (ROOT / "pyproject.toml").read_text()
    asked = text[text.index("dependencies = [") : text.index("# Other tools")]
    found = re.findall(r'"([A-Za-z0-9_-]+)(?:\[[a-z]+\])?(?:>=|==)([0-9.]+)', asked)
    return {package.lower().replace("_", "-"): version for package, version in found}


def parts(version: str) -> list[int]:
    numbers = [int(part) for part in version.partition("+")[0].split(".")]
    return numbers + [0] * (4 - len(numbers))


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    oldest, lowest = pinned("requirements-oldest.txt"), bounds()
    assert oldest.keys() == lowest.keys() - NOT_RUN
    assert {name: parts(version) for name, version in oldest.items()} == {name: parts(lowest[name]) for name in oldest}


def test_the_lock_has_exact_versions_within_the_bounds_and_names_no_place() -> None:
    lines, versions, lowest = lines_of("requirements-dev.lock"), pinned("requirements-dev.lock"), bounds()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
    assert "vggt-mixedprec" not in versions
    for name in lowest.keys() - {"tomli"}:  # of Python 3.10
        assert parts(versions[name]) >= parts(lowest[name]), name


@pytest.mark.slow
def test_nothing_is_fetched_unasked(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> NoReturn:
        raise AssertionError("a connection is opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("sensitivity.profiler.scored_formats", lambda: UNIFORM_SCHEMES)
    asked = ("--model", model_folder, "--num-scenes", 1, "--views", 1, "--probes", 1)
    for command in (("profile", *asked), ("plan", "--budget", "60%"), ("evaluate", "--repeats", 0), ("export",)):
        ran = cli(*command, "--run", tmp_path)
        assert ran.code == 0, ran.err
