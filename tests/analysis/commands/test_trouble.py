"""Streams that are closed or full, letters that a terminal has not, names that would command it, signals, locks."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from rich.console import Console

from analysis.commands.screen import explained
from analysis.report.document import Table
from analysis.report.renderers.terminal import rich_table
from cli import main
from tests.analysis.commands.running import RESULTS, assert_refused, cli, content
from vggtkit.core.interrupts import TerminatedError
from vggtkit.core.locks import working_in

ROOT = Path(__file__).resolve().parents[3]


def start(*words: object, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "cli.py", *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | options.pop("env", {})  # type: ignore[operator]
    return subprocess.Popen(  # type: ignore[call-overload]
        command, cwd=ROOT, stderr=-1, text=True, env=environment, preexec_fn=_heed_interrupts, **options
    )  # fmt: skip


def _heed_interrupts() -> None:
    """Tests that run in the background inherit that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_closed_pipe_ends_quietly_and_the_plan_is_there(run: Path) -> None:
    (run / "plan.json").unlink()
    reading, writing = os.pipe()
    os.close(reading)
    process = start("plan", "--run", run, stdout=writing)
    os.close(writing)
    assert (process.communicate()[1], process.returncode) == ("", 141)
    assert (run / "plan.json").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_output_is_one_line(run: Path) -> None:
    with Path("/dev/full").open("w") as full:
        process = start("plan", "--run", run, stdout=full)
        said = process.communicate()[1]
    assert (process.returncode, said.count("\n")) == (2, 1)
    assert said.startswith("error: standard output cannot be written (No space left on device)")


@pytest.mark.slow
def test_a_terminal_without_a_letter_and_a_backend_that_is_none(run: Path) -> None:
    env = {"PYTHONIOENCODING": "ascii", "MPLBACKEND": "nonsense"}
    process = start("plan", "--run", run, "--draw", stdout=-1, env=env)
    out, said = process.communicate()
    assert (process.returncode, said) == (0, "")
    assert out.isascii()
    assert (run / "plan.png").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc on this system")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("moment", ["importing", "computing"])
def test_signals_end_a_command_with_their_code(run: Path, number: signal.Signals, code: int, moment: str) -> None:
    before = content(run)
    process = start("evaluate", "--run", run, "--repeats", 9999, stdout=-1)
    maps = Path(f"/proc/{process.pid}/maps")
    while not ("torch" in maps.read_text() if moment == "importing" else (run / ".lock").exists()):
        time.sleep(0.01)
    time.sleep(0.3 if moment == "computing" else 0)
    process.send_signal(number)
    said = process.communicate()[1]
    assert (process.returncode, "Traceback" in said) == (code, False)
    kept = f"{RESULTS[0]}.parts/"  # what was done by then, for the command that goes on
    assert {name: data for name, data in content(run).items() if not name.startswith(kept)} == before
    if moment == "computing":
        assert said.endswith(f"python cli.py evaluate --run {run} --repeats 9999\n")


def test_the_second_command_on_a_folder_is_refused(run: Path) -> None:
    before = content(run)
    with working_in(run, "profile"):
        for command in ("plan", "evaluate", "export", "report", "pareto"):
            assert_refused(cli(command, "--run", run), f"--run {run}", "another command is at work", "profile, process")
    assert content(run) == before


def test_control_characters_reach_no_terminal(run: Path) -> None:
    hostile = "\x1b[2Jgone\x07\u202e"
    for words in (("inspect", hostile), ("plan", "--pin", f"{hostile}=fp16"), ("plan", "--no", hostile), (hostile,)):
        ran = cli(*words, "--run", run)
        assert ran.code == 2
        assert not {"\x1b", "\x07", "\u202e"} & set(ran.err)
    table = Table(hostile, (hostile,), [(hostile,)], caption=hostile)
    out = io.StringIO()
    Console(file=out).print(rich_table(table))
    assert not {"\x1b", "\x07", "\u202e"} & set(out.getvalue())
    assert r"\x1b[2Jgone\x07\u202e" in out.getvalue()


def test_a_folder_whose_name_is_a_formula_has_its_charts(run: Path) -> None:
    named = run.with_name("$x_1$ \\alpha")
    run.rename(named)
    for words in (("plan", "--draw"), ("inspect", "camera_head.pose_branch.fc1")):
        ran = cli(*words, "--run", named)
        assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("could not create a primitive"), 2),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 2),
        (MemoryError(), 2),
        (PermissionError(13, "Permission denied", "run/plan.json"), 2),
        (TerminatedError(), 143),
        (KeyboardInterrupt(), 130),
        (RuntimeError("shapes differ"), 1),
    ],
    ids=str,
)
def test_exit_codes(error: BaseException, code: int) -> None:
    said, given = explained(error)
    assert (given, said.count("\n")) == (code, 0)


ABSURD = (
    ("profile", "--views", "1000000000"), ("profile", "--num-scenes", "9" * 26),
    ("profile", "--num-scenes", "100000", "--views", "1000"), ("profile", "--resolution", "1000000000"),
    ("plan", "--weights-for", "depth=1e308"), ("pareto", "--points", "1000000000"),
    ("evaluate", "--repeats", "1000000000"), ("audit", "--num-scenes", "1000000000"),
    ("pareto", "--threads", "1000000000"), ("audit", "--workers", "1000000000"),
)  # fmt: skip


@pytest.mark.parametrize("words", ABSURD, ids=" ".join)
def test_absurd_numbers_are_refused_before_anything_is_allocated(
    run: Path, model_folder: Path, words: tuple[str, ...]
) -> None:
    given = ("--model", model_folder) if words[0] == "profile" else ()
    started = time.process_time()
    assert_refused(cli(*words, *given, "--run", run), words[-1] if words[0] != "plan" else "1e308")
    assert time.process_time() - started < 5


def test_json_goes_through_a_stream_that_is_closed(run: Path) -> None:
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        assert main(["plan", "--run", str(run), "--json"]) == 0
    assert json.loads(out.getvalue())["path"] == str(run / "plan.json")


def test_a_signal_that_a_library_turned_into_an_error_is_a_signal(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As drawing does, which then speaks of an invalid bounding box."""

    def drawn(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise ValueError("Invalid bounding box") from None

    monkeypatch.setattr("analysis.steps.inspect.draw_inspection", drawn)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        ran = cli("inspect", "camera_head.pose_branch.fc1", "--run", run)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ran.code == 143
    assert "interrupted" in ran.err
