"""The benchmark of speed, on the tiniest network."""

import json
from pathlib import Path

import pytest

from benchmarks.speed import UNITS, speed
from vggtkit.runtime.stages import whole

WAYS = {"fp32", "bfloat16", "reference", "int8 packed", "int8 int8"}


@pytest.mark.slow
def test_every_way_takes_its_turn(model_folder: Path) -> None:
    found = json.loads(json.dumps(speed(str(model_folder), 1, "10bpw", (2, 32, 32))))
    assert found["seconds"].keys() == found["processor_seconds"].keys() == found["stages"].keys() == WAYS
    for unit in UNITS:
        assert found["speed_against_fp32"][unit]["fp32"] == found["speed_against_bfloat16"][unit]["bfloat16"] == 1
    assert max(found["nmse_against_reference"].values()) < 1e-2
    assert found["processor"]
    assert found["least_seconds"].keys() <= WAYS
    for way, stages in found["least_seconds"].items():
        assert stages.keys() <= found["stages"][way].keys()
        assert all(limit["limit"] > 0 for stage, limit in stages.items() if stage.endswith(("blocks", "head")))
    assert whole(found["stages"]["fp32"]) <= found["seconds"]["fp32"] * 1.01
