"""A disk that is really full, in every command: one line, exit code 2, the old files, and no partial ones.

Method: a finished run of the tiniest network lies on a file system in memory, on which so many bytes are free; a
command runs in a child process. *Right* is exit code 0, or 2 with one line and all files as they were (steps of
unfinished work may be added); a partial file must not stay. `faults.py` limits the size of files in its place, where
nobody may mount; this needs root, and is best run where nobody else sees what it mounts:

    unshare --mount python benchmarks/trust/full_disk.py
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.trust.attempts import attempt, make_whole
from benchmarks.trust.faults import COMMANDS, IN_STEPS, LATER, changed, faulty, make_others, states, words_of

SPARE = (0, 8_000, 60_000, 400_000)
"""Bytes that are free."""


@contextmanager
def nearly_full(place: Path, whole: Path, spare: int) -> Iterator[Path]:
    """A copy of a run on a disk of its own with so many bytes left, at least."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256M", "tmpfs", place], check=True)
    try:
        run = Path(shutil.copytree(whole, place / "run"))
        state = os.statvfs(place)
        with (place / "ballast").open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, state.f_bavail * state.f_frsize - spare)
        yield run
    finally:
        subprocess.run(["umount", place], check=True)


def full_disks(folder: Path, seconds: float = float("inf")) -> dict[str, object]:
    """Counts of what came of every command and every rest of space."""
    model, whole = make_whole(folder / "whole")
    make_others(model)
    started = time.monotonic()
    counts: Counter[str] = Counter()
    wrong: list[dict[str, object]] = []
    for command, spare in ((command, spare) for spare in SPARE for command in (*COMMANDS, *LATER)):
        if time.monotonic() - started > seconds:
            break
        with nearly_full(folder / "disk", whole, spare) as run:
            before = states(run)
            words = words_of(command, run, model)
            tried = attempt(partial(faulty, words, lambda: None))
            outcome, after = tried.kind, states(run)
            is_changed = changed(whole, run, before, after, in_steps=command in IN_STEPS)
        if any(Path(entry).name.startswith(".") for entry in after):
            outcome = "left_over"
        elif outcome == "refused" and is_changed:
            outcome = "changed_though_refused"
        counts[outcome] += 1
        if outcome not in ("done", "refused"):
            wrong.append({"command": command, "spare": spare, "outcome": outcome, "said": tried.said[-300:]})
    return {
        "benchmark": "trust_full_disk", "cases": sum(counts.values()), "outcomes": dict(sorted(counts.items())),
        "wrong": len(wrong), "first_wrong": wrong[:20], "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


def main() -> None:
    """Print one JSON line of counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(full_disks(Path(folder), options.seconds)))


if __name__ == "__main__":
    main()
