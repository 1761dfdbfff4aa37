"""Commands that are killed or signalled at seeded moments: nothing is lost, and the next run gives the same numbers.

Method: every command that writes into a run of the tiniest network (but audit, which takes a minute) runs after those
that it needs, in a process of its own; at a seeded moment the process is ended by SIGKILL, SIGTERM or SIGINT. Then the
command runs again, undisturbed. *Lost* is a file that was there before and is not, or cannot be read any more, or a
partial file or lock that stays after the next run; *different* is a score or a result, or a byte of a plan or of a
packed checkpoint, that is not that of a run which nobody disturbed. A signal's exit code must be 143, 130, or, where it
came after the work, 0; -15 in the instant before the command starts.

    python benchmarks/trust/kill.py --kills 100 --signals 50
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.trust.attempts import fresh_copy, make_model, profile_command, run_command, started_command
from mixedprec import load_plan, load_quantized
from sensitivity import open_profile

COMMANDS: dict[str, list[str]] = {
    "profile": [], "plan": ["--draw"], "evaluate": ["--repeats", "0"], "export": [], "report": [],
    "pareto": ["--points", "3", "--measure", "0"], "inspect": ["camera_head.pose_branch.fc1"],
}  # fmt: skip
"""In an order in which each finds what it needs."""
NOT_COMPARED = ("provenance", "facts")
"""Of results: when and how they were made."""
CODES = {signal.SIGKILL: (-9,), signal.SIGTERM: (143, -15), signal.SIGINT: (130,)}


def words_of(command: str, run: Path, model: Path) -> list[str]:
    """The arguments of a command of the run."""
    if command == "profile":
        return profile_command(run, model)
    return [command, *COMMANDS[command], "--run", str(run)]


def answers(run: Path) -> dict[str, object]:
    """What must not differ, of the files that are there.

    Raises:
        InputError: one cannot be read.
    """
    known: dict[str, object] = {}
    if (run / "profile.h5").is_file():
        profile = open_profile(run)
        known["scores"] = {name: value.tolist() for name, value in (profile.damage | profile.uniform).items()}
    if (run / "plan.json").is_file():
        load_plan(run / "plan.json")
        known["plan"] = _sha256(run / "plan.json")
    if (run / "comprehensive_results.json").is_file():
        results = json.loads((run / "comprehensive_results.json").read_text())["results"]
        known["damage"] = [row["damage"] for row in results]
    if (run / "pareto.json").is_file():
        known["pareto"] = _without_times(json.loads((run / "pareto.json").read_text()))
    for path in run.glob("*.png"):
        with Image.open(path) as picture:
            picture.load()
        known[path.name] = "whole"
    if (run / "model-plan.safetensors").is_file():
        load_quantized(run / "model-plan.safetensors")
        known["packed"] = [_sha256(run / f"model-plan.{ending}") for ending in ("safetensors", "json")]
    return known


def _without_times(value: object) -> object:
    if isinstance(value, dict):
        return {
            key: _without_times(inner)
            for key, inner in value.items()
            if key not in NOT_COMPARED and "seconds" not in key
        }
    return [_without_times(inner) for inner in value] if isinstance(value, list) else value


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def disturb(
    command: str, number: signal.Signals, delay: float, run: Path, model: Path, right: dict[str, object]
) -> list[str]:
    """End a command at a moment, run it again; what went wrong."""
    before = set(answers(run))
    process = started_command(words_of(command, run, model))
    time.sleep(delay)
    process.send(number)
    code = process.wait()
    faults = []
    if code not in (0, *CODES[number]):
        faults.append(f"exit code {code}: {process.said[-200:]}")
    if lost := before - set(answers(run)):
        faults.append(f"lost {sorted(lost)}")
    code, said = run_command(words_of(command, run, model))
    if code:
        faults.append(f"again: exit code {code}: {said[-200:]}")
    if left := [entry.name for entry in run.iterdir() if entry.name.startswith(".")]:
        faults.append(f"left {left}")
    after = answers(run)
    if different := [name for name, value in after.items() if value != right[name]]:
        faults.append(f"different {different}")
    return faults


def kill(
    kills: int,
    signals: int,
    seed: int,
    folder: Path,
    seconds: float = float("inf"),
    commands: Sequence[str] = tuple(COMMANDS),
) -> dict[str, object]:
    """Counts of what so many kills and signals did."""
    model = make_model(folder / "model")
    durations, stages = {}, {}
    place = folder / "case"  # files name the command that made them, and so this folder
    for command in commands:
        stages[command] = fresh_copy(place, folder / f"before-{command}") if place.is_dir() else None
        begun = time.monotonic()
        process = started_command(words_of(command, place, model))
        if process.wait():
            raise RuntimeError(process.said)
        durations[command] = time.monotonic() - begun
    right = answers(place)
    whole = fresh_copy(place, folder / "whole")
    started = time.monotonic()
    generator = np.random.default_rng(seed)
    ends = [signal.SIGKILL] * kills + [signal.SIGTERM, signal.SIGINT] * ((signals + 1) // 2)
    counts: Counter[str] = Counter()
    by_command: Counter[str] = Counter()
    faults: list[dict[str, object]] = []
    for case in generator.permutation(len(ends)):
        if time.monotonic() - started > seconds:
            break
        number, command = ends[case], str(generator.choice(commands))
        delay = float(generator.uniform(0, durations[command]))
        # Half of the time the files of an earlier run are there, and must survive.
        source = whole if generator.random() < 0.5 else stages[command]
        fresh_copy(source or folder / "model", place)
        if source is None:
            [entry.unlink() for entry in place.iterdir()]
        wrong = disturb(command, number, delay, place, model, right)
        by_command[command] += 1
        counts["kills" if number == signal.SIGKILL else "signals"] += 1
        counts["lost"] += any(fault.startswith(("lost", "left", "again")) for fault in wrong)
        counts["different"] += any(fault.startswith("different") for fault in wrong)
        counts["other_exit_code"] += any(fault.startswith("exit code") for fault in wrong)
        if wrong:
            faults.append({"command": command, "signal": number.name, "delay": round(delay, 3), "faults": wrong})
    names = ("kills", "signals", "lost", "different", "other_exit_code")
    return {
        "benchmark": "trust_kill", "seed": seed, **{name: counts[name] for name in names},
        "by_command": dict(sorted(by_command.items())), "first_faults": faults[:20],
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


def main() -> None:
    """Print one JSON line of counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--signals", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(kill(options.kills, options.signals, options.seed, Path(folder), options.seconds)))


if __name__ == "__main__":
    main()
