"""What goes wrong is said in one line, with an exit code."""

from typing import NoReturn

import pytest
import torch

from tests.analysis.commands.running import Ran, assert_refused, cli


def test_our_own_fault_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> NoReturn:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("analysis.commands.formats.formats_view", fail)
    assert cli("formats") == Ran(1, "", "internal error: RuntimeError: first line second line; --debug shows where\n")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(),
        SystemError("error return without exception set"),
        ImportError("_lsprof.so: failed to map segment from shared object"),
    ],
    ids=["torch", "Python", "the system"],
)
def test_out_of_memory_has_a_way_out(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_arguments: object) -> NoReturn:
        raise error

    monkeypatch.setattr("analysis.commands.formats.formats_view", fail)
    assert_refused(cli("formats"), "out of memory", "--max-images")
