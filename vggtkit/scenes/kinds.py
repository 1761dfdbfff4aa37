"""The kinds of scenes, in one registry: what ``--scenes`` takes, and who reads it.

A kind of one's own is one `SceneKind` that is registered, say by a plugin; it is then known everywhere:

    SCENE_KINDS.register("mykind", SceneKind("mykind", "my own recordings", read=read_my_recordings))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggtkit.core.registry import Registry
from vggtkit.scenes.co3d import read_co3d
from vggtkit.scenes.co3d_split import read_co3d_test, read_co3d_train
from vggtkit.scenes.eth3d import read_eth3d
from vggtkit.scenes.photos import read_photos
from vggtkit.scenes.recording import Recording
from vggtkit.scenes.rgbd import read_rgbd
from vggtkit.scenes.sampling import Split
from vggtkit.scenes.scene import Scene
from vggtkit.scenes.seven_scenes_split import read_seven_scenes_test, read_seven_scenes_train
from vggtkit.scenes.synthetic import synthetic_scenes

ReadRecordings = Callable[[Path], list[Recording]]
# The first is a `SceneSource`, which is checked against the registry below, so that this module cannot import it.
LoadScenes = Callable[[Any, Split, int, int], list[Scene]]


@dataclass(frozen=True)
class SceneKind:
    """A kind of scenes.

    Attributes:
        key: before the colon in ``--scenes key:DIR``.
        title: what it is, in a few words.
        default_views: pictures in a scene where no number is asked for.
        read: the recordings of a folder, of which `vggtkit.scenes.load_scenes` makes scenes; frames may lack cameras.
        needs_folder: whether something stands behind the colon.
        load: makes the scenes itself, in the place of ``read``, from the source, the split, the side of the model's
            input in pixels and its patch size.
        metavar: what stands behind the colon, for messages.

    Raises:
        ValueError: both or none of ``read`` and ``load``, or ``read`` without a folder.
    """

    key: str
    title: str
    default_views: int = 4
    read: ReadRecordings | None = None
    needs_folder: bool = True
    load: LoadScenes | None = None
    metavar: str = "DIR"

    def __post_init__(self) -> None:
        if (self.read is None) == (self.load is None):
            raise ValueError(f"the scene kind {self.key!r} needs one of read and load")
        if self.read is not None and not self.needs_folder:
            raise ValueError(f"the scene kind {self.key!r} reads a folder, so that it needs one")

    @property
    def place(self) -> str:
        """What stands behind the colon; "" for nothing."""
        return self.metavar if self.needs_folder else ""


def _load_synthetic(source: Any, split: Split, img_size: int, patch_size: int) -> list[Scene]:  # noqa: ANN401
    del patch_size  # divides img_size
    return synthetic_scenes(source.count, source.views, (img_size, img_size), seed=source.seed, split=split)


SCENE_KINDS: Registry[SceneKind] = Registry("kind of scenes")
"""All kinds by key."""

for _kind in (
    SceneKind("synthetic", "rooms rendered here, with ground truth", needs_folder=False, load=_load_synthetic),
    SceneKind("photos", "photographs in a folder", 2, read_photos),
    SceneKind("rgbd", "RGB-D recordings: plain, TUM, 7-Scenes", 4, read_rgbd),
    SceneKind("eth3d", "ETH3D, or any COLMAP model of undistorted pictures", 4, read_eth3d),
    SceneKind("co3d", "CO3Dv2", 4, read_co3d),
    SceneKind("co3d-train", "CO3Dv2, training sequences of the published few-view split", 4, read_co3d_train),
    SceneKind("co3d-test", "CO3Dv2, its test sequences", 4, read_co3d_test),
    SceneKind("7scenes-train", "7-Scenes, training sequences of the published split", 4, read_seven_scenes_train),
    SceneKind("7scenes-test", "7-Scenes, its test sequences", 4, read_seven_scenes_test),
):
    SCENE_KINDS.register(_kind.key, _kind)


def scene_choices() -> str:
    """What ``--scenes`` takes, for messages and help.

    >>> scene_choices().partition(",")[0]
    'synthetic or photos:DIR'
    """
    alone = [key for key, kind in SCENE_KINDS.items() if not kind.place]
    placed = [f"{key}:{kind.place}" for key, kind in SCENE_KINDS.items() if kind.place]
    return " or ".join(part for part in (", ".join(alone), ", ".join(placed)) if part)
