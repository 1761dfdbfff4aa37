"""Writes ``docs/cli.md`` from the ``--help`` of every command; ``make docs`` runs it, a test checks the result."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "cli.md"
HEAD = """# Command line

Made from `--help` by `make docs`; do not edit. Exit codes: 0 done, 2 the user's input, 1 our fault, 130 interrupted.
`--json` and `--debug` may stand before the command too.
"""


def page() -> str:
    """The page as it should be."""
    from cli import COMMANDS

    parts = [HEAD, _shown()]
    parts += [f"## {command}\n\n{_shown(command)}" for command in COMMANDS]
    return "\n".join(parts)


def _shown(*command: str) -> str:
    """What ``--help`` prints in a terminal that is wide enough."""
    from cli import HELP_WIDTH, main

    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(HELP_WIDTH + 20)
    try:
        with redirect_stdout(io.StringIO()) as printed:
            main([*command, "--help"])
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return f"```text\n{printed.getvalue().strip()}\n```\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(page(), encoding="utf-8")
