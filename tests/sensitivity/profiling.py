"""A profile with few schemes and small samples."""

from pathlib import Path
from typing import Any

import h5py

from sensitivity import Profile, profile
from vggtkit.model import VGGT
from vggtkit.scenes import Scene

SCHEMES = ("int8_per_tensor_sym", "int4_group_32")
FACTS = {"model": "small", "weights": "trained"}


def profiled(model: VGGT, scenes: list[Scene], path: Path, **changes: Any) -> Profile:
    arguments = {"facts": FACTS, "schemes": SCHEMES, "candidates": SCHEMES, "probes": 1, "activation_bytes": 300_000}
    return profile(model, scenes, path, **{**arguments, **changes})


def assert_same_numbers(first: Profile, second: Profile) -> None:
    """All datasets of two files, bit for bit."""
    with h5py.File(first.path) as a, h5py.File(second.path) as b:
        names: list[str] = []
        a.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        assert len(names) > 100
        for name in names:
            first_values, second_values = (file[name][:] for file in (a, b))
            if name == "layers":
                assert first_values.tolist() == second_values.tolist()
            else:
                assert first_values.tobytes() == second_values.tobytes(), name
