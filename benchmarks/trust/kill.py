"""Commands that are killed or signalled at seeded moments: nothing is lost, and the next run gives the same numbers.

Method: every command on a run of the tiniest network runs after those that it needs, in a process of its own: a copy of
this one, which has imported everything, or every eighth time an interpreter that imports it first. At a seeded moment
the process is ended by SIGKILL, SIGTERM or SIGINT. Then the command runs again, undisturbed, or another one where it
was done in time and is not done twice. *Lost* is a file that was there before and is not, or cannot be read any more,
or a partial file or lock that stays after the next run; *different* is a score or a result, or a byte of a plan or of a
packed checkpoint, that is not that of a run which nobody disturbed (of a tuned one a weight: its plan says how long it
took). A signal's exit code must be 143, 130, or, where it came after the work (of `view`, which ends by it), 0; -15 in
the instant before the command starts. Commands that take long come less often.

    python benchmarks/trust/kill.py --kills 100 --signals 50
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.trust.attempts import (
    TUNE,
    Started,
    fresh_command,
    fresh_copy,
    make_model,
    profile_command,
    run_command,
    started_command,
)
from mixedprec import load_plan, load_quantized
from sensitivity import open_profile
from tests.analysis.reproduction.layouts import write_co3d
from vggtkit.core.errors import InputError
from vggtkit.runtime.kernel_table import load_table

COMMANDS = {
    "profile": "", "plan": "plan --draw --run {run}", "evaluate": "evaluate --repeats 0 --run {run}",
    "export": "export --run {run}", "report": "report --run {run}",
    "pareto": "pareto --points 3 --measure 0 --run {run}", "inspect": "inspect camera_head.pose_branch.fc1 --run {run}",
    "kernels": "kernels --seconds 1 --run {run}", "forecast": "forecast --images 1 --run {run}",
    "formats": "formats --run {run}", "tune": f"{' '.join(TUNE)} --run {{run}}/tuned",
    "reconstruct": "reconstruct --run {run} --out {run}/reconstruction --against fp32",
    "transfer": "audit --transfer {run} {other} --num-scenes 1", "audit": "audit --num-scenes 1 --run {run}",
    "reproduce": "reproduce --on co3d-test:{data} --frames 2 --least-frames 2 --budgets int4_group_128 --num-scenes 1 "
    "--calibration synthetic --rounding nearest --believe --model {model} --run {run}/vggt",
    "view": "view --model {model}",
}  # fmt: skip
"""In an order in which each finds what it needs."""
SELDOM = {"profile": 0.5, "evaluate": 0.5, "audit": 0.1, "reproduce": 0.5, "transfer": 0.5}
ONCE = {"tune": "tuned"}
"""What is there when it is done: doing it again is another tuning."""
AFTER_ONCE = "forecast --images 1 --run {run}/tuned"
"""The next run where it was done before it was killed: of another command, which takes the dead one's lock away."""
ENDLESS = {"view": 3.0}
"""Seconds after which one that does not end by itself has begun to wait."""
EVERY_FRESH = 8
"""Of so many commands one is started in an interpreter that has imported nothing yet."""
NOT_COMPARED = ("provenance", "facts", "digest")
"""Of results: when and how they were made."""
CODES = {signal.SIGKILL: (-9,), signal.SIGTERM: (143, -15), signal.SIGINT: (130,)}
PROFILE = ["profile", "--num-scenes", "1", "--views", "1", "--probes", "1", "--seed", "5"]


def words_of(command: str, run: Path, model: Path, *, is_done: bool = False) -> list[str]:
    """The arguments of a command of the run, or of what follows one that was done and is not done twice."""
    if command == "profile":
        return profile_command(run, model)
    beside, text = run.parent, AFTER_ONCE if is_done else COMMANDS[command]
    return text.format(run=run, model=model, other=beside / "other", data=beside / "co3d").split()


def answers(run: Path) -> dict[str, object]:
    """What must not differ, of the files that are there.

    Raises:
        InputError: one cannot be read.
    """
    known: dict[str, object] = {}
    if (run / "tuned" / "plan.json").is_file():
        known |= _answers_of_tuned(run / "tuned")
    if (run / "reconstruction").is_dir():
        with np.load(run / "reconstruction" / "views.npz") as views:
            known["reconstruction"] = [views["depth"].tolist(), _sha256(run / "reconstruction" / "points.ply")]
    if (run / "kernels.json").is_file():
        known["kernels"] = load_table(run / "kernels.json").model
    if (run / "report.html").is_file():
        known["report"] = (run / "report.html").read_text().rstrip().endswith("</html>")
    for name in ("pareto", "transfer", "vggt/reproduction", "score_audit"):
        if (run / f"{name}.json").is_file():
            known[name] = _without_times(json.loads((run / f"{name}.json").read_text()))
    if (run / "profile.h5").is_file():
        profile = open_profile(run)
        known["scores"] = {
            name: value.tolist() for known_to in (profile.damage, profile.uniform) for name, value in known_to.items()
        }
    if (run / "plan.json").is_file():
        load_plan(run / "plan.json")
        known["plan"] = _sha256(run / "plan.json")
    if (run / "comprehensive_results.json").is_file():
        results = json.loads((run / "comprehensive_results.json").read_text())["results"]
        known["damage"] = [row["damage"] for row in results]
    for path in run.glob("*.png"):
        with Image.open(path) as picture:
            picture.load()
        known[path.name] = "whole"
    if (run / "model-plan.safetensors").is_file():
        load_quantized(run / "model-plan.safetensors")
        known["packed"] = [_sha256(run / f"model-plan.{ending}") for ending in ("safetensors", "json")]
    return known


def _answers_of_tuned(run: Path) -> dict[str, object]:
    """What was tuned, once it was."""
    plan = load_plan(run / "plan.json")
    if not plan.tuned:
        return {"plan to be tuned": plan.formats}
    weights = load_quantized(run / "model-plan.safetensors").state_dict()
    sha256 = hashlib.sha256()
    for name, value in sorted(weights.items()):
        sha256.update(name.encode() + value.numpy().tobytes())
    return {"plan to be tuned": plan.formats, "tuned": [plan.tuned["damage_after"], sha256.hexdigest()]}


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


@dataclass(frozen=True)
class Ground:
    """What commands are ended on.

    Attributes:
        model: of the run.
        place: the run; files name the command that made them, and so this folder.
        stages: the run as it is before a command, by command; None: nothing is there.
        whole: the run after all of them.
        durations: of the commands, in seconds.
        importing: what a new interpreter needs before, in seconds.
        right: what all commands have made.
    """

    model: Path
    place: Path
    stages: Mapping[str, Path | None]
    whole: Path
    durations: Mapping[str, float]
    importing: float
    right: Mapping[str, object]


def _prepared(folder: Path, commands: Sequence[str]) -> Ground:
    """All commands run once, one after the other."""
    model = make_model(folder / "model")
    durations: dict[str, float] = {}
    stages: dict[str, Path | None] = {}
    if "transfer" in commands:
        run_command([*PROFILE, "--model", str(model), "--run", str(folder / "other")])
    if "reproduce" in commands:
        write_co3d(folder / "co3d", {"apple": {"a": "test", "b": "train"}}, views=2)
    place = folder / "case"
    for command in commands:
        if command == "tune":
            _plan_to_be_tuned(place)
        stages[command] = fresh_copy(place, folder / f"before-{command}") if place.is_dir() else None
        if command not in ENDLESS:
            durations[command] = _seconds_of(started_command(words_of(command, place, model)))
    importing = _seconds_of(fresh_command(["--help"]))
    whole = fresh_copy(place, folder / "whole")
    return Ground(model, place, stages, whole, ENDLESS | durations, importing, answers(place))


def _seconds_of(process: Started) -> float:
    begun = time.monotonic()
    if process.wait():
        raise RuntimeError(process.said)
    return time.monotonic() - begun


def disturb(
    ground: Ground, command: str, number: signal.Signals, delay: float, *, is_fresh: bool, is_whole: bool
) -> list[str]:
    """End a command at a moment, run it again; what went wrong.

    Args:
        ground: what it runs on.
        command: its name.
        number: what ends it.
        delay: seconds after it began.
        is_fresh: in a new interpreter.
        is_whole: on a run where it has run before.
    """
    run, words = ground.place, words_of(command, ground.place, ground.model)
    source = ground.whole if is_whole else ground.stages[command]
    shutil.rmtree(run)
    run.mkdir() if source is None else fresh_copy(source, run)
    before = set(answers(run))
    process = (fresh_command if is_fresh else started_command)(words)
    time.sleep(delay)
    process.send(number)
    code = process.wait()
    faults = []
    if code not in (0, *CODES[number]):
        faults.append(f"exit code {code}: {process.said[-2000:]}")
    if "Traceback" in process.said:
        faults.append(f"exit code {code} and a traceback: {process.said[-2000:]}")
    try:
        there = answers(run)
        if lost := before - set(there):
            faults.append(f"lost {sorted(lost)}")
        if command not in ENDLESS:
            following = words_of(command, run, ground.model, is_done=ONCE.get(command) in there)
            again = started_command(following)  # not here: its threads would be in no copy
            if code := again.wait():
                faults.append(f"again: exit code {code}: {again.said[-2000:]}")
        after = answers(run)
    except (InputError, OSError, ValueError) as error:
        return [*faults, f"lost, unreadable: {error}"]
    if left := [entry.name for entry in run.rglob("*") if entry.name.startswith(".")]:
        faults.append(f"left {left}")
    if different := [name for name, value in after.items() if value != ground.right[name]]:
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
    # A job in the background is born deaf to it, and so are its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ground = _prepared(folder, commands)
    started = time.monotonic()
    generator = np.random.default_rng(seed)
    ends = [signal.SIGKILL] * kills + [signal.SIGTERM, signal.SIGINT] * ((signals + 1) // 2)
    shares = np.array([SELDOM.get(command, 1.0) for command in commands])
    counts: Counter[str] = Counter()
    by_command: Counter[str] = Counter()
    faults: list[dict[str, object]] = []
    for turn, case in enumerate(generator.permutation(len(ends))):
        if time.monotonic() - started > seconds:
            break
        number, command = ends[case], str(generator.choice(commands, p=shares / shares.sum()))
        is_fresh = turn % EVERY_FRESH == 0
        delay = float(generator.uniform(0, ground.durations[command] + is_fresh * ground.importing))
        # Half of the time the files of an earlier run are there, and must survive.
        is_whole = generator.random() < 0.5 and command not in ONCE
        wrong = disturb(ground, command, number, delay, is_fresh=is_fresh, is_whole=is_whole)
        by_command[command] += 1
        counts["kills" if number == signal.SIGKILL else "signals"] += 1
        counts["fresh_interpreters"] += is_fresh
        counts["lost"] += any(fault.startswith(("lost", "left", "again")) for fault in wrong)
        counts["different"] += any(fault.startswith("different") for fault in wrong)
        counts["other_exit_code"] += any(fault.startswith("exit code") for fault in wrong)
        if wrong:
            faults.append({"command": command, "signal": number.name, "delay": round(delay, 3), "faults": wrong})
    names = ("kills", "signals", "fresh_interpreters", "lost", "different", "other_exit_code")
    return {
        "benchmark": "trust_kill", "seed": seed, **{name: counts[name] for name in names},
        "by_command": dict(sorted(by_command.items())), "first_faults": faults[:20],
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


def _plan_to_be_tuned(run: Path) -> None:
    """A run of its own in the folder of the run, which tuning changes for good."""
    (run / "tuned").mkdir()
    shutil.copy2(run / "profile.h5", run / "tuned")
    code, said = run_command(["plan", "--heads", "camera", "--run", str(run / "tuned")])
    if code:
        raise RuntimeError(said)


def main() -> None:
    """Print one JSON line of counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--signals", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    most = [command for command in COMMANDS if command != "audit"]
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=most, help="by default all but audit")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(
            json.dumps(
                kill(options.kills, options.signals, options.seed, Path(folder), options.seconds, options.commands)
            )
        )


if __name__ == "__main__":
    main()
