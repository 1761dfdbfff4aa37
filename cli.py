"""Command line: the commands by name, what is wrong with a line that cannot be parsed, and exit codes.

Exit codes: 0 done, 1 our fault, 2 the user's input, 130 interrupted, 141 nobody reads the output, 143 terminated.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from vggtkit.core.interrupts import (
    INTERRUPTED,
    check_interrupted,
    end_at_once,
    ending_at_once,
    exit_code,
    interruptible,
)
from vggtkit.core.program import program
from vggtkit.core.streams import NOBODY_READS, readable_streams

os.environ.pop("MPLBACKEND", None)  # charts are files; one that matplotlib does not know would end the import

with ending_at_once():  # these take seconds
    import typer

    from analysis.commands import (
        audit,
        demo,
        download,
        evaluate,
        export,
        forecast,
        formats,
        inspect,
        kernels,
        pareto,
        plan,
        profile,
        reconstruct,
        report,
        reproduce,
        tune,
        view,
    )
    from analysis.commands.groups import laid_out
    from analysis.commands.options import AsJson, Debug, OutputOptions, Plugin
    from analysis.commands.screen import explained, session
    from vggtkit.core.escaping import printable

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
        with session(OutputOptions(as_json, debug, plugin)):
            pass  # they are loaded; those after the command follow


def register(command: Callable[..., None], examples_of_it: tuple[str, ...]) -> None:
    """Make a function a command of its name."""
    COMMANDS.append(command.__name__)
    app.command(epilog=examples(*examples_of_it))(laid_out(command))


COMMANDS: list[str] = []
register(profile.profile, profile.EXAMPLES)
register(plan.plan, plan.EXAMPLES)
register(pareto.pareto, pareto.EXAMPLES)
register(tune.tune, tune.EXAMPLES)
register(evaluate.evaluate, evaluate.EXAMPLES)
register(export.export, export.EXAMPLES)
register(report.report, report.EXAMPLES)
register(reconstruct.reconstruct, reconstruct.EXAMPLES)
register(view.view, view.EXAMPLES)
register(audit.audit, audit.EXAMPLES)
register(inspect.inspect, inspect.EXAMPLES)
register(kernels.kernels, kernels.EXAMPLES)
register(forecast.forecast, forecast.EXAMPLES)
register(formats.formats, formats.EXAMPLES)
register(reproduce.reproduce, reproduce.EXAMPLES)
register(download.download, download.EXAMPLES)
register(demo.demo, demo.EXAMPLES)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    >>> main(["plan", "--run", "no/such/run"])
    2
    """
    if arguments is None:  # this is the program
        end_at_once()
        arguments = sys.argv[1:]
    with readable_streams(), interruptible():
        try:
            code = _run(arguments or ["--help"])
            sys.stdout.flush()
            if code == INTERRUPTED:  # while a line is parsed, Typer takes every signal for Ctrl-C
                check_interrupted()
        except (KeyboardInterrupt, typer.Abort) as error:
            return exit_code(error)
        except BrokenPipeError:
            return NOBODY_READS
        except OSError as error:
            sys.stderr.write(f"{printable(explained(error)[0])} (standard output)\n")
            return 2
        except (MemoryError, RuntimeError, ImportError, SystemError) as error:
            line, code = explained(error)
            if code == 1:
                raise
            sys.stderr.write(f"{printable(line)}\n")  # memory was refused while the line was parsed
            return code
        return code


def _run(arguments: list[str]) -> int:
    try:
        code: Any = app(arguments, prog_name=program(), standalone_mode=False)
    except UsageError as error:
        command = getattr(getattr(error, "ctx", None), "command_path", program())
        said = printable(" ".join(error.format_message().split()).rstrip("."))
        sys.stderr.write(f"error: {said}; `{command} --help` shows what there is\n")
        return 2
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main())
