"""What a scene is: views, query points and, where it is known, the truth about them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class GroundTruth:
    """Cameras, geometry and tracks of a scene.

    The first camera's frame is the world frame. The scale is such that the mean distance of the valid
    world points to the origin is 1, as VGGT trains (Wang et al., CVPR 2025, section 3.4).

    Attributes:
        extrinsics: world-to-camera ``[S, 3, 4]``, OpenCV axes (x right, y down, z forward).
        intrinsics: ``[S, 3, 3]`` in pixels; the centre of pixel (0, 0) lies at (0, 0), as in VGGT.
        depth: z-depth ``[S, H, W]`` in scene units; 0 = none.
        world_points: ``[S, H, W, 3]`` in the first camera's frame.
        tracks: the query points in every view, ``[S, N, 2]`` pixel xy; integer k is the centre of pixel k.
        visible: ``[S, N]``, whether a query point is inside the view and not occluded.
    """

    extrinsics: Tensor
    intrinsics: Tensor
    depth: Tensor
    world_points: Tensor
    tracks: Tensor | None = None
    visible: Tensor | None = None


@dataclass(frozen=True)
class Scene:
    """Several views of one place.

    Attributes:
        name: unique among the scenes of a run.
        images: ``[S, 3, H, W]`` float32 in [0, 1].
        query_points: ``[N, 2]`` pixel xy in the first view; integer k is the centre of pixel k.
        truth: ground truth, where it is known.
        inputs: what a model that is no VGGT is called with, in the place of pictures; None for pictures.
    """

    name: str
    images: Tensor
    query_points: Tensor
    truth: GroundTruth | None = None
    inputs: tuple[Any, ...] | Mapping[str, Any] | None = None


def fingerprint(scenes: Sequence[Scene]) -> str:
    """Hash of what the model sees of the scenes: 16 hex digits of SHA-256, order included.

    Names and ground truth do not count.

    >>> import torch
    >>> scene = Scene("grey", torch.full((2, 3, 14, 14), 0.5), torch.zeros(1, 2))
    >>> fingerprint([scene]) == fingerprint([Scene("again", scene.images, scene.query_points)])
    True
    >>> fingerprint([scene]) == fingerprint([scene, scene])
    False
    """
    digest = hashlib.sha256()
    for scene in scenes:
        given = [value for value in tree_leaves(scene.inputs) if isinstance(value, Tensor)]
        for tensor in (scene.images, scene.query_points, *given):
            digest.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
