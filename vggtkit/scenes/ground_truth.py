"""From the frames of a recording to views that the model takes, with the truth about them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError
from vggtkit.scenes.cameras import inverse
from vggtkit.scenes.depth_files import Size
from vggtkit.scenes.photos import Mode, centre_on_white, load_photos, place_on
from vggtkit.scenes.recording import Frame
from vggtkit.scenes.scene import GroundTruth


def prepare_views(
    frames: Sequence[Frame], canvas: Size, *, mode: Mode, target_size: int, patch_size: int
) -> tuple[Tensor, GroundTruth | None]:
    """Pictures as :func:`vggtkit.scenes.photos.load_photos` prepares them, and cameras, depth and points that fit them.

    Resizing by s moves the coordinate x to ``(x + 0.5) * s - 0.5``, because pixel centres are at whole numbers;
    focal lengths and the principal point (which stays the camera's own, not the picture's middle) follow.
    Depth is taken from the nearest stored pixel. The first camera becomes the world frame, and all lengths are
    divided by the mean distance of the valid points of all views to its centre; without any depth, by the mean
    distance of the other cameras to it.

    Args:
        frames: S frames of one recording.
        canvas: width and height of the result; at least those of every prepared picture, which is centred, and
            at most ``target_size``.
        mode: ``"crop"`` or ``"pad"``.
        target_size: pixels.
        patch_size: pixels.

    Returns:
        ``[S, 3, H, W]`` in [0, 1], and the truth (float32; depth and points are 0 where nothing is known); no truth
        where a frame has no camera, as photographs.

    Raises:
        InputError: a picture or depth that is missing, damaged, turned by its orientation tag, or not of the
            size that its camera or depth has.
    """
    pictures = [
        load_photos([frame.image], mode=mode, target_size=target_size, patch_size=patch_size) for frame in frames
    ]
    images = torch.stack([centre_on_white(picture[0], canvas[1], canvas[0]) for picture in pictures])
    poses = [frame.extrinsics for frame in frames if frame.extrinsics is not None]
    cameras = [_on_canvas(frame, canvas, mode, target_size, patch_size) for frame in frames]
    known = [camera for camera in cameras if camera is not None]
    if len(poses) < len(frames) or len(known) < len(frames):
        return images, None
    intrinsics, depth = (np.stack([camera[part] for camera in known]) for part in (0, 1))
    extrinsics = np.stack(poses) @ inverse(poses[0])
    extrinsics[0] = np.eye(4)
    points = unproject_depth(depth, intrinsics, extrinsics)
    scale = _scale(points, depth, extrinsics)
    extrinsics[:, :3, 3] /= scale
    arrays = (extrinsics[:, :3], intrinsics, depth / scale, points / scale)
    return images, GroundTruth(*(torch.from_numpy(array.astype(np.float32)) for array in arrays))


def unproject_depth(depth: Array, intrinsics: Array, extrinsics: Array) -> Array:
    """World points ``[S, H, W, 3]`` of z-depth ``[S, H, W]``; 0 where the depth is 0.

    Args:
        depth: any unit.
        intrinsics: ``[S, 3, 3]``.
        extrinsics: world-to-camera ``[S, 4, 4]`` in the same unit.

    >>> unproject_depth(np.full((1, 1, 2), 2.0), np.eye(3)[None], np.eye(4)[None])[0, 0].tolist()
    [[0.0, 0.0, 2.0], [2.0, 0.0, 2.0]]
    """
    y, x = np.indices(depth.shape[1:], dtype=np.float64)
    rays = np.stack([x, y, np.ones_like(x)], -1) @ inverse(intrinsics).transpose(0, 2, 1)[:, None]
    # Row vectors: R^T (p - t) is (p - t)^T R.
    points: Array = (rays * depth[..., None] - extrinsics[:, None, None, :3, 3]) @ extrinsics[:, None, :3, :3]
    return np.where(depth[..., None] > 0, points, 0.0)


def _scale(points: Array, depth: Array, extrinsics: Array) -> float:
    valid = points[depth > 0]
    if len(valid):
        return float(np.linalg.norm(valid, axis=-1).mean())
    centres = -(extrinsics[1:, :3, 3:].transpose(0, 2, 1) @ extrinsics[1:, :3, :3])
    spread = float(np.linalg.norm(centres, axis=-1).mean()) if len(centres) else 0.0
    return spread or 1.0


def _on_canvas(frame: Frame, canvas: Size, mode: Mode, target_size: int, patch_size: int) -> tuple[Array, Array] | None:
    """Intrinsics ``[3, 3]`` and depth ``[H, W]`` of one frame on the canvas; None where it has no camera."""
    if frame.intrinsics is None:
        return None
    stored = _stored_size(frame)
    resized, corner = place_on(canvas, stored, mode=mode, target_size=target_size, patch_size=patch_size)
    return _placement(stored, resized, corner) @ frame.intrinsics, _depth_on(canvas, frame, resized, corner)


def _placement(stored: Size, resized: Size, corner: tuple[int, int]) -> Array:
    """Pixel coordinates of the canvas from those of the stored picture, homogeneous ``[3, 3]``."""
    scale_x, scale_y = resized[0] / stored[0], resized[1] / stored[1]
    offset_x, offset_y = 0.5 * scale_x - 0.5 + corner[0], 0.5 * scale_y - 0.5 + corner[1]
    return np.array([[scale_x, 0, offset_x], [0, scale_y, offset_y], [0, 0, 1]])


def _depth_on(canvas: Size, frame: Frame, resized: Size, corner: tuple[int, int]) -> Array:
    """Depth ``[H, W]``, 0 where there is none or only white."""
    depth = np.zeros((canvas[1], canvas[0]))
    if frame.depth is None:
        return depth
    stored = _stored_size(frame)
    y, x = np.indices(depth.shape, dtype=np.float64) - np.array(corner[::-1])[:, None, None]
    inside = (x >= 0) & (y >= 0) & (x < resized[0]) & (y < resized[1])
    at_x = (x[inside] + 0.5) * (stored[0] / resized[0]) - 0.5
    at_y = (y[inside] + 0.5) * (stored[1] / resized[1]) - 0.5
    measured = frame.depth(at_x, at_y, stored)
    depth[inside] = np.where(np.isfinite(measured) & (measured > 0), measured, 0.0)
    return depth


def _stored_size(frame: Frame) -> Size:
    """Width and height of a picture as stored, which must be as shown and as its camera has it."""
    with Image.open(frame.image) as image:
        size: Size = image.size
        turn = image.getexif().get(0x0112, 1)
    if turn not in (0, 1):
        raise InputError(
            f"the picture {str(frame.image)!r} is turned by its orientation tag ({turn}), its camera and depth are"
            " not: remove the tag"
        )
    if frame.size not in (None, size):
        wanted = "x".join(map(str, frame.size or ()))
        raise InputError(
            f"the picture {str(frame.image)!r} is {size[0]}x{size[1]} pixels, its camera is for {wanted}:"
            " use the pictures that belong to the calibration"
        )
    return size
