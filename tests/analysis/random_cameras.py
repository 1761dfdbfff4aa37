"""Random cameras that several tests share."""

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor


def cameras(seed: int, views: int, spread_deg: float = 180.0) -> Tensor:
    """Random world-to-camera poses ``[S, 3, 4]``."""
    generator = np.random.default_rng(seed)
    turns = generator.normal(size=(views, 3)) * np.deg2rad(spread_deg) / 3
    rotations = Rotation.from_rotvec(turns).as_matrix()
    return torch.from_numpy(np.concatenate([rotations, generator.normal(size=(views, 3, 1))], axis=-1))
