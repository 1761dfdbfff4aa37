"""A profile of many scenes takes no more memory than one of few."""

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sensitivity import profile
from vggtkit.core.memory import resident_bytes
from vggtkit.model import VGGT, VGGTConfig
from vggtkit.scenes import Scene
from vggtkit.subject import subject_of


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc: the system does not tell")
def test_memory_is_flat_over_scenes(
    tiniest_config: VGGTConfig, tmp_path: Path, make_scene: Callable[..., Scene]
) -> None:
    """25 scenes more leave next to nothing behind: 25 kB were seen, and 47 MB from the first to the fifth."""
    torch.manual_seed(0)
    subject, resident = subject_of(VGGT(replace(tiniest_config, heads=("camera", "depth"))).eval()), {}

    def progress(stage: str, _done: int, _total: int) -> None:
        if stage.startswith("damage"):
            gc.collect()
            resident[int(stage.rpartition(" ")[2])] = resident_bytes()

    scenes = [make_scene(seed) for seed in range(30)]
    schemes = ("int8_per_channel_sym",)
    profile(
        subject, scenes, tmp_path / "p.h5", facts={"model": "tiniest", "weights": "random"}, schemes=schemes,
        candidates=schemes, probes=1, activation_bytes=10**7, progress=progress,
    )  # fmt: skip
    assert resident.keys() == set(range(1, 31))
    assert resident[30] - resident[5] < 8e6
