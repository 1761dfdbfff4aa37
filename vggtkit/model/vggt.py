"""VGGT: cameras, depth, points and tracks from photographs in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.model.aggregator import Aggregator
from vggtkit.model.camera_head import CameraHead
from vggtkit.model.config import VGGTConfig, check_heads
from vggtkit.model.dpt_head import DPTHead, inverse_log
from vggtkit.model.track_head import DOWN_RATIO, TrackHead


class VGGT(nn.Module):
    """Visual Geometry Grounded Transformer, with the parameter names of the published checkpoint.

    Source: Wang et al., CVPR 2025. Written for this project from the published architecture.

    >>> from vggtkit.model.config import TINY
    >>> model = VGGT(TINY).eval()
    >>> sorted(model(torch.rand(2, 3, 64, 64)))[:3]
    ['depth', 'depth_conf', 'images']
    """

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk_dtype = torch.float32
        self.aggregator = Aggregator(config)
        if "camera" in config.heads:
            self.camera_head = CameraHead(config)
        if "point" in config.heads:
            self.point_head = DPTHead(config, 3, inverse_log)
        if "depth" in config.heads:
            self.depth_head = DPTHead(config, 1, torch.exp)
        if "track" in config.heads:
            self.track_head = TrackHead(config)

    def with_heads(self, heads: Sequence[str]) -> VGGT:
        """A model with these heads alone, which shares them and the aggregator with this one.

        This model keeps all its heads. Parameters are the same objects in both: nothing is copied, and what changes one
        of them, or moves it to a device, does so for both.

        Args:
            heads: of those that the model has.

        Returns:
            Another model; what heads left out predict is absent from its outputs.

        Raises:
            InputError: an unknown head, or one that the model lacks.

        >>> from vggtkit.model.config import TINY
        >>> model = VGGT(TINY)
        >>> cameras = model.with_heads(["camera"])
        >>> cameras.config.heads, cameras.camera_head is model.camera_head, hasattr(cameras, "track_head")
        (('camera',), True, False)
        >>> len(model.config.heads)
        4
        """
        heads = self._checked_heads(heads)
        model = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, dict | set):  # torch's own registers: of submodules, buffers, hooks
                vars(model)[name] = value.copy()
        for head in self.config.heads:
            if head not in heads:
                delattr(model, f"{head}_head")
        model.config = replace(self.config, heads=heads)
        return model

    def _checked_heads(self, heads: Sequence[str]) -> tuple[str, ...]:
        """The heads in their usual order, all of which the model has."""
        heads = check_heads(heads, setting("heads"))
        if absent := [head for head in heads if head not in self.config.heads]:
            present = ", ".join(self.config.heads)
            raise InputError(f"{setting('heads')}: the model has no {absent[0]} head, only {present}")
        return tuple(heads)

    def forward(self, images: Tensor, query_points: Tensor | None = None) -> dict[str, Tensor | list[Tensor]]:
        """Predict everything for one scene or a batch of scenes.

        Args:
            images: ``[B, S, 3, H, W]`` or ``[S, 3, H, W]`` in [0, 1]; H and W multiples of the patch size.
            query_points: ``[B, N, 2]`` or ``[N, 2]`` pixel (x, y) in the first frame, for tracks.

        Returns:
            - ``pose_enc [B, S, 9]``: translation, quaternion (x, y, z, w), vertical and horizontal field of view in
              radians; world to camera, OpenCV axes. ``pose_enc_list``: the same of all four iterations.
            - ``depth [B, S, H, W, 1]``, ``depth_conf [B, S, H, W]``
            - ``world_points [B, S, H, W, 3]`` in the first camera's frame, ``world_points_conf [B, S, H, W]``
            - ``images``: the input
            - with query points ``track [B, S, N, 2]`` in pixels, ``vis`` and ``conf [B, S, N]`` in [0, 1], and
              ``track_list``, the tracks of all iterations

            What a head predicts is absent where the model is without that head.

        Raises:
            InputError: wrong number of axes or channels, a height or width that is no multiple of the patch size, or,
                with query points, one that the tracker's pyramid cannot halve often enough.
        """
        images = images[None] if images.ndim == 4 else images
        self._check(images)
        size = (images.shape[-2], images.shape[-1])
        tokens = self._tokens(images)
        outputs: dict[str, Tensor | list[Tensor]] = {}
        if "camera" in self.config.heads:
            poses = self.camera_head(tokens[self.config.aggregator_depth - 1])
            outputs |= {"pose_enc": poses[-1], "pose_enc_list": poses}
        if "depth" in self.config.heads:
            outputs["depth"], outputs["depth_conf"] = self.depth_head.predict(tokens, size)
        if "point" in self.config.heads:
            outputs["world_points"], outputs["world_points_conf"] = self.point_head.predict(tokens, size)
        outputs["images"] = images
        if query_points is not None and "track" in self.config.heads:
            self._check_for_tracks(size)
            query = query_points[None] if query_points.ndim == 2 else query_points
            tracks, visible, confident = self.track_head(tokens, size, query)
            outputs |= {"track": tracks[-1], "track_list": tracks, "vis": visible, "conf": confident}
        return outputs

    def _tokens(self, images: Tensor) -> dict[int, Tensor]:
        """The trunk's, for the heads to read in FP32 whatever it computes in."""
        if self.trunk_dtype == torch.float32:
            tokens: dict[int, Tensor] = self.aggregator(images)
            return tokens
        # Without a cache: one would hand out a rounded weight again after it has been replaced by another.
        with torch.autocast(images.device.type, dtype=self.trunk_dtype, cache_enabled=False):
            tokens = self.aggregator(images)
        return {depth: value.float() for depth, value in tokens.items()}

    def _check_for_tracks(self, size: tuple[int, int]) -> None:
        least = DOWN_RATIO * 2 ** (self.config.track_corr_levels - 1)
        if min(size) < least:
            raise InputError(
                f"images are {size[0]}x{size[1]}, the tracker needs {least} pixels a side: give a higher "
                f"{setting('resolution')}"
            )

    def _check(self, images: Tensor) -> None:
        patch = self.config.patch_size
        if images.ndim != 5 or images.shape[2] != 3:
            raise InputError(f"images must be [B, S, 3, H, W] or [S, 3, H, W], found {list(images.shape)}")
        if images.shape[-1] % patch or images.shape[-2] % patch:
            raise InputError(
                f"images are {images.shape[-2]}x{images.shape[-1]}, which is no multiple of the patch size {patch}"
            )
