"""Command line: the commands by name, what is wrong with a line that cannot be parsed, and exit codes.

Exit codes: 0 done, 1 our fault, 2 the user's input, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer

from analysis.commands import audit, demo, download, evaluate, export, formats, inspect, pareto, plan, profile, report
from analysis.commands.groups import laid_out
from analysis.commands.options import AsJson, Debug, Output, Plugin
from analysis.commands.screen import session
from vggtkit.core.program import program

HELP_WIDTH = 100
UsageError: Any = typer.BadParameter.__mro__[1]
"""What a command line that cannot be parsed raises: a class of click, or of Typer's own, by Typer's age."""


def examples(*commands: str) -> str:
    """The end of a help text: commands to try, unwrapped."""
    return "\n".join(("\b", "Examples:", *(f"  {program()} {command}" for command in commands)))


app = typer.Typer(
    epilog=examples("demo", "profile --images photos/", "plan --budget 600MB", "evaluate"),
    context_settings={"max_content_width": HELP_WIDTH},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def common(context: typer.Context, as_json: AsJson = False, debug: Debug = False, plugin: Plugin = None) -> None:
    """How small can VGGT be made, which layers pay for it, and what happens to cameras, depth and points?"""
    # Given before the command, they become the defaults of the same options after it.
    context.default_map = {str(context.invoked_subcommand): {"as_json": as_json, "debug": debug}}
    if plugin:
        with session(Output(as_json, debug, plugin)):
            pass  # they are loaded; those after the command follow


def register(command: Callable[..., None], examples_of_it: tuple[str, ...]) -> None:
    """Make a function a command of its name."""
    COMMANDS.append(command.__name__)
    app.command(epilog=examples(*examples_of_it))(laid_out(command))


COMMANDS: list[str] = []
register(profile.profile, profile.EXAMPLES)
register(plan.plan, plan.EXAMPLES)
register(pareto.pareto, pareto.EXAMPLES)
register(evaluate.evaluate, evaluate.EXAMPLES)
register(export.export, export.EXAMPLES)
register(report.report, report.EXAMPLES)
register(audit.audit, audit.EXAMPLES)
register(inspect.inspect, inspect.EXAMPLES)
register(formats.formats, formats.EXAMPLES)
register(download.download, download.EXAMPLES)
register(demo.demo, demo.EXAMPLES)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    >>> main(["plan", "--run", "no/such/run"])
    2
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code: Any = app(arguments or ["--help"], prog_name=program(), standalone_mode=False)
    except UsageError as error:
        command = getattr(getattr(error, "ctx", None), "command_path", program())
        said = " ".join(error.format_message().split()).rstrip(".")
        sys.stderr.write(f"error: {said}; `{command} --help` shows what there is\n")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 130
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main())
