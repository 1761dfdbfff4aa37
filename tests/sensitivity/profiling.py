"""A profile with few schemes and small samples."""

from pathlib import Path
from typing import Any

from sensitivity import Profile, profile
from vggtkit.model import VGGT
from vggtkit.scenes import Scene

SCHEMES = ("int8_per_tensor_sym", "int4_group_32")
FACTS = {"model": "small", "weights": "trained"}


def profiled(model: VGGT, scenes: list[Scene], path: Path, **changes: Any) -> Profile:
    arguments = {"facts": FACTS, "schemes": SCHEMES, "candidates": SCHEMES, "probes": 1, "activation_bytes": 300_000}
    return profile(model, scenes, path, **{**arguments, **changes})
