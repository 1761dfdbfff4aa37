"""A finished run of the tiniest network, and commands tried on it in child processes under a time limit.

A child is a copy of this process, which has imported what commands import late, so that a case costs its work and not
half a second of imports; `fresh_command` starts one that imports everything itself, as a user's shell does.
"""

from __future__ import annotations

import faulthandler
import io
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401
import scipy.optimize
import scipy.sparse.linalg
import scipy.stats  # noqa: F401
import torch
from safetensors.torch import save_file

from cli import main
from vggtkit.core.journal import Parts
from vggtkit.model.config import VGGTConfig
from vggtkit.model.vggt import VGGT

SECONDS = 30
CONFIG = VGGTConfig(
    img_size=32, patch_size=8, embed_dim=32, num_heads=2, vit_depth=1, vit_num_heads=2, aggregator_depth=1,
    camera_trunk_depth=1, camera_num_heads=2, dpt_features=8, dpt_out_channels=(8, 8, 8, 8),
    dpt_layer_idx=(0, 0, 0, 0), track_features=8, track_hidden_size=16, track_corr_levels=2, track_corr_radius=1,
    track_iters=1, track_depth=1, track_num_heads=2, track_virtual_tracks=2, heads=("camera", "depth"),
)  # fmt: skip


@dataclass(frozen=True)
class Attempt:
    """How a child process ended: its exit code, None where it had to be ended, and what it said."""

    code: int | None
    said: str
    answer: object = None

    @property
    def kind(self) -> str:
        """What it counts as; ``"done"`` is still to be compared with the right answer."""
        if self.code is None:
            return "hang"
        if "Traceback" in self.said:
            return "traceback"
        if self.code == 2:
            return "refused" if self.said.count("error: ") == 1 else "refused_in_other_words"
        return {0: "done", 1: "exit_code_1"}.get(self.code, "crash")


def profile_command(run: Path, model: Path) -> list[str]:
    """The profile of the finished run."""
    return [
        "profile", "--model", str(model), "--num-scenes", "1", "--views", "1", "--probes", "1", "--run", str(run)
    ]  # fmt: skip


def make_model(folder: Path) -> Path:
    """The tiniest network, every parameter random."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    state = VGGT(CONFIG).state_dict()
    save_file(
        {name: v.mean().round() + 0.1 * torch.randn(v.shape, generator=generator) for name, v in state.items()},
        folder / "model.safetensors",
    )
    (folder / "config.json").write_text(CONFIG.to_json())
    return folder


TUNE = ["tune", "--num-scenes", "3", "--select", "1", "--views", "1", "--block-steps", "1", "--steps", "1"]


def make_run(run: Path, model: Path) -> Path:
    """Profile, plan, evaluation (the steps of both stay), and packed checkpoint."""
    return _made(run, model, ["plan"], ["evaluate", "--repeats", "0"], ["export"])


def make_tuned_run(run: Path, model: Path) -> Path:
    """Profile, plan, its tuned checkpoint and the steps of that; ``plan.json.before`` is the plan as it was untuned."""
    _made(run, model, ["plan", "--heads", "camera"])
    shutil.copy2(run / "plan.json", run / "plan.json.before")
    return _made(run, None, TUNE)


def _made(run: Path, model: Path | None, *words: list[str]) -> Path:
    with mock.patch.object(Parts, "remove", lambda _parts: None):
        commands = [] if model is None else [profile_command(run, model)]
        commands += [[*each, "--run", str(run)] for each in words]
        for command in commands:
            code, said = run_command(command)
            if code:
                raise RuntimeError(f"{command}: {said}")
    return run


def make_whole(folder: Path) -> tuple[Path, Path]:
    """The network and its finished run, in folders of these names; what is there already stays."""
    model, run = folder / "model", folder / "run"
    if not run.is_dir():
        make_run(run, make_model(model))
    return model, run


def run_command(words: list[str]) -> tuple[int, str]:
    """A command in this process; its exit code and what it said. Files say that they were made by it."""
    named = mock.patch.object(sys, "argv", ["cli.py", *words])
    with named, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as errors:
        code = main(words)
    return code, errors.getvalue()


Task = Callable[[], tuple[int, str, object]]
"""Gives an exit code, messages and an answer."""


def attempt(task: Task, seconds: int = SECONDS) -> Attempt:
    """Run a task in a copy of this process."""
    return attempt_each([task], seconds)[0]


def attempt_each(tasks: Sequence[Task], seconds: int = SECONDS) -> list[Attempt]:
    """Run tasks one after the other in a copy of this process; what comes after one that ends it, in another."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _answer(tasks, writing, seconds)
    os.close(writing)
    deadline, content = time.monotonic() + 40 * seconds * len(tasks), b""  # a machine may be busy, or stopped
    os.set_blocking(reading, False)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        try:
            while piece := os.read(reading, 1 << 20):
                content += piece
        except BlockingIOError:
            pass
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            status = signal.SIGXCPU
            break
        time.sleep(0.002)
    os.close(reading)
    tried = list(_attempts(io.BytesIO(content)))
    if len(tried) < len(tasks):
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        said = f"signal {number}" if number else "no answer"
        tried.append(Attempt(None if number == signal.SIGXCPU else -(number or 1), said))
    return tried + (attempt_each(tasks[len(tried) :], seconds) if len(tried) < len(tasks) else [])


def _attempts(content: io.BytesIO) -> Iterator[Attempt]:
    """What was written whole."""
    with suppress(EOFError, pickle.UnpicklingError):
        while True:
            yield Attempt(*pickle.load(content))


def _answer(tasks: Sequence[Task], writing: int, seconds: int) -> None:
    faulthandler.enable(file=2)  # where a library crashes is worth knowing
    with os.fdopen(writing, "wb") as pipe:
        for task in tasks:
            try:
                resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds, resource.RLIM_INFINITY))
                result = task()
            except BaseException:
                result = (1, traceback.format_exc(), None)
            pipe.write(pickle.dumps(result))
            pipe.flush()
    os._exit(0)


def fresh_copy(source: Path, target: Path) -> Path:
    """A folder as it was at first."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target))


class Started:
    """A command that runs, and what it says."""

    def __init__(self, child: int, output: Path) -> None:
        self.child, self.output, self.said = child, output, ""

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        os.kill(self.child, number)  # not yet waited for, so the number is still its own

    def wait(self) -> int:
        """Its exit code, negative for the signal that ended it."""
        _, status = os.waitpid(self.child, 0)
        self.said = self.output.read_text(errors="replace")
        self.output.unlink()
        return os.waitstatus_to_exitcode(status)


def started_command(words: list[str]) -> Started:
    """Start a command in a copy of this process, so that signals meet its work."""
    sys.stdout.flush()
    descriptor, name = tempfile.mkstemp()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.dup2(descriptor, 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            faulthandler.enable(file=2)
            sys.argv = ["cli.py", *words]
            code = main(words)
            sys.stderr.flush()
        except KeyboardInterrupt:  # before or after the command's own handling
            code = 130
        finally:
            os._exit(code)
    os.close(descriptor)
    return Started(child, Path(name))


def fresh_command(words: list[str]) -> Started:
    """Start a command as a shell does, so that signals meet its imports; it has begun to hear them."""
    descriptor, name = tempfile.mkstemp()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(descriptor, 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.chdir(Path(__file__).resolve().parents[2])
            os.execv(sys.executable, [sys.executable, "-X", "faulthandler", "cli.py", *words])
        finally:
            os._exit(1)
    os.close(descriptor)
    while not _hears(child, signal.SIGTERM):
        time.sleep(0.002)
    return Started(child, Path(name))


def _hears(child: int, number: signal.Signals) -> bool:
    """Whether a process handles a signal, or has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{child}/status").read_text().splitlines():
            if line.startswith("State:") and "Z" in line:
                return True
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return True
