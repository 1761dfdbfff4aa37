"""Work shared among processes: all of it, the same bits as here, again when one is lost, and none left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.vggtkit.core.executors.works import Endless, Fails, Killed, Sees, Sevens, Sums, is_alive, wait_until
from vggtkit.core import plugins
from vggtkit.core.errors import InputError
from vggtkit.core.executors import in_order, processes
from vggtkit.core.executors.local import Local
from vggtkit.core.executors.processes import Processes
from vggtkit.quant import FORMATS

ROOT = Path(__file__).resolve().parents[4]


def test_two_processes_give_the_bits_of_one() -> None:
    pieces = list(range(7))
    here, shared = (in_order(executor, Sums(), pieces) for executor in (Local(1), Processes(2)))
    assert [result[0] for result in shared] == [result[0] for result in here]
    assert [result[0] for result in here] != sorted({result[0] for result in here})[:1] * 7
    assert os.getpid() not in {result[1] for result in shared}
    assert {result[1] for result in here} == {os.getpid()}
    assert {result[2] for result in (*here, *shared)} == {1}


def test_nothing_to_do_starts_nothing() -> None:
    assert in_order(Processes(2), Sums(), []) == in_order(Local(1), Sums(), []) == []


@pytest.mark.slow
def test_what_a_piece_raises_is_raised_and_ends_the_others() -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match="the picture is NaN: give another"):
        in_order(Processes(2), Fails(), [0, 1])
    assert time.monotonic() - start < 50


def test_pieces_of_a_lost_process_are_done_again(tmp_path: Path) -> None:
    assert in_order(Processes(1), Killed(tmp_path, times=1), [0, 1, 2]) == [0, 1, 4]


def test_a_piece_that_kills_time_after_time_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "ATTEMPTS", 2)
    with pytest.raises(InputError, match=r"died 2 times in a row.*workers"):
        in_order(Processes(1), Killed(tmp_path, times=99), [0, 1, 2])
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_every_process_sees_a_gpu_of_its_own(tmp_path: Path) -> None:
    assert sorted(in_order(Processes(2, gpus=True), Sees(tmp_path), [0, 1])) == ["0", "1"]


def test_work_that_cannot_be_sent_is_told() -> None:
    work = Sums()
    object.__setattr__(work, "size", lambda: 3)
    with pytest.raises(InputError, match="cannot be sent to workers"):
        in_order(Processes(2), work, [0])


def test_no_process_outlives_the_first(tmp_path: Path) -> None:
    main = tmp_path / "main.py"
    main.write_text(
        "from pathlib import Path\n"
        "from vggtkit.core.executors import in_order\n"
        "from vggtkit.core.executors.processes import Processes\n"
        "from tests.vggtkit.core.executors.works import Endless\n"
        f"if __name__ == '__main__': in_order(Processes(2), Endless(Path({str(tmp_path)!r}), after=0), [0, 1])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen([sys.executable, str(main)], env=environment, stderr=subprocess.DEVNULL) as first:
        wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2, "two processes")
        first.kill()
    numbers = [int(path.stem) for path in tmp_path.glob("*.pid")]
    wait_until(lambda: not any(is_alive(number) for number in numbers), "no process")


@pytest.mark.slow
def test_other_processes_know_what_plugins_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are started afresh, so they load the same files."""
    plugin = tmp_path / "sevens.py"
    line = "register(Format('int7_group_64', 'INT7', 7, 'group', symmetric=True, group_size=64))"
    plugin.write_text(f"from vggtkit.quant import Format, register\n{line}\n")
    monkeypatch.setattr(plugins, "_loaded", {})
    monkeypatch.setattr(FORMATS, "_values", dict(FORMATS))
    plugins.load_plugins([str(plugin)])
    assert in_order(Processes(2), Sevens(), [0, 1]) == [["int7_group_64"]] * 2


def test_endless_work_ends_with_who_stops_asking(tmp_path: Path) -> None:
    results = Processes(1).run(Endless(tmp_path, after=1), [0, 1])
    assert next(results).value is None
    results.close()
    with pytest.raises(StopIteration):
        next(results)
