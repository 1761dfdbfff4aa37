"""A reconstruction, written to a folder that appears complete or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.reconstruction.cloud import Cloud, cloud_of, write_ply
from analysis.reconstruction.colmap import write_model
from analysis.reconstruction.depth_files import write_archive, write_depth_pictures
from analysis.reconstruction.differences import Differences, write_differences
from analysis.reconstruction.pictures import Pictures
from analysis.reconstruction.previews import write_previews
from analysis.reconstruction.views import Views
from analysis.report.charts.overview_chart import write_overview
from vggtkit.core.atomic import replacing_folder

INDEX = "reconstruction.json"
"""What is in the folder and where it comes from; also what tells a folder of ours."""
DEPTH, PREVIEWS, COLMAP, DIFFERENCES = "depth", "previews", "colmap", "differences"
ARCHIVE, CLOUD, OVERVIEW = "views.npz", "points.ply", "overview.png"


@dataclass(frozen=True)
class Reconstruction:
    """Pictures, what a network sees in them, and the points that follow.

    Attributes:
        pictures: that were seen.
        images: as the network is given them, ``[S, H, W, 3]``.
        views: depth and cameras; depth is 0 beside the pictures.
        cloud: points.
    """

    pictures: Pictures
    images: NDArray[np.uint8]
    views: Views
    cloud: Cloud


class WrittenFolder(NamedTuple):
    """What was written.

    Attributes:
        depth_per_step: what a step of the 16-bit pictures stands for.
        points: of the PLY file.
        colmap_points: of the COLMAP model.
    """

    depth_per_step: float
    points: int
    colmap_points: int


def images_of(pictures: Pictures) -> NDArray[np.uint8]:
    """The pictures as the network is given them, ``[S, H, W, 3]``.

    Raises:
        InputError: one cannot be read.
    """
    whole = [pictures.scene([number]).images[0].permute(1, 2, 0).numpy() for number in range(len(pictures))]
    return np.stack([(255 * image).round().astype(np.uint8) for image in whole])


def reconstruction_of(pictures: Pictures, views: Views, percentile: float) -> Reconstruction:
    """What views of pictures amount to.

    Args:
        pictures: that were seen.
        views: of them.
        percentile: pixels below this percentile of confidence become no points.

    Raises:
        InputError: a picture cannot be read any more.
    """
    images, shown = images_of(pictures), pictures.shown()
    depth = np.where(shown, views.depth, np.float32(0))
    views = Views(depth, views.confidence, views.extrinsics, views.intrinsics)
    return Reconstruction(pictures, images, views, cloud_of(views, images, shown, percentile))


def write_reconstruction(
    made: Reconstruction, folder: Path, facts: Mapping[str, object], differences: Differences | None = None
) -> WrittenFolder:
    """Write everything; the folder appears complete, and takes the place of an earlier reconstruction.

    Args:
        made: what is written.
        folder: new, empty, or of an earlier reconstruction.
        facts: for the index.
        differences: from another reconstruction of the same pictures.

    Raises:
        InputError: the folder cannot be written, or holds other files.
    """
    pictures, views, shown = made.pictures, made.views, made.pictures.shown()
    names = [picture.name for picture in pictures.pictures]
    with replacing_folder(folder, INDEX) as place:
        for name in (DEPTH, PREVIEWS, COLMAP):
            (place / name).mkdir()
        step = write_depth_pictures(views.depth, pictures.stems, place / DEPTH)
        write_archive(views, names, shown, place / ARCHIVE)
        few = write_model(views, pictures.pictures, made.cloud, place / COLMAP)
        write_ply(made.cloud, place / CLOUD)
        write_previews(views, made.images, shown, made.cloud.threshold, pictures.stems, place / PREVIEWS)
        write_overview(made.cloud, views, place / OVERVIEW)
        written = WrittenFolder(step, len(made.cloud), few)
        if differences is not None:
            (place / DIFFERENCES).mkdir()
            write_differences(differences, views, shown, pictures.stems, place / DIFFERENCES)
        index = {**facts, **written._asdict(), "confidence_threshold": made.cloud.threshold, "pictures": names}
        (place / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return written
