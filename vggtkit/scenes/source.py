"""Where scenes come from: a typed, storable choice, and the scenes of its two halves.

Scores are taken on the *calibration* half and a plan is judged on the *evaluation* half; the halves never
share a picture (photographs, recordings) or a random world (synthetic scenes).
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.scenes.co3d import read_co3d
from vggtkit.scenes.eth3d import read_eth3d
from vggtkit.scenes.ground_truth import Recording, prepare_views
from vggtkit.scenes.photos import Mode, list_photos, load_photos, picture_size
from vggtkit.scenes.rgbd import read_rgbd
from vggtkit.scenes.sampling import Group, Sampling, Split, deal, label
from vggtkit.scenes.scene import Scene
from vggtkit.scenes.synthetic import synthetic_scenes

__all__ = ["DEFAULT_VIEWS", "Kind", "SceneSource", "Split", "load_scenes", "parse_scenes", "pictures_of"]

Kind = Literal["synthetic", "photos", "rgbd", "eth3d", "co3d"]

DEFAULT_VIEWS: dict[Kind, int] = {"synthetic": 4, "photos": 2, "rgbd": 4, "eth3d": 4, "co3d": 4}
READERS: dict[Kind, Callable[[Path], list[Recording]]] = {"rgbd": read_rgbd, "eth3d": read_eth3d, "co3d": read_co3d}
_CHOICES = "synthetic or photos:DIR, rgbd:DIR, eth3d:DIR, co3d:DIR"
_GRID = 4  # query points a side


@dataclass(frozen=True)
class SceneSource:
    """Which scenes to use; compares by value and survives JSON.

    Attributes:
        kind: ``"synthetic"`` (rendered here, with ground truth), ``"photos"`` (a folder, without), or a
            recording with ground truth: ``"rgbd"``, ``"eth3d"``, ``"co3d"`` (docs/data.md).
        folder: of the photographs or recordings; None for synthetic scenes.
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

    kind: Kind = "synthetic"
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
            object.__setattr__(self, "views", DEFAULT_VIEWS[self.kind])

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


def parse_scenes(text: str) -> tuple[Kind, str | None]:
    """Take apart the value of ``--scenes``: ``synthetic`` or a kind and a folder, like ``photos:DIR``.

    Returns:
        Kind and folder (None for synthetic); whether the folder exists is not asked here.

    Raises:
        InputError: an unknown kind, synthetic with a folder, another kind without one.

    >>> parse_scenes("photos:data/kitchen"), parse_scenes("synthetic")
    (('photos', 'data/kitchen'), ('synthetic', None))
    """
    name, _, folder = text.partition(":")
    for kind in get_args(Kind):
        if name == kind:
            _check_kind(kind, folder or None)
            return kind, folder or None
    raise InputError(f"unknown scenes {text!r}: choose {_CHOICES}")


def load_scenes(source: SceneSource, split: Split, *, img_size: int, patch_size: int) -> list[Scene]:
    """Scenes of one split, ready for the model.

    Pictures are taken in their order, in groups of ``source.views`` that go to calibration and evaluation in
    turn (:func:`vggtkit.scenes.sampling.deal`). All pictures in use, of both splits, come to one size. Query points
    are a 4 x 4 grid on the first picture. Recordings have their cameras, depth and points as ``truth``
    (:func:`vggtkit.scenes.ground_truth.prepare_views`), no tracks.

    Args:
        source: which scenes.
        split: ``"calibration"`` or ``"evaluation"``.
        img_size: side of the model's input, pixels, where the source has no resolution of its own.
        patch_size: of the model, pixels; divides ``img_size``.

    Returns:
        At least one scene, all with images of one height and width and the same number of views; photographs
        have no ``truth``.

    Raises:
        InputError: as :func:`list_photos` and :func:`load_photos` or the reader of the recording; or evaluation
            wanted of one picture; or a resolution that is no multiple of the patch size.
        ValueError: an unknown split, or ``img_size`` no multiple of ``patch_size``.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for index in range(4):
    ...         Image.new("RGB", (64, 48)).save(Path(folder, f"{index}.png"))
    ...     scenes = load_scenes(SceneSource("photos", folder), "evaluation", img_size=56, patch_size=14)
    >>> scenes[0].name.endswith("[2:4]"), scenes[0].images.shape
    (True, torch.Size([2, 3, 42, 56]))
    """
    if split not in get_args(Split):
        raise ValueError(f"unknown split {split!r}: calibration or evaluation")
    if patch_size < 1 or img_size < 1 or img_size % patch_size:
        raise ValueError(f"img_size {img_size} is no positive multiple of patch_size {patch_size}")
    img_size = _resolution(source, img_size, patch_size)
    if source.kind == "synthetic":
        size = (img_size, img_size)
        scenes = synthetic_scenes(source.count, source.views, size, seed=source.seed, split=split)
    elif source.kind == "photos":
        scenes = _photo_scenes(source, split, img_size, patch_size)
    else:
        scenes = _recorded_scenes(source, split, img_size, patch_size)
    _check_scenes(scenes, patch_size)
    return scenes


def _resolution(source: SceneSource, img_size: int, patch_size: int) -> int:
    """The source's own resolution, else the model's."""
    wanted = source.resolution or img_size
    if wanted % patch_size:
        nearest = max(1, round(wanted / patch_size)) * patch_size
        raise InputError(f"--resolution {wanted} is no multiple of the patch size {patch_size}: give {nearest}")
    return wanted


def pictures_of(source: SceneSource, split: Split) -> frozenset[Path]:
    """Files of the pictures in one split; none for rendered scenes.

    Raises:
        InputError: as :func:`list_photos` or the reader of the recording.

    >>> pictures_of(SceneSource("synthetic"), "evaluation")
    frozenset()
    """
    if source.kind == "synthetic":
        return frozenset()
    if source.kind == "photos":
        files = [list_photos(source.folder or "")]
    else:
        recordings = READERS[source.kind](Path(source.folder or ""))
        files = [[frame.image for frame in recording.frames] for recording in recordings]
    return frozenset(files[own][index] for own, run in _groups(source, list(map(len, files)))[split] for index in run)


def _photo_scenes(source: SceneSource, split: Split, img_size: int, patch_size: int) -> list[Scene]:
    photos = list_photos(source.folder or "")
    groups = _groups(source, [len(photos)])
    if not groups[split]:
        raise _too_few(source, len(photos))
    used = sorted(index for own in groups.values() for _, run in own for index in run)
    # Pictures of both splits are read together, because their common size depends on all of them.
    images = load_photos(
        [photos[index] for index in used], mode=source.mode, target_size=img_size, patch_size=patch_size
    )
    place = {index: row for row, index in enumerate(used)}
    scenes = []
    for _, run in groups[split]:
        inner = picture_size(photos[run[0]], mode=source.mode, target_size=img_size, patch_size=patch_size)
        views = images[[place[index] for index in run]]
        name = f"{Path(source.folder or '').resolve().name}{label(run)}"
        scenes.append(Scene(name, views, _grid_points(inner, (views.shape[2], views.shape[3]))))
    return scenes


def _recorded_scenes(source: SceneSource, split: Split, img_size: int, patch_size: int) -> list[Scene]:
    """Scenes with ground truth; only the headers of the other split's pictures are read."""
    recordings = READERS[source.kind](Path(source.folder or ""))
    lengths = [len(recording.frames) for recording in recordings]
    groups = _groups(source, lengths)
    if not groups[split]:
        raise _too_few(source, sum(lengths))
    used = [recordings[own].frames[index].image for part in groups.values() for own, run in part for index in run]
    sizes = {
        path: picture_size(path, mode=source.mode, target_size=img_size, patch_size=patch_size) for path in set(used)
    }
    side = img_size if source.mode == "pad" else 0
    canvas = (max(side, *(size[1] for size in sizes.values())), max(side, *(size[0] for size in sizes.values())))
    scenes = []
    for own, run in groups[split]:
        frames = [recordings[own].frames[index] for index in run]
        images, truth = prepare_views(frames, canvas, mode=source.mode, target_size=img_size, patch_size=patch_size)
        points = _grid_points(sizes[frames[0].image], (canvas[1], canvas[0]))
        scenes.append(Scene(f"{recordings[own].name}{label(run)}", images, points, truth))
    return scenes


def _groups(source: SceneSource, lengths: list[int]) -> dict[Split, list[Group]]:
    return deal(
        lengths,
        views=source.views,
        count=source.count,
        stride=source.stride,
        max_images=source.max_images,
        sampling=source.sampling,
        seed=source.seed,
    )


def _grid_points(inner: tuple[int, int], outer: tuple[int, int]) -> Tensor:
    """``[16, 2]`` pixel xy: the middles of a 4 x 4 grid on a picture that sits centred in white."""
    steps = (torch.arange(_GRID, dtype=torch.float32) + 0.5) / _GRID
    # Integer k is the centre of pixel k (scenes.scene.Scene), so the edge lies half a pixel before 0.
    ys, xs = ((whole - own) // 2 + steps * own - 0.5 for own, whole in zip(inner, outer, strict=True))
    rows, columns = torch.meshgrid(ys, xs, indexing="ij")
    return torch.stack([columns, rows], dim=-1).reshape(-1, 2)


def _too_few(source: SceneSource, found: int) -> InputError:
    if found > 1:
        option = f"--stride {source.stride}" if source.stride >= found else f"--max-images {source.max_images}"
        return InputError(
            f"{option} leaves no photograph for evaluation: calibration and evaluation need one each, so allow at"
            f" least 2 of the {found}"
        )
    return InputError(
        f"the folder {source.folder!r} has a single photograph, which calibration uses: evaluation needs"
        " others, so give another folder with --images or --scenes"
    )


def _check_kind(kind: str, folder: str | None) -> None:
    if kind not in get_args(Kind):
        raise InputError(f"unknown kind of scenes {kind!r}: choose {_CHOICES}")
    if not isinstance(folder, str | None):
        raise InputError(f"the folder of the scenes is {folder!r}: give its path as text")
    if kind == "synthetic" and folder:
        raise InputError(f"synthetic scenes take no folder, got {folder!r}: for photographs give photos:{folder}")
    if kind != "synthetic" and not folder:
        also = " or --images DIR" if kind == "photos" else ""
        raise InputError(f"scenes of kind {kind} need a folder: give {kind}:DIR{also}")


def _check_integer(name: str, value: object, least: int, *, may_be_none: bool) -> None:
    if value is None and may_be_none:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} of the scenes is {value!r}: give a whole number, {least} or more")


def _check_scenes(scenes: list[Scene], patch_size: int) -> None:
    """What leaves this module must suit the model; anything else is our fault, hence no InputError."""
    for scene in scenes:
        images, points = scene.images, scene.query_points
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2:] != scenes[0].images.shape[2:]:
            raise ValueError(f"scene {scene.name}: images of shape {tuple(images.shape)} do not suit the others")
        if images.shape[2] % patch_size or images.shape[3] % patch_size:
            raise ValueError(f"scene {scene.name}: {tuple(images.shape[2:])} pixels are no whole patches")
        if images.dtype != torch.float32 or not bool(((images >= 0) & (images <= 1)).all()):
            raise ValueError(f"scene {scene.name}: pixels are not float32 in [0, 1]")
        if points.ndim != 2 or points.shape[1] != 2 or not bool(torch.isfinite(points).all()):
            raise ValueError(f"scene {scene.name}: query points of shape {tuple(points.shape)} are no finite [N, 2]")
