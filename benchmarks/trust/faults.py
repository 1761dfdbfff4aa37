"""Disks that are full, numbers that are absurd, names that are hostile, streams that are closed: one line, exit code 2.

Method: commands on a finished run of the tiniest network, each in a child process under a time limit, with one fault:
files may take so many bytes (RLIMIT_FSIZE), memory is short (RLIMIT_AS), an option has a value that no machine can
serve, the run folder has a name that is too long, not UTF-8, or full of control characters and TeX, a folder is
read-only, another command holds the lock. *Right* is exit code 0, or 2 with one line; that what was there before is
there still, byte for byte, unless the command succeeded; and that neither a partial file nor a lock is left.

    python benchmarks/trust/faults.py
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.trust.attempts import attempt, fresh_copy, make_whole, profile_command, run_command
from vggtkit.core.command_log import LOG
from vggtkit.core.locks import working_in

COMMANDS: dict[str, list[str]] = {
    "profile": [], "plan": [], "plan-draw": ["--draw"], "evaluate": ["--repeats", "0"], "export": [], "report": [],
    "pareto": ["--points", "3", "--measure", "0"], "inspect": ["camera_head.pose_branch.fc1"],
}  # fmt: skip
LIMITS = (0, 1, 100, 1000, 4096, 10_000, 30_000, 100_000, 150_000, 190_000, 500_000, 1_000_000, 2_000_000)
NAMES = (
    b"a b", b"$x_1$", b"$", b"\\alpha", b"\xff\xfe", b"a\nb", b"\x1b[31m", "k\u00fcche".encode(), "\u202e".encode(),
    b"'q'", b'"', b"[red]", b"a%2Fb", b"-", b"x" * 200, b"x" * 300, b"%s{0}",
)  # fmt: skip
ABSURD = (
    "profile --views 1000000000", "profile --num-scenes 1000000000", "profile --num-scenes 100000 --views 1000",
    "profile --resolution 1000000000", "profile --resolution 32768", "profile --probes 1000000000",
    "profile --disk-budget 1e400MB", "profile --num-scenes 99999999999999999999999999", "profile --seed -1",
    "profile --views -1", "profile --num-scenes 0", "profile --disk-budget nanMB", "profile --stride 0",
    "plan --weights-for depth=1e308", "plan --weights-for depth=nan", "plan --weights-for depth=-1",
    "plan --weights-for depth=1e308,pose=1e308", "plan --budget 1e400MB", "plan --budget -1MB", "plan --budget nan%",
    "plan --budget infMB", "plan --budget 1e300%", "plan --max-damage nan", "plan --max-damage -1",
    "plan --max-damage 1e-400", "plan --refine -1", "plan --refine 99999999999999999999",
    "plan --min-bits attention=999999999999", "plan --max-drop auc30=nan", "plan --max-drop x=1e400",
    "pareto --points 1000000000", "pareto --points -1", "pareto --measure -1", "pareto --measure 1000000000",
    "evaluate --repeats 1000000000", "evaluate --repeats -1", "evaluate --num-scenes 1000000000",
    "evaluate --views 1000000000", "audit --num-scenes 1000000000", "audit --views 1000000000",
    "export --scheme " + "x" * 300, "inspect " + "x" * 5000, "plan --pin " + "[" * 3000 + "=int4_group_128",
)  # fmt: skip

Fault = Callable[[], object]


def words_of(command: str, run: Path, model: Path) -> list[str]:
    """A command on a run."""
    name = command.partition("-")[0]
    return profile_command(run, model) if name == "profile" else [name, *COMMANDS[command], "--run", str(run)]


def limited(which: int, value: int) -> Fault:
    """A limit of the process."""
    return partial(resource.setrlimit, which, (value, value))


def cases(places: Path, model: Path) -> Iterator[tuple[str, list[str], Fault]]:
    """Name, command line, and what goes wrong beforehand, in the child process."""
    run = places / "run"
    for command in COMMANDS:
        for limit in LIMITS:
            yield f"file size {limit}", words_of(command, run, model), limited(resource.RLIMIT_FSIZE, limit)
        for spare in (1, 30 * 10**6, 100 * 10**6):
            yield "memory", words_of(command, run, model), partial(_short_of_memory, spare)
        yield "read-only", words_of(command, run, model), partial(_read_only, run)
    for text in ABSURD:
        words = text.split()
        given = [*profile_command(run, model)[1:], *words[1:]] if words[0] == "profile" else words[1:]
        yield "absurd", [words[0], *given, *([] if words[0] == "profile" else ["--run", str(run)])], lambda: None
    for name in NAMES:
        named = Path(os.fsdecode(os.fsencode(places) + b"/" + name))
        for command in ("profile", "plan-draw", "export", "evaluate"):
            yield "name", words_of(command, named, model), partial(_copied, run, named)
    for command in COMMANDS:
        yield "locked", words_of(command, run, model), lambda: None


def _short_of_memory(spare: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limited(resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + spare)()


def _read_only(run: Path) -> None:
    """Root may write everywhere, so the child becomes nobody."""
    run.chmod(0o555)
    if os.getuid() == 0:
        os.setuid(65534)


def _copied(run: Path, named: Path) -> None:
    if len(named.name) < 255:
        fresh_copy(run, named)


def contents(run: Path) -> dict[str, bytes]:
    """Bytes of all files but the log of commands, in which a refused one stands too."""
    files = (path for path in sorted(run.rglob("*")) if path.is_file() and path.name != LOG)
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def faulty(words: list[str], fault: Fault) -> tuple[int, str, object]:
    """The command after the fault."""
    fault()
    code, said = run_command(words)
    return code, said, None


def faults(folder: Path, every: int = 1, seconds: float = float("inf")) -> dict[str, object]:
    """Counts of what came of every so-manieth case."""
    folder.chmod(0o755)
    model, whole = make_whole(folder / "whole")
    started = time.monotonic()
    places = folder / "places"
    counts: Counter[str] = Counter()
    wrong: list[dict[str, Any]] = []
    for number, (name, words, fault) in enumerate(cases(places, model)):
        if number % every or time.monotonic() - started > seconds:
            continue
        fresh_copy(whole, places / "run")
        before = contents(places / "run")
        with working_in(places / "run", "another") if name == "locked" else nullcontext():
            tried = attempt(partial(faulty, words, fault))
        (places / "run").chmod(0o755)
        outcome = tried.kind
        after = contents(places / "run")
        if any(Path(entry).name.startswith(".") for entry in after):
            outcome = "left_over"
        elif name == "locked" and outcome == "done":
            outcome = "lock_ignored"
        elif outcome == "refused" and {k: v for k, v in after.items() if "parts" not in k} != {
            k: v for k, v in before.items() if "parts" not in k
        }:
            outcome = "changed_though_refused"
        counts[outcome] += 1
        if outcome not in ("done", "refused"):
            wrong.append({"fault": name, "words": words[:4], "outcome": outcome, "said": tried.said[-300:]})
    return {
        "benchmark": "trust_faults", "cases": sum(counts.values()), "outcomes": dict(sorted(counts.items())),
        "wrong": len(wrong), "first_wrong": wrong[:20], "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


def main() -> None:
    """Print one JSON line of counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="only every so-manieth case")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(faults(Path(folder), options.every, options.seconds)))


if __name__ == "__main__":
    main()
