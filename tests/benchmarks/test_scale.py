"""The simulation of many workers, where its answer is known."""

import dataclasses
import json
import math

import pytest

from benchmarks.scale import FULL_SIZE, SCENES, Assumed, Overheads, bound, simulate

FREE = Overheads(dispatch=0.0, save=0.0, load=0.0, start=0.0, unpickle=0.0)
AT_ONCE = Assumed(network_bytes=math.inf)


def seconds_of_a_scene() -> float:
    full = json.loads(FULL_SIZE.read_text())
    names = [name for name in full["stages_in_seconds"] if name.startswith(("FP32", "seven", "damage"))]
    return sum(full["stages_in_seconds"][name] for name in names) * AT_ONCE.gpu_pass_seconds / full["forward_seconds"]


@pytest.mark.parametrize("gpus", [1, 8, 1000])
def test_without_overheads_whole_scenes_are_shared_out_evenly(gpus: int) -> None:
    row = simulate(gpus, FREE, AT_ONCE, by_scene=True)
    assert row["working"] == pytest.approx(SCENES / gpus * seconds_of_a_scene())
    assert row["fp32_passes_again"] == 0


def test_passes_are_run_again_only_where_workers_share_a_scene() -> None:
    """With as many scenes as workers or more there are few, at the end; with more workers than steps, one a scheme."""
    assert simulate(1, FREE, AT_ONCE, by_scene=False)["fp32_passes_again"] == 0
    assert simulate(64, FREE, AT_ONCE, by_scene=False)["fp32_passes_again"] < 7 * 64
    assert simulate(9 * SCENES, FREE, AT_ONCE, by_scene=False)["fp32_passes_again"] == 7 * SCENES


def test_no_number_of_workers_is_faster_than_results_are_saved() -> None:
    slow = dataclasses.replace(FREE, save=0.1)
    row = simulate(1024, slow, AT_ONCE, by_scene=False)
    assert row["working"] >= 9 * SCENES * slow.save
    assert bound(row) == "one process saves all results"
