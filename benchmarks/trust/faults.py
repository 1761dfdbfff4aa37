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
import shutil
import stat
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # what is imported late lies where a user without rights may not look

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.trust.attempts import (
    TUNE,
    attempt,
    fresh_copy,
    make_whole,
    profile_command,
    run_command,
    started_command,
)
from tests.analysis.reproduction.layouts import write_co3d
from vggtkit.core.command_log import LOG
from vggtkit.core.locks import working_in

COMMANDS = {
    "profile": "", "plan": "plan --run {run}", "plan-draw": "plan --draw --run {run}",
    "evaluate": "evaluate --repeats 0 --run {run}", "export": "export --run {run}", "report": "report --run {run}",
    "pareto": "pareto --points 3 --measure 0 --run {run}", "inspect": "inspect camera_head.pose_branch.fc1 --run {run}",
}  # fmt: skip
LATER = {
    "tune": f"{' '.join(TUNE)} --run {{run}}", "kernels": "kernels --seconds 1 --run {run}",
    "reconstruct": "reconstruct --run {run} --out {run}/reconstruction", "forecast": "forecast --images 1 --run {run}",
    "transfer": "audit --transfer {run} {other} --num-scenes 1", "formats": "formats --run {run}",
    "reproduce": "reproduce --on co3d-test:{data} --frames 2 --least-frames 2 --budgets int4_group_128 --num-scenes 1 "
    "--calibration synthetic --rounding nearest --believe --model {model} --run {run}/vggt",
}  # fmt: skip
"""Tried with a few limits; `reproduce` makes a profile of its own."""
IN_STEPS = ("reproduce",)
"""What it has done by then is kept."""
FEW = (0, 1000, 30_000, 150_000, 1_000_000)
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
    "tune --num-scenes 1000000000", "tune --select 0", "tune --select 1000000000", "tune --block-steps -1",
    "tune --steps -1", "tune --steps 99999999999999999999", "tune --batch 0", "tune --rate nan", "tune --rate 1e400",
    "tune --rate -1", "tune --scale-rate inf", "tune --views 1000000000", "tune --weights-for depth=1e308",
    "reconstruct --confidence nan", "reconstruct --confidence 1e400", "reconstruct --confidence -1",
    "reconstruct --chunk -1", "reconstruct --resolution 1000000000", "reconstruct --max-images 0",
    "kernels --seconds 0", "kernels --seconds -1", "kernels --views 1000000000", "kernels --resolution 1000000000",
    "forecast --images 1000000000000000000000", "forecast --images nan", "forecast --images 0", "forecast --images -1",
    "forecast --size 1000000000x1000000000", "forecast --size 0x0", "forecast --size -8x8", "forecast --size 1e9x8",
    "reproduce --frames 1000000000 --on co3d-test:/nowhere", "reproduce --frames x --on co3d-test:/nowhere",
    "reproduce --budgets , --on co3d-test:/nowhere", "plan --max-time nan", "plan --max-time -1",
    "plan --max-time 1e400s", "plan --max-memory -1MB", "plan --max-memory nanGB",
    "plan --max-time 1s --views 1000000000",
    "plan --best-of 1000000000", "plan --best-of -1", "plan --group " + "(" * 3000, "plan --keep-fp " + "[" * 3000,
    "pareto --workers 1000000000", "pareto --workers -1", "pareto --threads 1000000000", "pareto --threads -1",
    "pareto --workers ray://nowhere:1", "view --port 99999999", "view --port -1", "view --confidence nan",
    "report --lang " + "x" * 300, "evaluate --also " + "x" * 300, "evaluate --schemes " + "," * 3000,
    "export --scheme " + "x" * 300, "inspect " + "x" * 5000, "plan --pin " + "[" * 3000 + "=int4_group_128",
)  # fmt: skip

Fault = Callable[[], object]
States = Mapping[str, tuple[int, int, int]]


def words_of(command: str, run: Path, model: Path) -> list[str]:
    """A command on a run."""
    if command == "profile":
        return profile_command(run, model)
    text, beside = {**COMMANDS, **LATER}[command], model.parent
    given = {"{run}": run, "{model}": model, "{other}": beside / "other", "{data}": beside / "co3d"}
    words = text.split()
    for name, path in given.items():  # which may hold a blank
        words = [word.replace(name, str(path)) for word in words]
    return words


def limited(which: int, value: int) -> Fault:
    """A limit of the process."""
    return partial(resource.setrlimit, which, (value, value))


def cases(places: Path, model: Path) -> Iterator[tuple[str, list[str], Fault]]:
    """Name, command line, and what goes wrong beforehand, in the child process."""
    run = places / "run"
    for command in (*COMMANDS, *LATER):
        for limit in LIMITS if command in COMMANDS else FEW:
            yield f"file size {limit}", words_of(command, run, model), limited(resource.RLIMIT_FSIZE, limit)
        for spare in (1, 30 * 10**6, 100 * 10**6):
            yield "memory", words_of(command, run, model), partial(_short_of_memory, spare)
        yield "read-only", words_of(command, run, model), partial(_read_only, run)
    for text in ABSURD:
        words = text.split()
        if words[0] == "profile":
            words = [*profile_command(run, model), *words[1:]]
        elif words[0] in ("reproduce", "view"):
            words += ["--model", str(model)]
        yield "absurd", words if words[0] in ("profile", "view") else [*words, "--run", str(run)], lambda: None
    for name in NAMES:
        named = Path(os.fsdecode(os.fsencode(places) + b"/" + name))
        for command in ("profile", "plan-draw", "export", "evaluate", "reconstruct", "tune"):
            yield "name", words_of(command, named, model), partial(_copied, run, named)
    for command in (*COMMANDS, *(name for name in LATER if name != "formats")):
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


def _place_of(words: list[str], run: Path) -> Path:
    """The folder that a command works in."""
    place = Path(words[words.index("--run") + 1]) if "--run" in words else run
    place.mkdir(exist_ok=True)
    return place


def linked_copy(source: Path, target: Path) -> None:
    """A folder whose files are those of another: what replaces one leaves the source's, what writes into one is seen.

    The log of commands, to which every command adds a line, is left out.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=os.link, ignore=shutil.ignore_patterns(LOG))


def states(run: Path) -> States:
    """Which file stands under every name, when it was last written, and its size; without the log of commands."""
    entries = ((path, path.stat()) for path in sorted(run.rglob("*")) if path.name != LOG)
    return {
        str(path.relative_to(run)): (facts.st_ino, facts.st_mtime_ns, facts.st_size)
        for path, facts in entries
        if stat.S_ISREG(facts.st_mode)
    }


def changed(source: Path, run: Path, before: States, after: States, *, in_steps: bool) -> bool:
    """Whether a file is another, is gone, or is new; steps that are kept are none of these."""
    names = {name for name in (before if in_steps else {**before, **after}) if "parts" not in name}
    differing = [name for name in names if before.get(name) != after.get(name)]
    return any(
        name not in before
        or name not in after
        or before[name][0] == after[name][0]  # written into, in its place
        or (source / name).read_bytes() != (run / name).read_bytes()
        for name in differing
    )


def faulty(words: list[str], fault: Fault) -> tuple[int, str, object]:
    """The command after the fault."""
    fault()
    code, said = run_command(words)
    return code, said, None


def make_others(model: Path) -> None:
    """What some commands need beside the run, where `words_of` looks for it: another profile, and a test set."""
    other = started_command([*profile_command(model.parent / "other", model), "--seed", "5"])
    if other.wait():
        raise RuntimeError(other.said)
    write_co3d(model.parent / "co3d", {"apple": {"a": "test", "b": "train"}}, views=2)


def faults(
    folder: Path, every: int = 1, seconds: float = float("inf"), commands: Sequence[str] = ()
) -> dict[str, object]:
    """Counts of what came of every so-manieth case, or of those of some commands."""
    folder.chmod(0o755)
    model, whole = make_whole(folder / "whole")
    make_others(model)
    started = time.monotonic()
    places, before = folder / "places", states(whole)
    counts: Counter[str] = Counter()
    wrong: list[dict[str, Any]] = []
    for number, (name, words, fault) in enumerate(cases(places, model)):
        command = "plan-draw" if "--draw" in words else words[0]
        if number % every or time.monotonic() - started > seconds or (commands and command not in commands):
            continue
        linked_copy(whole, places / "run")
        with working_in(_place_of(words, places / "run"), "another") if name == "locked" else nullcontext():
            tried = attempt(partial(faulty, words, fault))
        (places / "run").chmod(0o755)
        outcome = tried.kind
        after = states(places / "run")
        if any(Path(entry).name.startswith(".") for entry in after):
            outcome = "left_over"
        elif name == "locked" and outcome == "done":
            outcome = "lock_ignored"
        elif outcome == "refused" and changed(whole, places / "run", before, after, in_steps=words[0] in IN_STEPS):
            outcome = "changed_though_refused"
        counts[outcome] += 1
        if outcome not in ("done", "refused"):
            wrong.append({"fault": name, "words": words[:4], "outcome": outcome, "said": tried.said[-300:]})
    if states(whole) != before:
        wrong.append({"outcome": "a file was written into in its place"})
    return {
        "benchmark": "trust_faults", "cases": sum(counts.values()), "outcomes": dict(sorted(counts.items())),
        "wrong": len(wrong), "first_wrong": wrong[:20], "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


def main() -> None:
    """Print one JSON line of counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="only every so-manieth case")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--commands", nargs="+", default=(), help="only those that begin with one of these words")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(faults(Path(folder), options.every, options.seconds, options.commands)))


if __name__ == "__main__":
    main()
