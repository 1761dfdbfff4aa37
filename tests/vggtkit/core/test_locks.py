"""One command at a time in a run folder, and a lock that dies with its holder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vggtkit.core.errors import InputError
from vggtkit.core.locks import LOCK, working_in

HOLD = """
import sys, time
from pathlib import Path
from vggtkit.core.locks import working_in
with working_in(Path(sys.argv[1]), "profile"):
    print("held", flush=True)
    time.sleep(60)
"""
ROOT = Path(__file__).resolve().parents[3]


def hold(run: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(run)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_refused_at_once_and_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    process = hold(tmp_path)
    try:
        with pytest.raises(InputError, match=rf"profile, process {process.pid}\)"), working_in(tmp_path, "plan"):
            raise AssertionError("never reached")
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert (tmp_path / LOCK).exists()
    with working_in(tmp_path, "plan"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "victim")
    with working_in(tmp_path / "run", "plan"):
        pass
    assert (tmp_path / "victim").read_text() == "mine"


def test_partial_files_of_the_dead_are_removed_and_those_of_the_living_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for process in (dead.pid, os.getppid()):
        (tmp_path / f".profile.h5.{process}-0123abcd.partial").touch()
    (tmp_path / ".mine.partial").touch()
    with working_in(tmp_path, "plan"):
        pass
    names = {entry.name for entry in tmp_path.iterdir()}
    assert names == {f".profile.h5.{os.getppid()}-0123abcd.partial", ".mine.partial"}


def test_a_folder_that_holds_something_stays(tmp_path: Path) -> None:
    with working_in(tmp_path / "a" / "run", "plan"):
        (tmp_path / "a" / "run" / "plan.json").touch()
    assert [entry.name for entry in (tmp_path / "a" / "run").iterdir()] == ["plan.json"]
