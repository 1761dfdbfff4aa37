"""Which commands were run in a run folder: a line of JSON each, as they ended, for the report of an experiment.

The log is a courtesy: a command that could not write it has done its work all the same, and a line that is damaged is
passed over when the log is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from vggtkit.core.locks import LOCK

LOG = "commands.jsonl"
MOST_NOTES, LONGEST_NOTE = 40, 600
MOST_BYTES = 2**22
"""Of a log, from its end, that are read."""


@dataclass(frozen=True)
class LoggedCommand:
    """A command that ended.

    Attributes:
        command: as it was typed.
        started: date and time in UTC, as ISO 8601 writes them.
        seconds: that it took.
        exit_code: 0 where all went well.
        error: what it ended with, in one line; "" where all went well.
        notes: what it said beside its results, warnings among them.
        machine: what it ran on: processor, accelerator, versions.
    """

    command: str
    started: str
    seconds: float
    exit_code: int
    error: str = ""
    notes: tuple[str, ...] = ()
    machine: Mapping[str, str] = field(default_factory=dict)


def log_command(run: Path, entry: LoggedCommand) -> None:
    """Add a command to the log of a run folder, if the folder is there and holds anything.

    >>> import tempfile
    >>> run = Path(tempfile.mkdtemp())
    >>> log_command(run, LoggedCommand("plan", "2026-01-01T00:00:00+00:00", 1.5, 0))
    >>> read_log(run)
    ()
    >>> _ = (run / "plan.json").write_text("{}")
    >>> log_command(run, LoggedCommand("plan", "2026-01-01T00:00:00+00:00", 1.5, 0))
    >>> [(each.command, each.seconds) for each in read_log(run)]
    [('plan', 1.5)]
    """
    with suppress(OSError):
        if all(path.name == LOCK for path in run.iterdir()):
            return
        notes = [note[:LONGEST_NOTE] for note in entry.notes[:MOST_NOTES]]
        values = asdict(entry) | {"notes": notes, "error": entry.error[:LONGEST_NOTE]}
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(run / LOG, flags, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            broken = size and os.pread(descriptor, 1, size - 1) != b"\n"  # a line that a full disk cut off
            os.write(descriptor, b"\n" * bool(broken) + json.dumps(values).encode() + b"\n")
        finally:
            os.close(descriptor)


def read_log(run: Path) -> tuple[LoggedCommand, ...]:
    """The commands of a run folder in the order in which they ended; none where there is no log."""
    try:
        with (run / LOG).open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - MOST_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    read = (_read(line) for line in lines)
    return tuple(entry for entry in read if entry is not None)


_IS: dict[str, tuple[type, ...]] = {
    "command": (str,), "started": (str,), "seconds": (int, float), "exit_code": (int,), "error": (str,),
    "notes": (list,), "machine": (dict,),
}  # fmt: skip


def _read(line: str) -> LoggedCommand | None:
    try:
        values: dict[str, Any] = json.loads(line)
        named = {each.name: values[each.name] for each in fields(LoggedCommand)}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not all(isinstance(named[name], kinds) for name, kinds in _IS.items()):
        return None
    named["notes"] = tuple(map(str, named["notes"]))
    named["machine"] = {str(name): str(value) for name, value in named["machine"].items()}
    return LoggedCommand(**named)
