"""Ray on this machine: the same bits, lost workers, and nodes with object stores of their own."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.audit import truth
from tests.vggtkit.core.executors.works import Fails, Killed, Sums
from vggtkit.core.errors import InputError
from vggtkit.core.executors import Demand, Executor, Work, in_order, ray_cluster
from vggtkit.core.executors.base import Results
from vggtkit.core.executors.local import Local
from vggtkit.core.executors.ray_cluster import RayCluster
from vggtkit.model import load_vggt
from vggtkit.quant import Layer
from vggtkit.scenes import Scene, synthetic_scenes
from vggtkit.subject import Subject, subject_of


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU on this machine, each with raylet and object store of its own."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e .[cluster]")
    utils = pytest.importorskip("ray.cluster_utils", reason="this Ray has no cluster for tests")
    node = {"num_cpus": 1, "object_store_memory": 80 * 10**6, "memory": 2 * 10**9, "include_dashboard": False}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        started = utils.Cluster(initialize_head=True, head_node_args=node)
        started.add_node(**{key: value for key, value in node.items() if key != "include_dashboard"})
        ray.init(started.address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        pytest.skip(f"Ray cannot be started here: {error}")
    yield started
    ray.shutdown()
    started.shutdown()


@pytest.mark.usefixtures("cluster")
def test_two_nodes_give_the_bits_of_this_process() -> None:
    pieces = list(range(6))
    executor = RayCluster(threads=1, demand=Demand(10**9))
    assert (executor.workers, executor.title) == (2, "2 Ray workers")  # a node is filled by one CPU
    here, there = in_order(Local(1), Sums(), pieces), in_order(executor, Sums(), pieces)
    assert [result[0] for result in there] == [result[0] for result in here]
    assert {result[2] for result in there} == {1}
    assert os.getpid() not in {result[1] for result in there}


@pytest.mark.usefixtures("cluster")
def test_the_piece_of_a_killed_worker_is_done_again(tmp_path: Path) -> None:
    assert in_order(RayCluster(), Killed(tmp_path, times=1), [0, 1, 2]) == [0, 1, 4]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.usefixtures("cluster")
def test_what_a_piece_raises_is_raised() -> None:
    with pytest.raises(InputError, match="the picture is NaN: give another"):
        in_order(RayCluster(), Fails(), [0, 1])


class KillsOne:
    """An executor one of whose workers is killed after the first piece."""

    def __init__(self, executor: Executor) -> None:
        self.executor, self.killed = executor, 0
        self.title, self.workers, self.threads = executor.title, executor.workers, executor.threads

    def run(self, work: Work[Any, Any], pieces: Sequence[Any], places: Any = None) -> Results[Any]:
        for done in self.executor.run(work, pieces, places):
            if not self.killed:
                self.killed = int(done.worker.rpartition(":")[2])
                os.kill(self.killed, signal.SIGKILL)
            yield done


def measure(subject: Subject, layers: Sequence[Layer], scenes: Sequence[Scene], executor: Executor) -> Any:
    return truth.measure_truth(subject, layers, ("int4_group_32",), scenes, executor=executor).damage


@pytest.mark.usefixtures("cluster")
def test_true_damage_on_two_nodes_is_that_of_this_process_whoever_is_killed(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truth, "GEOMETRY_SCENES", 0)
    subject = subject_of(load_vggt(str(model_folder)))
    scenes, layers = synthetic_scenes(2, 2, (32, 32), seed=0, split="evaluation"), subject.layers[:20]
    executor = KillsOne(RayCluster())
    here, there = (measure(subject, layers, scenes, each) for each in (Local(1), executor))
    assert executor.killed
    assert there.keys() == here.keys()
    for name, values in here.items():
        np.testing.assert_array_equal(there[name], values, err_msg=name)


@pytest.mark.usefixtures("cluster", "spoken_in_options")
def test_a_worker_that_no_node_holds_is_refused_at_once() -> None:
    with pytest.raises(InputError, match=r"no node holds a worker of 1 CPU, 3.0 GB of memory"):
        RayCluster(demand=Demand(3 * 10**9))
    with pytest.raises(InputError, match="no node holds a worker of 2 CPUs"):
        RayCluster(threads=2)


def test_without_ray_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'vggt-mixedprec\[cluster\]'"):
        ray_cluster.RayCluster()


def test_pieces_of_one_place_go_to_one_worker_while_there_are_others() -> None:
    waiting = ray_cluster.Waiting(["a", "a", "a", "b", "b", "c"])
    assert [waiting.next(worker) for worker in ("x", "y", "x", "y")] == [0, 3, 1, 4]
    assert waiting.next("y") == 5  # b is done, and nobody is at c
    assert [waiting.next("y"), waiting.next("x")] == [2, None]  # what is left, though x is at it
