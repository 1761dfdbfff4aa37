"""The command ``formats``."""

from __future__ import annotations

from analysis.steps import formats_view
from commands.options import AsJson, Debug
from commands.screen import session
from quant import CANDIDATES, FORMATS, UNIFORM_SCHEMES

EXAMPLES = (
    "formats",
    "formats --json",
)


def formats(as_json: AsJson = False, debug: Debug = False) -> None:
    """List the weight formats."""
    with session(as_json, debug) as screen:
        screen.show(formats_view(FORMATS, UNIFORM_SCHEMES, CANDIDATES))
