"""From what a user says to workers, and how many there is room for."""

import pytest
import torch
from torch import nn

from vggtkit.core.errors import InputError
from vggtkit.core.executors import Demand, Workers, parse_workers, workers_for
from vggtkit.core.executors.choosing import AT_MOST
from vggtkit.core.executors.local import Local
from vggtkit.core.executors.processes import Processes

CHOOSING = "vggtkit.core.executors.choosing"


@pytest.fixture
def twenty_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{CHOOSING}.free_bytes", lambda _device: 20 * 10**9)


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (6, 6), (99, AT_MOST)])
@pytest.mark.usefixtures("twenty_gigabytes")
def test_as_many_as_cores_and_memory_where_nobody_asked(
    cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)

    def count(gigabytes: int) -> int:
        return max(1, workers_for(nn.Linear(2, 2), Demand(gigabytes * 10**9)).count)

    assert count(2) == expected
    assert count(10) == min(cores, 2)
    assert count(90) == 1
    with torch.device("meta"):
        assert workers_for(nn.Linear(20000, 20000), Demand(1)) == Workers()


@pytest.mark.usefixtures("twenty_gigabytes", "spoken_in_options")
def test_no_more_processes_than_memory_holds() -> None:
    fitting = parse_workers("4").executor(Demand(5 * 10**9))
    assert isinstance(fitting, Processes)
    assert (fitting.workers, fitting.threads) == (4, 1)
    with pytest.raises(InputError, match=r"--workers 5: each takes 5.0 GB of memory, there is room for 4: give 4"):
        parse_workers("5").executor(Demand(5 * 10**9))


def test_one_worker_has_as_many_threads_as_one_of_several() -> None:
    alone = parse_workers("1").executor(Demand())
    assert isinstance(alone, Local)
    assert alone.threads == parse_workers("3").executor(Demand()).threads == 1
    assert parse_workers("1", 2).executor(Demand()).threads == parse_workers("3", 2).executor(Demand()).threads == 2


@pytest.mark.parametrize("text", ["0", "-2", "many", "http://head:1", ""])
@pytest.mark.usefixtures("spoken_in_options")
def test_what_is_no_worker_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--workers"):
        parse_workers(text)
