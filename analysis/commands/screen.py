"""What a command shows, where, and how it says that something went wrong."""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from analysis.commands.options import Output
from analysis.evaluation.results import null_if_not_finite
from analysis.steps import View
from vggtkit.core import provenance
from vggtkit.core.errors import InputError
from vggtkit.core.plugins import load_plugins
from vggtkit.core.program import on_command_line

WIDTH_OF_FILES = 120


@dataclass(frozen=True)
class Screen:
    """Where results go: tables on standard output, or one JSON document there; the rest on standard error."""

    as_json: bool
    errors: Console = field(default_factory=lambda: Console(stderr=True))

    def show(self, view: View) -> None:
        """Show a result."""
        self.tables(view)
        self.json(view.values)

    def tables(self, view: View) -> View:
        """Show a result to people, unless machines listen; returns it."""
        if self.as_json:
            return view
        console = Console()
        if not console.is_terminal:
            console.width = WIDTH_OF_FILES
        for table in view.tables:
            console.print(table)
            console.print()
        for line in view.lines:
            console.print(line, highlight=False, soft_wrap=True, markup=False)
        return view

    def json(self, values: object) -> None:
        """Show values to machines, if they listen."""
        if self.as_json:
            sys.stdout.write(json.dumps(null_if_not_finite(values), allow_nan=False) + "\n")

    def say(self, line: str) -> None:
        """Something to know beforehand; above the progress bar."""
        self.errors.print(line, highlight=False, soft_wrap=True, markup=False)

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
                bar.update(task, description=stage, completed=done, total=total, visible=True)

            yield step


@contextmanager
def session(output: Output) -> Iterator[Screen]:
    """What a command runs in: gives it the screen, and turns what goes wrong into a line and an exit code.

    Plugins are loaded first, and messages call settings by their options.
    """
    with warnings.catch_warnings(), on_command_line():
        warnings.simplefilter("default" if output.debug else "ignore")
        try:
            load_plugins(output.plugin or ())
            yield Screen(output.as_json)
        except (typer.Exit, BrokenPipeError):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if output.debug:
                traceback.print_exc()
            line, code = explained(error)
            sys.stderr.write(f"{line}\n")
            raise typer.Exit(code) from error


def explained(error: BaseException) -> tuple[str, int]:
    """What to say about an error, in one line, and the exit code.

    >>> explained(InputError("--probes 0: at least 1 is needed"))
    ('error: --probes 0: at least 1 is needed', 2)
    """
    said = " ".join(str(error).split())
    if isinstance(error, InputError):
        return f"error: {said}", 2
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "error: out of memory; give a lower --max-images, --num-scenes or --views, or --device cpu", 2
    if isinstance(error, KeyboardInterrupt):
        return said or "interrupted; the files that were there before are as they were", 130
    return f"internal error: {type(error).__name__}: {said}; --debug shows where", 1
