"""Are the committed results of the bundled network as it is now? Those that are not are taken again.

Run: ``python benchmarks/again.py --list``, or ``python benchmarks/again.py [NAME ...] [--data DIR] [--peers PYTHON]``,
where DIR has the recordings and photographs that some compare, and PYTHON is an interpreter with the other tools
(``pip install -e .[bench]``). A result is written as soon as it is there, with a fingerprint of the network, so what
is interrupted goes on with the next. What depends on the processor alone (speed, memory) or on random weights of
VGGT-1B is not here; speeds of whole numbers have files of their own of processors without VNNI. Times are told, so
nothing else should run; ``OMP_NUM_THREADS=1`` is what most were taken with. ``openvino_tiny`` wants other tools, and
the extras ``onnx`` and ``openvino``, where this script itself runs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vggtkit.core.atomic import of_text, write_all
from vggtkit.core.errors import InputError
from vggtkit.model import load_vggt
from vggtkit.model.loading import model_fingerprint
from vggtkit.runtime.processor import missing_for_int8

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results"
MADE = "made"
"""Key of a result: of which network, by which commands, in how many seconds."""
PLACES = {
    "rooms": "--scenes synthetic",
    "kitchen": "--images {data}/kitchen",
    "hololens": "--scenes rgbd:{data}/hololens",
    "room": "--images {data}/room",
}
"""Kinds of scenes between which plans are moved."""
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "held_out": ("benchmarks/held_out.py",),
    "recording": ("benchmarks/recording.py rgbd:{data}/hololens",),
    "main_job": ("benchmarks/main_job.py",),
    "planner": ("benchmarks/planner.py --python {peers}",),
    "score_audit": ("benchmarks/score_audit.py",),
    "rounding": ("benchmarks/rounding.py",),
    "rounding_plans": ("benchmarks/rounding_plans.py",),
    "rounding_robust": ("benchmarks/rounding_robust.py --photos {data}/kitchen --rgbd {data}/hololens",),
    "rounding_peers": ("benchmarks/rounding_peers.py --python {peers}",),
    "tune": ("benchmarks/tune.py",),
    "activations": ("benchmarks/activations.py",),
    "transfer_tiny": (
        *(f"cli.py profile {of} --num-scenes 2 --views 2 --run {{runs}}/{name}" for name, of in PLACES.items()),
        "cli.py audit --transfer " + " ".join(f"{{runs}}/{name}" for name in PLACES) + " --json",
    ),
    "transfer_changed": ("benchmarks/transfer.py --data {data}",),
    "transfer_twin": ("benchmarks/transfer.py --data {data} --twin",),
    "onnx_tiny": ("benchmarks/onnx_speed.py --model tiny",),
    "openvino_tiny": ("benchmarks/openvino_speed.py --model tiny",),
}
"""What makes each result; the last line of the last command's output, or all of it, is the result as JSON."""
WHOLE_NUMBERS = frozenset({"onnx_tiny", "openvino_tiny"})
"""Results of speed, which are others on an x86 processor without instructions for whole numbers."""
WITHOUT = "_without_vnni"
"""Ends the names of their files there."""


def network() -> str:
    """Fingerprint of the bundled network.

    >>> len(network())
    16
    """
    return model_fingerprint(load_vggt("tiny"))


def file_of(name: str, folder: Path = RESULTS) -> Path:
    """Where a result of this processor is."""
    return folder / f"{name}{WITHOUT if name in WHOLE_NUMBERS and missing_for_int8() else ''}.json"


def made_of(path: Path) -> str:
    """Fingerprint of the network that a result is of; "" where it does not say, or there is none."""
    if not path.is_file():
        return ""
    return str(json.loads(path.read_text()).get(MADE, {}).get("network", ""))


def stale(names: Iterable[str], current: str, folder: Path = RESULTS) -> list[str]:
    """Of these results, those of another network than the current one."""
    return [name for name in names if made_of(file_of(name, folder)) != current]


def take(name: str, given: Mapping[str, str], current: str, folder: Path = RESULTS) -> float:
    """Make one result anew.

    Args:
        name: of `COMMANDS`.
        given: ``data`` and ``peers``, where the commands want them.
        current: fingerprint of the network.
        folder: where the result goes.

    Returns:
        Seconds.

    Raises:
        InputError: what a command wants is not given, or it fails.
    """
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as runs:
        for command in COMMANDS[name]:
            try:
                arguments = shlex.split(command.format(**given, runs=runs))
            except KeyError as error:
                raise InputError(f"{name} wants --{error.args[0]}") from None
            said = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
            if said.returncode:
                last = (said.stderr.strip().splitlines() or ["it said nothing"])[-1]
                raise InputError(f"{name}: {' '.join(arguments)} ended with {said.returncode}: {last}")
    seconds = time.perf_counter() - begun
    made = {"network": current, "commands": list(COMMANDS[name]), "seconds": round(seconds)}
    text = json.dumps({**_result(said.stdout.replace(runs, "runs")), MADE: made}, indent=2) + "\n"
    write_all({file_of(name, folder): of_text(text)})
    return seconds


def _result(output: str) -> dict[str, object]:
    """The JSON at the end of what a command printed."""
    try:
        result = json.loads(output.strip().splitlines()[-1])
    except ValueError:
        result = json.loads(output)
    assert isinstance(result, dict)
    return result


def _listed(current: str) -> Table:
    table = Table("result", "of the network", title=f"The bundled network is {current}")
    for path in sorted({RESULTS / f"{name}.json" for name in COMMANDS} | {file_of(name) for name in COMMANDS}):
        of = made_of(path)
        table.add_row(path.stem, "as it is" if of == current else of or "not said")
    return table


def main() -> None:
    """List, or take again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="by default all of another network")
    parser.add_argument("--data")
    parser.add_argument("--peers")
    parser.add_argument("--list", action="store_true")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(COMMANDS):
        parser.error(f"there is no {', '.join(sorted(unknown))}: take some of {', '.join(COMMANDS)}")
    current, console = network(), Console()
    if asked.list:
        console.print(_listed(current))
        return
    # Commands run elsewhere; an interpreter's link is what makes it one of an environment, so it stays a link.
    given = {key: str(Path(value).absolute()) for key in ("data", "peers") if (value := getattr(asked, key))}
    failed = False
    for name in asked.names or stale(COMMANDS, current):
        try:
            console.print(f"{name} ...")
            console.print(f"{name}: {take(name, given, current):.0f} s")
        except InputError as error:
            failed = True
            console.print(f"{name}: not taken: {error}", markup=False)
    sys.exit(failed)


if __name__ == "__main__":
    main()
