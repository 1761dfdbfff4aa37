"""The depth that FP32 and every scheme see on one evaluation scene, kept for whoever wants to look at it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from analysis.evaluation.results import Evaluation, null_if_not_finite
from analysis.evaluation.watch import Watch
from vggtkit.core.arrays import Arrays
from vggtkit.core.errors import InputError
from vggtkit.core.escaping import first_line
from vggtkit.core.seal import digest_of
from vggtkit.scenes import Scene

MOST_VIEWS, MOST_PIXELS = 2, 320
"""Views of the scene, and pixels along the longer side, that are kept."""
MOST_BYTES = 2**27
"""Of the unpacked arrays of a file; 50 schemes at the most pixels have half of it."""


@dataclass(frozen=True)
class DepthMaps:
    """Depth of some views of a scene.

    Attributes:
        scene: its name.
        keys: of the results, FP32 first.
        pictures: ``[views, H, W, 3]``, what was seen.
        depth: ``[keys, views, H, W]``, as predicted.
        belongs_to: identity of the evaluation, see `identity`.
        points: by the key of every scheme, how far the points of the first view are from FP32's, as a share of the mean
            distance of FP32's from their middle, ``[H, W]``; none where a model predicts no points.
    """

    scene: str
    keys: tuple[str, ...]
    pictures: NDArray[np.uint8]
    depth: NDArray[np.float32]
    belongs_to: str
    points: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


class DepthWatch(Watch):
    """Keeps the depth of the first of the scenes while an evaluation runs; nothing where a model predicts none."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.scene = scenes[0]
        self._depth: dict[str, NDArray[np.float32]] = {}
        self._points: dict[str, NDArray[np.float32]] = {}
        self._reference: Tensor | None = None

    def __call__(self, key: str, scene: int, outputs: Mapping[str, Tensor]) -> None:
        """Take what one result saw of a scene, by the scene's number."""
        depth = outputs.get("depth")
        images = self.scene.images
        if scene or depth is None or self.scene.inputs is not None:
            return
        views = depth.detach().float().cpu().reshape(-1, *depth.shape[-3:])[..., 0] if depth.ndim >= 4 else depth
        if views.shape == (images.shape[0], *images.shape[-2:]):
            self._depth[key] = _smaller(views[:MOST_VIEWS, None]).numpy()[:, 0]
            self._take_points(key, outputs.get("world_points"))

    def _take_points(self, key: str, points: Tensor | None) -> None:
        """The first result that has points is the reference of the others."""
        if points is None or points.shape[-3:] != (*self.scene.images.shape[-2:], 3):
            return
        first = points.detach().float().cpu().reshape(-1, *points.shape[-3:])[0]
        if self._reference is None:
            self._reference = first
            return
        spread = (self._reference - self._reference.mean((0, 1))).norm(dim=-1).mean()
        shares = (first - self._reference).norm(dim=-1) / spread
        self._points[key] = _smaller(shares[None, None]).numpy()[0, 0]

    def kept(self, key: str) -> Arrays:
        """As `Watch.kept`."""
        kept = {"depth": self._depth, "points": self._points}
        return {name: values[key] for name, values in kept.items() if key in values}

    def restore(self, key: str, arrays: Arrays) -> None:
        """As `Watch.restore`."""
        if "depth" in arrays:
            self._depth[key] = arrays["depth"].astype(np.float32)
        if "points" in arrays:
            self._points[key] = arrays["points"].astype(np.float32)

    def maps(self, evaluation: Evaluation) -> DepthMaps | None:
        """What was kept, if every result had it."""
        keys = tuple(result.key for result in evaluation.results)
        if any(key not in self._depth for key in keys):
            return None
        pictures = _smaller(self.scene.images[:MOST_VIEWS].float().cpu()).permute(0, 2, 3, 1)
        return DepthMaps(
            self.scene.name,
            keys,
            (255 * pictures.clamp(0, 1)).round().to(torch.uint8).numpy(),
            np.stack([self._depth[key] for key in keys]).astype(np.float32),
            identity(evaluation),
            {key: self._points[key] for key in keys[1:] if key in self._points},
        )


def identity(evaluation: Evaluation) -> str:
    """What tells an evaluation from others: its model, scenes, and what every result does."""
    facts = {name: evaluation.provenance.get(name) for name in ("model_fingerprint", "scene_fingerprint")}
    results = [[result.key, result.size_bytes, result.damage] for result in evaluation.results]
    return digest_of(null_if_not_finite({"facts": facts, "results": results}))


def save_maps(maps: DepthMaps, path: Path) -> None:
    """Write them as an archive of numpy's."""
    with path.open("wb") as file:
        np.savez_compressed(
            file, scene=maps.scene, keys=np.array(maps.keys), pictures=maps.pictures, depth=maps.depth,
            belongs_to=maps.belongs_to, points_of=np.array(list(maps.points), dtype=str),
            points=np.array(list(maps.points.values()), dtype=np.float32),
        )  # fmt: skip


def load_maps(path: Path, evaluation: Evaluation) -> DepthMaps:
    """Read what `save_maps` wrote.

    Raises:
        InputError: it is no such file, or was made by another evaluation than this one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MOST_BYTES:
            raise ValueError(f"{size:,} bytes unpacked, more than is ever kept")
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            maps = DepthMaps(
                str(file["scene"]), tuple(map(str, file["keys"])), file["pictures"], file["depth"],
                str(file["belongs_to"]), _points_in(file),
            )  # fmt: skip
        pictures, depth = maps.pictures, maps.depth
        sound = pictures.dtype == np.uint8 and depth.dtype == np.float32 and pictures.ndim == depth.ndim == 4
        if not sound or depth.shape != (len(maps.keys), *pictures.shape[:3]) or pictures.shape[3] != 3:
            raise ValueError(f"pictures {pictures.shape} and depth {depth.shape} do not belong together")
        if any(points.shape != pictures.shape[1:3] for points in maps.points.values()):
            raise ValueError("its points are not those of its pictures")
        if max(depth.shape[-2:]) > MOST_PIXELS or depth.shape[1] > MOST_VIEWS:
            raise ValueError(f"depth of shape {depth.shape} is more than is ever kept")
    except Exception as error:  # a damaged archive fails in a dozen ways, of four libraries
        raise InputError(f"{path}: no depth maps ({first_line(error)})") from error
    if maps.belongs_to != identity(evaluation) or maps.keys != tuple(result.key for result in evaluation.results):
        raise InputError(f"{path}: of another evaluation than the results beside it")
    return maps


def _points_in(file: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """How far points are off, by scheme; none in a file of an earlier version."""
    if "points_of" not in file:
        return {}
    return dict(zip(map(str, file["points_of"]), file["points"].astype(np.float32), strict=True))


def _smaller(maps: Tensor) -> Tensor:
    """Maps ``[N, C, H, W]``, averaged down to at most `MOST_PIXELS` a side."""
    scale = MOST_PIXELS / max(maps.shape[-2:])
    if scale >= 1:
        return maps
    height, width = (max(1, round(side * scale)) for side in maps.shape[-2:])
    return F.interpolate(maps, size=(height, width), mode="area")
