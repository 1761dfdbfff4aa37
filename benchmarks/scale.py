"""How work scales with workers: measured on two cores, and simulated up to 1,024 GPUs. JSON on the last line.

Run: ``python benchmarks/scale.py [--measure] [--ray] [--scenes 2] [--layers 120] [--rounds 3]``. With ``--measure``
true damage of the bundled network is taken by one and by two processes of one thread, in turn; nothing else should run
meanwhile. The simulation (`simulate`) plays the executor's own loop over the steps of a profile of VGGT-1B: measured
seconds of each step (``benchmarks/results/full_size.json``), overheads measured here, and what is assumed, which is
printed with it.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import pickle
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.audit.truth import measure_truth
from vggtkit.core.executors import Executor, in_order
from vggtkit.core.executors.processes import Processes
from vggtkit.core.executors.ray_cluster import RayCluster, Waiting
from vggtkit.core.journal import Parts
from vggtkit.quant import UNIFORM_SCHEMES
from vggtkit.scenes import SceneSource, load_scenes
from vggtkit.subject import open_subject

FULL_SIZE = Path(__file__).with_name("results") / "full_size.json"
GPUS = tuple(2**power for power in range(11))
SCENES = 1000
STEP_BYTES = 3_300_000
"""Of a step of VGGT-1B: one token of 506 layers in FP32 and sums of errors; 16 tokens would be 51 MB."""


@dataclass(frozen=True)
class Assumed:
    """What is not measured here.

    Attributes:
        gpu_pass_seconds: of one FP32 pass over two pictures on a GPU, five times the published time of the trunk in
            bfloat16 on an H100 (0.05 s; README of the published code); other steps in proportion to a CPU's.
        gpus_per_node: that share one copy of the weights.
        network_bytes: per second between nodes (10 Gbit/s).
        weights_bytes: of VGGT-1B in FP32.
    """

    gpu_pass_seconds: float = 0.25
    gpus_per_node: int = 8
    network_bytes: float = 1.25e9
    weights_bytes: int = 5_026_150_064


@dataclass(frozen=True)
class Overheads:
    """What a piece costs beside itself, in seconds.

    Attributes:
        dispatch: receive a result without content and send the next piece.
        save: write a result of `STEP_BYTES` into the journal, digest included.
        load: read it back at the end.
        start: a worker, from nothing to its first piece.
        unpickle: the weights, per byte.
    """

    dispatch: float
    save: float
    load: float
    start: float
    unpickle: float


@dataclass(frozen=True)
class Nothing:
    """Work that takes no time."""

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], int]]:
        """As `vggtkit.core.executors.Work.opened`."""
        yield lambda piece: piece


def overheads(executor: Executor, pieces: int = 400) -> Overheads:
    """Measured on this machine; medians where there is more than one."""
    begun = time.perf_counter()
    stamps = []
    in_order(executor, Nothing(), list(range(pieces)), lambda _: stamps.append(time.perf_counter()))
    arrays = {"tokens": np.random.default_rng(0).standard_normal(STEP_BYTES // 4, np.float32)}
    with tempfile.TemporaryDirectory() as folder:
        parts = Parts(Path(folder) / "profile.h5", {})
        saves = [_seconds(partial(parts.save, str(number), arrays)) for number in range(9)]
        loads = [_seconds(partial(parts.load, str(number))) for number in range(9)]
    packed = pickle.dumps({str(number): torch.randn(10**6) for number in range(50)})
    unpickle = float(np.median([_seconds(lambda: pickle.loads(packed)) for _ in range(5)])) / len(packed)
    gaps = np.diff(stamps[pieces // 4 :])
    return Overheads(float(gaps.mean()), float(np.median(saves)), float(np.median(loads)), stamps[0] - begun, unpickle)


def _seconds(job: Callable[[], object]) -> float:
    begun = time.perf_counter()
    job()
    return time.perf_counter() - begun


def _stamp(stamps: list[float]) -> None:
    stamps.append(time.perf_counter())


def measured(scenes: int, layers: int, rounds: int) -> dict[str, object]:
    """True damage by one and by two processes, in turn; whole seconds, and those of a piece once all are at work."""
    subject = open_subject("tiny")
    rooms = load_scenes(SceneSource(count=scenes), "evaluation", img_size=64, patch_size=8)
    chosen = subject.layers[:: max(1, len(subject.layers) // layers)][:layers]
    taken: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    results = {}
    for _ in range(rounds):
        for workers, row in taken.items():
            stamps: list[float] = [time.perf_counter()]
            executor = Processes(workers)
            results[workers] = measure_truth(
                subject, chosen, UNIFORM_SCHEMES, rooms, executor=executor,
                step=partial(_stamp, stamps),
            )  # fmt: skip
            steady = (stamps[-1] - stamps[workers]) / (len(stamps) - 1 - workers)
            row.append((stamps[-1] - stamps[0], steady))
    one, two = (results[workers].damage for workers in (1, 2))
    whole, once_started = (
        {workers: float(np.median([times[at] for times in row])) for workers, row in taken.items()} for at in (0, 1)
    )
    return {
        "scenes": scenes,
        "layers": len(chosen),
        "seconds_whole_and_of_a_piece": taken,
        "times_faster_with_starting": whole[1] / whole[2],
        "times_faster_once_started": once_started[1] / once_started[2],
        "bits_equal": all(np.array_equal(values, two[name]) for name, values in one.items()),
    }


def simulate(gpus: int, costs: Overheads, assumed: Assumed, *, by_scene: bool) -> dict[str, float]:
    """Seconds of a profile of `SCENES` scenes on so many GPUs, as `RayCluster.run` hands out pieces.

    A worker is given steps of the scene that it is at, else of one that nobody is at; given a scheme of a scene whose
    FP32 pass it has not run, it runs it. One process receives, sends the
    next piece, and writes the result; workers wait for it while it is busy.

    Args:
        gpus: workers.
        costs: measured.
        assumed: the rest.
        by_scene: pieces are whole scenes in the place of steps.
    """
    full = json.loads(FULL_SIZE.read_text())
    scale = assumed.gpu_pass_seconds / full["forward_seconds"]
    stages = {name: seconds * scale for name, seconds in full["stages_in_seconds"].items()}
    fp32, schemes, damage = (
        next(seconds for name, seconds in stages.items() if name.startswith(start))
        for start in ("FP32", "seven", "damage")
    )
    steps = [("fp32", fp32), *[("scheme", schemes / 7)] * 7, ("damage", damage)]
    hops = int(np.ceil(np.log2(1 + -(-gpus // assumed.gpus_per_node)))) if gpus > assumed.gpus_per_node else 1
    start = costs.start + assumed.weights_bytes * (hops / assumed.network_bytes + costs.unpickle)
    receive = costs.dispatch + STEP_BYTES / assumed.network_bytes
    pieces = [
        (scene, steps) if by_scene else (scene, [step])
        for scene in range(SCENES)
        for step in (steps[:1] if by_scene else steps)
    ]
    waiting = Waiting([scene for scene, _ in pieces])
    busy, again, driver, held = 0.0, 0, start, [-1] * gpus
    ends = [(start, worker, 0) for worker in range(gpus)]
    heapq.heapify(ends)
    last = start
    while ends:
        now, worker, results = heapq.heappop(ends)
        begin = max(now, driver) + (receive if results else costs.dispatch)
        driver = begin + results * costs.save
        last = max(last, driver)
        if (following := waiting.next(worker)) is None:
            continue
        scene, inside = pieces[following]
        missing = inside[0][0] == "scheme" and held[worker] != scene
        held[worker] = scene if inside[0][0] != "damage" else held[worker]
        again += missing
        seconds = sum(cost for _, cost in inside) + missing * assumed.gpu_pass_seconds
        busy += seconds
        heapq.heappush(ends, (begin + seconds, worker, len(inside)))
    serial = full["stages_in_seconds"]["writing scores"] + SCENES * len(steps) * costs.load
    whole = last + serial
    served = SCENES * len(steps) * (receive + costs.save) / whole
    one = SCENES * sum(cost for _, cost in steps)
    return {
        "gpus": gpus, "seconds": whole, "starting": start, "working": last - start, "writing": serial,
        "times_faster_than_one_without_overheads": one / whole, "busy": busy / (gpus * whole),
        "fp32_passes_again": float(again), "driver_busy": served,
    }  # fmt: skip


def bound(row: dict[str, float]) -> str:
    """What a run waits for most."""
    serial = (row["starting"] + row["writing"]) / row["seconds"]
    if row["busy"] > 0.5:
        return "the work itself"
    return "what one process does before and after" if serial > row["driver_busy"] else "one process saves all results"


def report(arguments: argparse.Namespace) -> dict[str, object]:
    """Everything."""
    assumed = Assumed()
    costs = {"processes": overheads(Processes(2))}
    if arguments.ray:
        costs["ray"] = overheads(RayCluster(count=2))
    taken = costs.get("ray", costs["processes"])
    fronts = {
        name: [row | {"bound_by": bound(row)} for row in (simulate(g, taken, assumed, by_scene=whole) for g in GPUS)]
        for name, whole in (("pieces are steps", False), ("pieces are scenes", True))
    }
    return {
        "question": "what more workers bring",
        "measured": measured(arguments.scenes, arguments.layers, arguments.rounds) if arguments.measure else None,
        "overheads_seconds": {name: asdict(each) for name, each in costs.items()},
        "assumed": asdict(assumed) | {"scenes": SCENES, "bytes_of_a_step": STEP_BYTES, "steps_from": FULL_SIZE.name},
        "simulated": fronts,
        "threads": 1,
        "load_of_the_machine": round(os.getloadavg()[0], 1),
        "torch": str(torch.__version__),
        "machine": platform.machine(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--scenes", type=int, default=2)
    parser.add_argument("--layers", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    torch.set_num_threads(1)
    from benchmarks import scale  # what is sent to workers must not be of __main__

    print(json.dumps(scale.report(parser.parse_args())))
