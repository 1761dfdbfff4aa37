"""Ray on this machine: the same bits, lost workers, and nodes with object stores of their own."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.audit import truth
from sensitivity import open_profile
from tests.sensitivity.profiling import assert_same_numbers
from tests.vggtkit.core.executors.works import Fails, Killed, Sums, wait_until
from vggtkit.core.errors import InputError
from vggtkit.core.executors import Demand, Executor, Work, in_order, ray_cluster
from vggtkit.core.executors.base import Results
from vggtkit.core.executors.local import Local
from vggtkit.core.executors.ray_cluster import RayCluster
from vggtkit.model import load_vggt
from vggtkit.quant import Layer
from vggtkit.scenes import Scene, synthetic_scenes
from vggtkit.subject import Subject, subject_of

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def client_port() -> int:
    """Of the cluster's server for ``ray://``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def cluster(client_port: int) -> Iterator[Any]:
    """Two nodes of one CPU on this machine, each with raylet and object store of its own."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e .[cluster]")
    utils = pytest.importorskip("ray.cluster_utils", reason="this Ray has no cluster for tests")
    node = {"num_cpus": 1, "object_store_memory": 80 * 10**6, "memory": 2 * 10**9, "include_dashboard": False}
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_CLIENT_RECONNECT_GRACE_PERIOD"] = "1"  # seconds that a client which is gone keeps its workers
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    try:
        head = node | {"ray_client_server_port": client_port}
        started = utils.Cluster(initialize_head=True, head_node_args=head)
        started.add_node(**{key: value for key, value in node.items() if key != "include_dashboard"})
        ray.init(started.address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        pytest.skip(f"Ray cannot be started here: {error}")
    yield started
    ray.shutdown()
    started.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_two_nodes_give_the_bits_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work goes into the object store once, and comes to a worker by reference."""
    pieces, stored = list(range(6)), list[int]()
    executor = RayCluster(threads=1, demand=Demand(10**9))
    put = executor._ray.put
    monkeypatch.setattr(executor._ray, "put", lambda data: (stored.append(len(data)), put(data))[1])
    assert (executor.workers, executor.title) == (2, "2 Ray workers")  # a node is filled by one CPU
    here, there = in_order(Local(1), Sums(), pieces), in_order(executor, Sums(), pieces)
    assert [result[0] for result in there] == [result[0] for result in here]
    assert len(stored) == 1
    assert {result[2] for result in there} == {1}
    assert os.getpid() not in {result[1] for result in there}


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_the_piece_of_a_killed_worker_is_done_again(tmp_path: Path) -> None:
    assert in_order(RayCluster(), Killed(tmp_path, times=1), [0, 1, 2]) == [0, 1, 4]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_client_that_is_killed_goes_on_where_it_was(model_folder: Path, client_port: int, tmp_path: Path) -> None:
    """Through ``ray://``, as from another machine: whoever is killed, the profile is that of one process."""

    def profiling(run: str, workers: str) -> subprocess.Popen[bytes]:
        options = ["--num-scenes", "1", "--views", "2", "--probes", "1", "--rounding", "nearest"]
        command = [sys.executable, "cli.py", "profile", "--model", str(model_folder), *options]
        return subprocess.Popen([*command, "--workers", workers, "--run", str(tmp_path / run)], cwd=ROOT)

    address = f"ray://127.0.0.1:{client_port}"
    with profiling("there", address) as killed:
        wait_until(lambda: len(list(tmp_path.glob("there/profile.h5.parts/*.npz"))) > 1, "two steps", 300)
        killed.kill()
    assert not (tmp_path / "there" / "profile.h5").exists()
    for run, workers in (("there", address), ("here", "1")):
        with profiling(run, workers) as ran:
            assert ran.wait() == 0
    here, there = (open_profile(tmp_path / run / "profile.h5") for run in ("here", "there"))
    assert_same_numbers(here, there)


@pytest.mark.usefixtures("spoken_in_options")
def test_a_cluster_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e .[cluster]")

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("ray client connection timeout")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(InputError, match=r"--workers ray://head:10001: Ray cannot be .*RAY_AUTH_TOKEN here"):
        RayCluster("ray://head:10001")


@pytest.mark.parametrize("failures", [ray_cluster.CONNECTIONS - 1, ray_cluster.CONNECTIONS])
@pytest.mark.usefixtures("spoken_in_options")
def test_a_connection_that_the_server_gives_up_is_tried_again(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e .[cluster]")
    tried: list[str] = []

    def fail_at_first(address: str, **_: object) -> None:
        tried.append(address)
        if len(tried) <= failures:
            raise ConnectionAbortedError("Initialization failure from server")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fail_at_first)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 1}}])
    monkeypatch.setattr(ray_cluster, "PAUSE_SECONDS", 0)
    if failures < ray_cluster.CONNECTIONS:
        assert RayCluster("ray://head:10001").workers == 1
    else:
        with pytest.raises(InputError, match="Initialization failure from server"):
            RayCluster("ray://head:10001")
    assert tried == ["ray://head:10001"] * ray_cluster.CONNECTIONS


def test_the_token_of_the_user_is_sent_to_any_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ray looks for it by itself but for ``ray://``, where it then waits for an answer in vain."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e .[cluster]")
    modes: list[str | None] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda *_, **__: modes.append(os.environ.get("RAY_AUTH_MODE")))
    monkeypatch.setattr(ray, "nodes", list)
    for token in (None, "token"):
        monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
        if token:
            (tmp_path / "token").write_text(token)
        for address in ("ray://head:10001", "head:6379"):
            with pytest.raises(InputError, match="no node holds a worker"):
                RayCluster(address)
            monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert modes == [None, None, "token", None]


def test_a_worker_takes_a_gpu_its_memory_and_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray is asked for them; nodes with GPUs and memory as they would be told."""
    asked: list[dict[str, Any]] = []

    class Ray:
        """Nodes of 8 and 2 GPUs, and one without."""

        def nodes(self) -> list[dict[str, Any]]:
            sizes = [(64, 8, 200), (64, 2, 15), (64, 0, 500)]
            return [
                {"Alive": True, "Resources": {"CPU": cpus, "GPU": gpus, "memory": gigabytes * 1e9}}
                for cpus, gpus, gigabytes in sizes
            ]

        def remote(self, _class: type) -> Any:
            return self

        def options(self, **resources: Any) -> Any:
            asked.append(resources)
            return self

    Ray.remote.__defaults__ = (None,)
    monkeypatch.setattr(ray_cluster, "_connected", lambda *_: Ray())
    demand = Demand(memory_bytes=10**10, gpus=1)
    executor = RayCluster(threads=2, demand=demand)
    assert executor.workers == 9  # eight, one for want of memory, none
    executor._start()
    assert {name: asked[0][name] for name in ("num_cpus", "num_gpus", "memory")} == {
        "num_cpus": 2, "num_gpus": 1, "memory": 10**10,
    }  # fmt: skip
    assert RayCluster(count=3, threads=2, demand=demand).workers == 3
    assert RayCluster(threads=16, demand=Demand(memory_bytes=10**10)).workers == 4 + 1 + 4


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
