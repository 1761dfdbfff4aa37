"""What a command shows, where, and how it says that something went wrong."""

from __future__ import annotations

import json
import re
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from analysis.commands.options import OutputOptions
from analysis.evaluation.results import null_if_not_finite
from analysis.report.renderers.terminal import rich_table
from analysis.steps import View
from vggtkit.core import provenance
from vggtkit.core.command_log import LoggedCommand, log_command
from vggtkit.core.errors import InputError
from vggtkit.core.escaping import printable
from vggtkit.core.interrupts import behind, check_interrupted, exit_code
from vggtkit.core.locks import working_in
from vggtkit.core.plugins import load_plugins
from vggtkit.core.program import command, on_command_line
from vggtkit.core.seal import files_as_they_are
from vggtkit.runtime.machine import machine_facts

WIDTH_OF_FILES = 120
WANT_OF_MEMORY = (
    "out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "bad_alloc",
    "could not create a primitive", "could not create a memory", "resource temporarily unavailable",
    "failed to map segment", "error return without exception set", "can't start new thread",
)  # fmt: skip
"""How torch, oneDNN, HDF5, Python itself and the system say that memory was refused."""
OUT_OF_MEMORY = "error: out of memory; give a lower --max-images, --num-scenes or --views, or --device cpu"
_ALARM = re.compile(r"[A-Z]{2,} [A-Z]{2,}")
"""How sentences begin that nobody should overlook."""


class _Console(Console):
    """One that leaves a closed pipe to its caller; rich would end the program with exit code 1."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        raise BrokenPipeError


@contextmanager
def _written() -> Iterator[None]:
    """Output that cannot be written is not the work's fault."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(
            f"standard output cannot be written ({error.strerror}); the files are complete, what they say is lost"
        ) from error


@dataclass(frozen=True)
class Screen:
    """Where results go: tables on standard output, or one JSON document there; the rest on standard error."""

    as_json: bool
    errors: Console = field(default_factory=lambda: Console(stderr=True))
    notes: list[str] = field(default_factory=list)
    """What was said beside the results, and what they warn of."""

    def show(self, view: View) -> None:
        """Show a result."""
        self.tables(view)
        self.json(view.values)

    def tables(self, view: View) -> View:
        """Show a result to people, unless machines listen; returns it."""
        self.notes.extend(line for line in view.lines if _ALARM.match(line))
        if self.as_json:
            return view
        console = _Console()
        if not console.is_terminal:
            console.width = WIDTH_OF_FILES
        with _written():
            for table in view.tables:
                console.print(rich_table(table))
                console.print()
            for line in view.lines:
                console.print(printable(line), highlight=False, soft_wrap=True, markup=False)
        return view

    def json(self, values: object) -> None:
        """Show values to machines, if they listen."""
        if self.as_json:
            with _written():
                sys.stdout.write(json.dumps(null_if_not_finite(values), allow_nan=False) + "\n")
                sys.stdout.flush()

    def say(self, line: str) -> None:
        """Something to know beforehand; above the progress bar."""
        self.notes.append(line)
        self.errors.print(printable(line), highlight=False, soft_wrap=True, markup=False)

    @contextmanager
    def progress(self) -> Iterator[provenance.Progress]:
        """A bar with the time left, in a terminal."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        hidden = not self.errors.is_terminal
        with Progress(*columns, console=self.errors, transient=True, disable=hidden) as bar:
            task = bar.add_task("starting", total=None, visible=False)

            def step(stage: str, done: int, total: int) -> None:
                check_interrupted()
                bar.update(task, description=escape(printable(stage)), completed=done, total=total, visible=True)

            yield step


@contextmanager
def session(output: OutputOptions, run: Path | None = None) -> Iterator[Screen]:
    """What a command runs in: gives it the screen, and turns what goes wrong into a line and an exit code.

    Plugins are loaded first, and messages call settings by their options.

    Args:
        output: how results are shown.
        run: folder that the command writes into; no other command does meanwhile.
    """
    with warnings.catch_warnings(), on_command_line():
        warnings.simplefilter("default" if output.debug else "ignore")
        try:
            load_plugins(output.plugin or ())
            reading = files_as_they_are() if output.no_verify else nullcontext()
            with reading, nullcontext() if run is None else working_in(run, " ".join(sys.argv[1:2]) or "a command"):
                screen = Screen(output.as_json)
                with nullcontext() if run is None else _logged(run, screen):
                    yield screen
        except (typer.Exit, BrokenPipeError):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if output.debug:
                traceback.print_exc()
            line, code = explained(error)
            sys.stderr.write(f"{printable(line)}\n")
            raise typer.Exit(code) from error


@contextmanager
def _logged(run: Path, screen: Screen) -> Iterator[None]:
    """What is done inside has a line in the log of the folder, however it ends."""
    started, begun = datetime.now(timezone.utc), time.perf_counter()
    said, code = "", 0
    try:
        yield
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        said, code = explained(error)
        raise
    finally:
        log_command(
            run,
            LoggedCommand(
                command(*sys.argv[1:]), started.isoformat(timespec="seconds"), round(time.perf_counter() - begun, 2),
                code, printable(said), tuple(map(printable, screen.notes)), machine_facts(),
            ),
        )  # fmt: skip


def explained(error: BaseException) -> tuple[str, int]:
    """What to say about an error, in one line, and the exit code.

    >>> explained(InputError("--probes 0: at least 1 is needed"))
    ('error: --probes 0: at least 1 is needed', 2)
    >>> explained(FileNotFoundError(2, "No such file or directory", "a/b"))
    ('error: a/b: No such file or directory', 2)
    """
    error = behind(error)
    if isinstance(error, MemoryError):  # of which not even the words can be asked
        return OUT_OF_MEMORY, 2
    said = " ".join(str(error).split())
    if isinstance(error, InputError):
        return f"error: {said}", 2
    if _is_want_of_memory(error):
        return OUT_OF_MEMORY, 2
    if isinstance(error, OSError) and error.strerror:
        return f"error: {error.filename or 'a file'}: {error.strerror}", 2
    if isinstance(error, KeyboardInterrupt):
        kept = "interrupted; files that were there before are as they were, and this goes on with whatever is kept"
        return said or f"{kept}: {command(*sys.argv[1:])}", exit_code(error)
    return f"internal error: {type(error).__name__}: {said}; --debug shows where", 1


def _is_want_of_memory(error: BaseException) -> bool:
    """Whether memory was refused, which libraries say in their own words."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError | OSError | ImportError | SystemError)
        and any(words in said for words in WANT_OF_MEMORY)
    )
