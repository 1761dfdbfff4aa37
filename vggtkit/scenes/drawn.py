"""One scene of so many frames, drawn by lot, from each recording: how papers on camera poses test.

Scenes are drawn first and read when they are needed, as thousands of them do not fit into memory; each has the size of
its own pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vggtkit.core.errors import InputError
from vggtkit.scenes.ground_truth import prepare_views
from vggtkit.scenes.loading import grid_points, picture_digest
from vggtkit.scenes.photos import Mode, picture_size
from vggtkit.scenes.recording import Frame, Recording
from vggtkit.scenes.scene import Scene

MODE: Mode = "crop"


@dataclass(frozen=True)
class DrawnScene:
    """A scene that was not read yet.

    Attributes:
        name: of its recording.
        frames: in the order in which they were drawn.
    """

    name: str
    frames: tuple[Frame, ...]

    @property
    def group(self) -> str:
        """What comes before the last slash of its name: the category, of CO3D's."""
        return self.name.rpartition("/")[0]

    def digest(self) -> str:
        """What it shows and what is known of it, whatever its files are called: 16 hex digits of a SHA-256.

        Raises:
            InputError: a picture that cannot be read.
        """
        sha256 = hashlib.sha256()
        for frame in self.frames:
            cameras = [np.zeros(0) if known is None else known for known in (frame.intrinsics, frame.extrinsics)]
            sha256.update(picture_digest(frame.image).encode() + b"".join(each.tobytes() for each in cameras))
        return sha256.hexdigest()[:16]

    def read(self, img_size: int, patch_size: int) -> Scene:
        """The scene for a model of this input.

        Raises:
            InputError: a picture or depth that cannot be used.
        """
        sizes = [picture_size(f.image, mode=MODE, target_size=img_size, patch_size=patch_size) for f in self.frames]
        canvas = max(size[1] for size in sizes), max(size[0] for size in sizes)
        images, truth = prepare_views(self.frames, canvas, mode=MODE, target_size=img_size, patch_size=patch_size)
        return Scene(self.name, images, grid_points(sizes[0], (canvas[1], canvas[0])), truth)


def draw_scenes(
    recordings: Sequence[Recording], views: int, *, least: int = 0, seed: int = 0, per_group: int = 0
) -> list[DrawnScene]:
    """Draw ``views`` different frames of every recording that has enough.

    Args:
        recordings: in any order; their names decide.
        views: frames in a scene.
        least: frames that a recording must have, if more than ``views``.
        seed: of the lot.
        per_group: recordings used of every group (category), at most, the first by name; 0 for all.

    Raises:
        InputError: no recording has enough frames.
    """
    lot = np.random.RandomState(seed)
    needed = max(views, least)
    drawn: list[DrawnScene] = []
    used: dict[str, int] = {}
    for recording in sorted(recordings, key=lambda each: each.name):
        if len(recording.frames) < needed:
            continue
        chosen = lot.choice(len(recording.frames), views, replace=False)
        scene = DrawnScene(recording.name, tuple(recording.frames[number] for number in chosen))
        used[scene.group] = used.get(scene.group, 0) + 1
        if not per_group or used[scene.group] <= per_group:
            drawn.append(scene)
    if not drawn:
        longest = max((len(recording.frames) for recording in recordings), default=0)
        raise InputError(f"no recording has {needed} frames to draw {views} from; the longest has {longest}")
    return drawn
