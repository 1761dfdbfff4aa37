"""The log of commands: whole lines whatever came before, and nothing believed that is damaged."""

from pathlib import Path

import pytest

from vggtkit.core.command_log import LOG, LONGEST_NOTE, MOST_NOTES, LoggedCommand, log_command, read_log
from vggtkit.core.locks import LOCK


def entry(command: str, **facts: object) -> LoggedCommand:
    return LoggedCommand(command, "2026-01-01T00:00:00+00:00", 0.5, 0, **facts)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "plan.json").write_text("{}")
    return tmp_path


def test_what_is_logged_is_read_in_order(run: Path) -> None:
    entries = (entry("plan", notes=("a", "b"), machine={"torch": "2"}), LoggedCommand("x", "y", 1.0, 2, "error: no"))
    for each in entries:
        log_command(run, each)
    assert read_log(run) == entries


@pytest.mark.parametrize("cut", ['{"command": "pl', "[]", "null", '{"command": 1}', "\xff", "[" * 9999])
def test_a_damaged_line_is_passed_over(run: Path, cut: str) -> None:
    (run / LOG).write_bytes(cut.encode("latin-1"))
    log_command(run, entry("plan"))
    assert [each.command for each in read_log(run)] == ["plan"]


def test_notes_are_bounded(run: Path) -> None:
    log_command(run, entry("plan", notes=("x" * 10**5,) * 1000))
    (read,) = read_log(run)
    assert [len(note) for note in read.notes] == [LONGEST_NOTE] * MOST_NOTES


def test_a_folder_without_results_stays_empty(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    log_command(tmp_path, entry("plan"))
    log_command(tmp_path / "absent", entry("plan"))
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_nothing_is_written_through_a_link(run: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "file"
    other.write_text("mine")
    (run / LOG).symlink_to(other)
    log_command(run, entry("plan"))
    assert other.read_text() == "mine"
