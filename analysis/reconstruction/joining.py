"""Chunks that share a picture, brought into one frame.

Every pass has a frame and a unit of its own. A picture that two passes share was taken by one camera: its depths in the
one are those in the other times a factor, and its camera is where it is. That fixes the similarity between both frames
in closed form (docs/methods.md). Errors of the shared picture add up from chunk to chunk.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.reconstruction.views import Views, put_together
from vggtkit.core.errors import InputError
from vggtkit.metrics.points import Similarity


def frame_change(known: Views, other: Views) -> Similarity:
    """The similarity from the frame of one pass to that of another, from the picture that both have seen.

    The camera of the picture coincides exactly. The scale is the median ratio of depths, over the half of the pixels of
    which both are surest, so that neither a wrong edge nor the sky decides it.

    Args:
        known: one view, in the frame to be reached.
        other: the same picture, in the frame to be left.

    Raises:
        InputError: the depths have no ratio: none are positive.
    """
    sure = np.minimum(known.confidence[0], other.confidence[0])
    valid = (known.depth[0] > 0) & (other.depth[0] > 0)
    if not valid.any():
        raise InputError("two chunks cannot be joined: their common picture has no depth; give fewer pictures")
    valid &= sure >= np.median(sure[valid])
    scale = float(np.median(known.depth[0][valid].astype(np.float64) / other.depth[0][valid]))
    (r_known, t_known), (r_other, t_other) = (
        (view.extrinsics[0, :, :3], view.extrinsics[0, :, 3]) for view in (known, other)
    )
    return Similarity(scale, r_known.T @ r_other, r_known.T @ (scale * t_other - t_known))


def moved(views: Views, change: Similarity) -> Views:
    """The same views in another frame.

    A camera ``y = R x + t`` sees points that moved to ``x' = s Q x + q`` as ``y' = s y = R Q^T x' + (s t - R Q^T q)``,
    and depths are ``s`` times what they were.
    """
    rotation = views.extrinsics[:, :, :3] @ change.rotation.T
    translation = change.scale * views.extrinsics[:, :, 3] - rotation @ change.translation
    depth = (change.scale * views.depth).astype(np.float32)
    return Views(depth, views.confidence, np.concatenate([rotation, translation[..., None]], -1), views.intrinsics)


def join(parts: Sequence[Views]) -> tuple[Views, list[float]]:
    """Passes of which each begins with the last picture of the one before, in the frame of the first.

    Returns:
        Every picture once, as the earlier pass saw it, and the scale that every later pass was brought to.

    Raises:
        InputError: as `frame_change`.
    """
    kept, scales = [parts[0]], []
    for part in parts[1:]:
        change = frame_change(kept[-1].of(slice(-1, None)), part.of(slice(0, 1)))
        scales.append(change.scale)
        kept.append(moved(part, change).of(slice(1, None)))
    return put_together(kept), scales
