"""The command line itself: help, and lines that cannot be parsed."""

import signal
from pathlib import Path

import pytest
import typer.core

from cli import COMMANDS, HELP_WIDTH
from docs.generate_cli import PAGE, page
from tests.analysis.commands.running import assert_refused, cli, the_json


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_common_options_stand_before_or_after_the_command(tmp_path: Path, before: bool) -> None:
    def placed(option: str, *command: object) -> tuple[object, ...]:
        return (option, *command) if before else (*command, option)

    assert "fp16" in the_json(cli(*placed("--json", "formats")))
    debugged = cli(*placed("--debug", "plan", "--run", tmp_path))
    assert debugged.code == 2
    assert debugged.err.startswith("Traceback")
    assert debugged.err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_all_options_and_examples(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = cli(command, "--help")
    assert (shown.code, shown.err) == (0, "")
    assert max(map(len, shown.out.splitlines())) <= HELP_WIDTH
    assert f"python cli.py {command}" in shown.out.partition("Examples:")[2]
    for option in (
        "--json",
        "--debug",
        *(["--run, --output_dir DIR"] if command not in ("formats", "download") else []),
    ):
        assert option in shown.out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_the_line_is_parsed_has_its_own_code(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    monkeypatch.setattr(typer.core.TyperGroup, "invoke", lambda *_: signal.raise_signal(number))
    before = signal.signal(number, signal.default_int_handler)  # where tests run in the background it may be ignored
    try:
        assert cli("formats").code == code
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("lib.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_that_is_refused_before_a_command_begins_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(*_arguments: object, **_keywords: object) -> None:
        raise error

    monkeypatch.setattr("cli.app", parse)
    assert_refused(cli("plan"), "out of memory")


def test_another_error_before_a_command_begins_is_our_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(*_arguments: object, **_keywords: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr("cli.app", parse)
    with pytest.raises(RuntimeError, match="something else"):
        cli("plan")


def test_no_arguments_show_the_help() -> None:
    assert cli() == cli("--help")


def test_the_page_of_the_documentation_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bogus",), "'bogus'"),
        (("plan", "--bogus"), "--bogus"),
        (("plan", "--budget"), "--budget"),
        (("profile", "--num-scenes", "many"), "--num-scenes"),
    ],
)
def test_a_command_line_that_cannot_be_parsed(arguments: tuple[str, ...], message: str) -> None:
    assert_refused(cli(*arguments), message, "--help")
