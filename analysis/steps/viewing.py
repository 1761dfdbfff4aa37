"""A network and pictures -> FP32 and the packed network side by side in a browser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import sleep
from typing import Any, NamedTuple

from analysis.reconstruction.viewer import LOCALHOST, Side, check_viser, serve, stop
from analysis.steps.reconstruction import AGAINST, ReconstructionChoice, differences_table, see_place
from analysis.steps.view import View
from vggtkit.core.errors import check_number
from vggtkit.core.interrupts import TerminatedError, check_interrupted
from vggtkit.core.provenance import Progress, silent

LARGEST_PORT = 2**16 - 1


class Viewing(NamedTuple):
    """A view that is being served.

    Attributes:
        server: of viser.
        view: what is to be said of it.
    """

    server: Any
    view: View


def start_view(
    choice: ReconstructionChoice,
    *,
    host: str = LOCALHOST,
    port: int = 8080,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> Viewing:
    """Reconstruct a place twice and serve both; a network in FP32 is shown alone.

    Args:
        choice: what, and how; with what it is compared follows from the network.
        host: address to listen on.
        port: to listen on.
        progress: called as the work goes on.
        say: told what it will take.

    Raises:
        InputError: as `see_place` and `serve`.
    """
    check_viser()
    check_number("port", port, 1, LARGEST_PORT)
    made = see_place(replace(choice, against=AGAINST if choice.network.is_packed else None), progress=progress, say=say)
    own = Side(str(made.facts["network"]), made.own, made.differences)
    sides = [own] if made.reference is None else [Side("FP32", made.reference), own]
    server = serve(sides, host, port)
    address = f"http://{server.get_host()}:{server.get_port()}"
    tables = [differences_table(made.differences)] if made.differences is not None else []
    lines = [f"{' | '.join(side.title for side in sides)}: open {address} in a browser; Ctrl-C ends it."]
    if len(sides) == 1:
        lines.append("FP32 alone: name a run or a checkpoint to see it beside.")
    numbers = made.differences.numbers if made.differences is not None else {}
    values = {"address": address, "sides": [side.title for side in sides], "differences": numbers}
    return Viewing(server, View(values, tables, lines))


def serve_until_stopped(viewing: Viewing) -> None:
    """Wait until the user ends it, which is how it is meant to end; the server is stopped then."""
    try:
        while True:
            check_interrupted()
            sleep(0.5)
    except TerminatedError:
        raise
    except KeyboardInterrupt:
        pass
    finally:
        stop(viewing.server)
