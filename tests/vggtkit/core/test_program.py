"""The program calls itself as it was called, quotes what it prints to be typed, and knows who asks."""

import shlex
import sys

import pytest

from vggtkit.core import program
from vggtkit.core.program import command, on_command_line, setting


@pytest.mark.parametrize(
    ("started", "name"),
    [
        ("cli.py", "python cli.py"),
        ("/somewhere/else/cli.py", "python cli.py"),
        ("/usr/bin/vggt-mixedprec", "vggt-mixedprec"),
        (r"vggt-mixedprec.exe", "vggt-mixedprec"),
        ("", "python cli.py"),
        ("notebook.py", "python cli.py"),
    ],
)
def test_the_command_calls_itself_as_it_was_started(monkeypatch: pytest.MonkeyPatch, started: str, name: str) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    assert program.program() == name


def test_an_installed_library_names_the_installed_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Beside it there is no script, nor anything else of the checkout."""
    monkeypatch.setattr(sys, "argv", ["notebook.py"])
    monkeypatch.setattr(program, "_CHECKOUT", tmp_path_factory.mktemp("site-packages"))
    assert program.program() == "vggt-mixedprec"


@pytest.mark.parametrize("run", ["runs/default", "my runs/a b", "it's", "$HOME", "a;b", ""])
def test_what_is_printed_can_be_typed(run: str) -> None:
    line = command("plan", "--run", run)
    assert shlex.split(line)[-3:] == ["plan", "--run", run]


def test_settings_are_called_as_whoever_asks_knows_them() -> None:
    assert setting("weights_for", "depth=2") == "weights_for='depth=2'"
    with on_command_line():
        assert setting("weights_for", "depth=2") == "--weights-for depth=2"
        with on_command_line():
            pass
        assert setting("strict") == "--strict"
    assert setting("strict") == "strict"
