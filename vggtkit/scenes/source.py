"""Where scenes come from: a typed, storable choice.

Scores are taken on the *calibration* half and a plan is judged on the *evaluation* half; the halves never
share a picture (photographs, recordings) or a random world (synthetic scenes).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.scenes.kinds import SCENE_KINDS, scene_choices
from vggtkit.scenes.photos import Mode
from vggtkit.scenes.sampling import Sampling, Split

__all__ = ["SceneSource", "Split", "parse_scenes"]


@dataclass(frozen=True)
class SceneSource:
    """Which scenes to use; compares by value and survives JSON.

    Attributes:
        kind: one of `vggtkit.scenes.kinds.SCENE_KINDS`: ``"synthetic"`` (rendered here, with ground truth),
            ``"photos"`` (a folder, without), or a recording with ground truth: ``"rgbd"``, ``"eth3d"``, ``"co3d"``
            (docs/data.md).
        folder: of the photographs or recordings, or what else the kind is given; None for synthetic scenes.
        count: scenes in each split, at most.
        views: pictures in a scene; 0 asks for the kind's own number (photos 2, others 4).
        seed: of the synthetic scenes, or of random sampling.
        mode: preprocessing of photographs, see :func:`vggtkit.scenes.photos.load_photos`.
        max_images: pictures used of the folder, at most, evenly spread over it; None for all.
        stride: uses every ``stride``-th picture; before ``max_images`` counts.
        sampling: ``"runs"`` of neighbouring pictures, or ``"random"`` groups of one recording.
        resolution: pixels along the longer side (the width, in crop mode); None for what the model is made for.

    Raises:
        InputError: a value out of range, no folder where one is needed, a folder for synthetic scenes.

    >>> source = SceneSource("photos", folder="kitchen")
    >>> source.views, SceneSource.from_dict(source.to_dict()) == source
    (2, True)
    """

    kind: str = "synthetic"
    folder: str | None = None
    count: int = 4
    views: int = 0
    seed: int = 0
    mode: Mode = "crop"
    max_images: int | None = None
    stride: int = 1
    sampling: Sampling = "runs"
    resolution: int | None = None

    def __post_init__(self) -> None:
        _check_kind(self.kind, self.folder)
        if self.mode not in get_args(Mode):
            raise InputError(f"unknown preprocessing {self.mode!r}: choose crop or pad")
        if self.sampling not in get_args(Sampling):
            raise InputError(f"unknown sampling {self.sampling!r}: choose runs or random")
        numbers = (("count", 1), ("views", 0), ("seed", 0), ("max_images", 1), ("stride", 1), ("resolution", 1))
        for name, least in numbers:
            _check_integer(name, getattr(self, name), least, may_be_none=name in ("max_images", "resolution"))
        if self.views == 0:
            object.__setattr__(self, "views", SCENE_KINDS[self.kind].default_views)

    def to_dict(self) -> dict[str, str | int | None]:
        """The fields as JSON takes them.

        >>> SceneSource(count=2).to_dict()["count"]
        2
        """
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "SceneSource":
        """Back from :meth:`to_dict`; a field left out takes its default.

        Raises:
            InputError: a field that is unknown or out of range.

        >>> SceneSource.from_dict({"kind": "synthetic", "seed": 7}).seed
        7
        """
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(fields) - set(known))
        if unknown:
            raise InputError(
                f"the scene source has unknown fields {', '.join(unknown)}: the fields are {', '.join(known)}"
            )
        return cls(**fields)


def parse_scenes(text: str) -> tuple[str, str | None]:
    """Take apart the value of ``--scenes``: ``synthetic`` or a kind and a folder, like ``photos:DIR``.

    Returns:
        Kind and folder (None for synthetic); whether the folder exists is not asked here.

    Raises:
        InputError: an unknown kind, synthetic with a folder, another kind without one.

    >>> parse_scenes("photos:data/kitchen"), parse_scenes("synthetic")
    (('photos', 'data/kitchen'), ('synthetic', None))
    """
    kind, _, folder = text.partition(":")
    if kind not in SCENE_KINDS:
        raise InputError(f"unknown scenes {text!r}: choose {scene_choices()}")
    _check_kind(kind, folder or None)
    return kind, folder or None


def _check_kind(kind: object, folder: object) -> None:
    if not isinstance(kind, str) or kind not in SCENE_KINDS:
        more = f"; a plugin's needs {setting('plugin', 'FILE')}"
        raise InputError(f"unknown kind of scenes {kind!r}: choose {scene_choices()}{more}")
    if not isinstance(folder, str | None):
        raise InputError(f"the folder of the scenes is {folder!r}: give its path as text")
    place = SCENE_KINDS[kind].place
    if not place and folder:
        raise InputError(f"{kind} scenes take no folder, got {folder!r}: for photographs give photos:{folder}")
    if place and not folder:
        also = f" or {setting('images', 'DIR')}" if kind == "photos" else ""
        what = "a folder" if place == "DIR" else place
        raise InputError(f"scenes of kind {kind} need {what}: give {kind}:{place}{also}")


def _check_integer(name: str, value: object, least: int, *, may_be_none: bool) -> None:
    if value is None and may_be_none:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} of the scenes is {value!r}: give a whole number, {least} or more")
