"""A network and pictures -> depth, confidence and cameras, all in one frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from analysis.reconstruction.pictures import Pictures
from vggtkit.core.arrays import Array, Map
from vggtkit.core.errors import InputError
from vggtkit.model.geometry import decode_pose, unproject
from vggtkit.subject import Subject

SEEN_HEADS = ("camera", "depth")
"""What a reconstruction is made of: points are depth seen through cameras, which is more accurate than the point head
(Wang et al., CVPR 2025, table 3), so that one is not run."""


@dataclass(frozen=True)
class Views:
    """What a network sees in S pictures.

    Attributes:
        depth: ``[S, H, W]``, along the camera's axis, in a unit that the network chose.
        confidence: ``[S, H, W]``, 1 or more.
        extrinsics: world to camera ``[S, 3, 4]``, OpenCV axes.
        intrinsics: ``[S, 3, 3]`` in pixels of the canvas; whole numbers are centres of pixels, as in VGGT.
    """

    depth: Map
    confidence: Map
    extrinsics: Array
    intrinsics: Array

    def __len__(self) -> int:
        """How many."""
        return len(self.depth)

    def of(self, numbers: slice) -> Views:
        """Some of them."""
        return Views(self.depth[numbers], self.confidence[numbers], self.extrinsics[numbers], self.intrinsics[numbers])

    @property
    def centres(self) -> Array:
        """Where the cameras stand, ``[S, 3]``."""
        rotation, translation = self.extrinsics[:, :, :3], self.extrinsics[:, :, 3:]
        centres: Array = -(rotation.transpose(0, 2, 1) @ translation)[..., 0]
        return centres

    def points(self, number: int) -> Array:
        """World points ``[H, W, 3]`` of one view."""
        given = (self.depth[number], self.extrinsics[number], self.intrinsics[number])
        points: Array = unproject(*(torch.from_numpy(value).double() for value in given)).numpy()
        return points


def put_together(parts: Sequence[Views]) -> Views:
    """Views that are in one frame already, one after another."""
    names = ("depth", "confidence", "extrinsics", "intrinsics")
    return Views(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def see(subject: Subject, pictures: Pictures, numbers: Sequence[int]) -> Views:
    """Run a network on some of the pictures, in a frame of its own: that of the first.

    Args:
        subject: a VGGT with the heads of `SEEN_HEADS`.
        pictures: of which,
        numbers: these are seen.

    Raises:
        InputError: a picture cannot be read, or what the network predicts is not finite.
    """
    scene = pictures.scene(numbers)
    outputs = subject.predict(scene)
    broken = [name for name in ("pose_enc", "depth", "depth_conf") if not outputs[name].isfinite().all()]
    if broken:
        raise InputError(
            f"the network gives NaN or Inf in {broken[0]} of {scene.name}: with these weights nothing can be"
            " reconstructed; name another checkpoint or model"
        )
    height, width = scene.images.shape[-2:]
    extrinsics, intrinsics = decode_pose(outputs["pose_enc"][0].double(), (height, width))
    return Views(
        outputs["depth"][0, ..., 0].numpy(), outputs["depth_conf"][0].numpy(), extrinsics.numpy(), intrinsics.numpy()
    )
