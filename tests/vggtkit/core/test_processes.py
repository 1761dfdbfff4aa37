"""Work shared among processes: all of it, in order, and none left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from vggtkit.core import plugins
from vggtkit.core.errors import InputError
from vggtkit.core.processes import AT_MOST, in_processes, processes_for
from vggtkit.quant import FORMATS

ROOT = Path(__file__).resolve().parents[3]


def squares(items: list[int], share: slice, step: Callable[[], None]) -> tuple[list[int], int, int]:
    found = []
    for item in items[share]:
        found.append(item * item)
        step()
    return found, os.getpid(), torch.get_num_threads()


def fails(share: slice, _step: Callable[[], None]) -> None:
    if share.start == 1:
        raise InputError("the picture is NaN: give another")
    time.sleep(60)


def is_killed(share: slice, _step: Callable[[], None]) -> None:
    if share.start == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def tells_its_process(folder: Path, _share: slice, step: Callable[[], None]) -> None:
    (folder / f"{os.getpid()}.pid").touch()
    while True:
        time.sleep(0.05)
        step()


def test_every_item_is_done_once_in_another_process() -> None:
    steps: list[int] = []
    results = in_processes(partial(squares, list(range(7))), 2, lambda: steps.append(1))
    assert [result[0] for result in results] == [[0, 4, 16, 36], [1, 9, 25]]
    assert len({os.getpid(), *(result[1] for result in results)}) == 3
    assert [result[2] for result in results] == [1, 1]
    assert len(steps) == 7


def test_one_share_is_done_here() -> None:
    assert in_processes(partial(squares, [1, 2, 3]), 1)[0][:2] == ([1, 4, 9], os.getpid())


def test_what_a_process_raises_is_raised_and_ends_the_others() -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match="the picture is NaN: give another"):
        in_processes(fails, 2)
    assert time.monotonic() - start < 50


def test_a_killed_process_is_told_with_the_way_out() -> None:
    with pytest.raises(InputError, match=r"one of 2 measuring processes died \(signal 9\).*OMP_NUM_THREADS=1"):
        in_processes(is_killed, 2)


def test_no_process_outlives_the_first(tmp_path: Path) -> None:
    program = (
        "from functools import partial; from pathlib import Path\n"
        "from vggtkit.core.processes import in_processes\n"
        "from tests.vggtkit.core.test_processes import tells_its_process\n"
        f"if __name__ == '__main__': in_processes(partial(tells_its_process, Path({str(tmp_path)!r})), 2)\n"
    )
    main = tmp_path / "main.py"
    main.write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, str(main)], env=environment, stderr=subprocess.DEVNULL) as first:
        wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2, "two processes")
        first.kill()
    numbers = [int(path.stem) for path in tmp_path.glob("*.pid")]
    wait_until(lambda: not any(is_alive(number) for number in numbers), "no process")


def wait_until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    """Zombies, which nobody waits for in some containers, are not."""
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (6, 6), (99, AT_MOST)])
def test_as_many_as_cores_and_memory(cores: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    monkeypatch.setattr("vggtkit.core.processes.resident_bytes", lambda: 10**9)
    monkeypatch.setattr("vggtkit.core.processes.free_bytes", lambda _device: 20 * 10**9)
    assert processes_for(nn.Linear(2, 2), 10**9) == expected
    assert processes_for(nn.Linear(2, 2), 9 * 10**9) == min(cores, 2)
    assert processes_for(nn.Linear(2, 2), 90 * 10**9) == 1
    with torch.device("meta"):
        assert processes_for(nn.Linear(20000, 20000), 1) == 1


def registered_formats(share: slice, step: Callable[[], None]) -> list[str]:  # noqa: ARG001
    return [key for key in FORMATS if key.startswith("int7_")]


def test_other_processes_know_what_plugins_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are started afresh, so they load the same files."""
    plugin = tmp_path / "sevens.py"
    line = "register(Format('int7_group_64', 'INT7', 7, 'group', symmetric=True, group_size=64))"
    plugin.write_text(f"from vggtkit.quant import Format, register\n{line}\n")
    monkeypatch.setattr(plugins, "_loaded", {})
    monkeypatch.setattr(FORMATS, "_values", dict(FORMATS))
    plugins.load_plugins([str(plugin)])
    assert in_processes(registered_formats, 2) == [["int7_group_64"]] * 2
