"""Where scenes come from: a typed, storable choice, and the scenes of its two halves.

Scores are taken on the *calibration* half and a plan is judged on the *evaluation* half; the halves never
share a picture (photographs) or a random world (synthetic scenes).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor

from errors import InputError
from scenes.photos import Mode, list_photos, load_photos, picture_size
from scenes.scene import Scene
from scenes.synthetic import synthetic_scenes

Kind = Literal["synthetic", "photos"]
Split = Literal["calibration", "evaluation"]

DEFAULT_VIEWS: dict[Kind, int] = {"synthetic": 4, "photos": 2}
_GRID = 4  # query points a side
_T = TypeVar("_T")


@dataclass(frozen=True)
class SceneSource:
    """Which scenes to use; compares by value and survives JSON.

    Attributes:
        kind: ``"synthetic"`` (rendered here, with ground truth) or ``"photos"`` (a folder, without).
        folder: of the photographs; None for synthetic scenes.
        count: scenes in each split, at most.
        views: pictures in a scene; 0 asks for the kind's own number (synthetic 4, photos 2).
        seed: of the synthetic scenes.
        mode: preprocessing of photographs, see :func:`scenes.photos.load_photos`.
        max_images: photographs used of the folder, at most, evenly spread over it; None for all.

    Raises:
        InputError: a value out of range, a missing folder for photos, a folder for synthetic scenes.

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

    def __post_init__(self) -> None:
        _check_kind(self.kind, self.folder)
        if self.mode not in get_args(Mode):
            raise InputError(f"unknown preprocessing {self.mode!r}: choose crop or pad")
        for name, least in (("count", 1), ("views", 0), ("seed", 0), ("max_images", 1)):
            _check_integer(name, getattr(self, name), least, may_be_none=name == "max_images")
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
    """Take apart the value of ``--scenes``: ``synthetic`` or ``photos:DIR``.

    Returns:
        Kind and folder (None for synthetic); whether the folder exists is not asked here.

    Raises:
        InputError: an unknown kind, photos without a folder, synthetic with one.

    >>> parse_scenes("photos:data/kitchen"), parse_scenes("synthetic")
    (('photos', 'data/kitchen'), ('synthetic', None))
    """
    name, _, folder = text.partition(":")
    for kind in get_args(Kind):
        if name == kind:
            _check_kind(kind, folder or None)
            return kind, folder or None
    raise InputError(f"unknown scenes {text!r}: choose synthetic or photos:DIR")


def load_scenes(source: SceneSource, split: Split, *, img_size: int, patch_size: int) -> list[Scene]:
    """Scenes of one split, ready for the model.

    Photographs are taken in the order of their names, in runs of ``source.views``; the runs go to calibration
    and evaluation in turn. A folder too small for a run in each split has its runs shortened; what is left
    over at the end is dropped. Of more than ``source.count`` runs in a split, an even spread is used. All
    pictures in use, of both splits, come to one size. Query points are a 4 x 4 grid on the first picture.

    Args:
        source: which scenes.
        split: ``"calibration"`` or ``"evaluation"``.
        img_size: side of the model's input, pixels.
        patch_size: of the model, pixels; divides ``img_size``.

    Returns:
        At least one scene, all with images of one height and width; photographs have no ``truth``.

    Raises:
        InputError: as :func:`list_photos` and :func:`load_photos`; or evaluation wanted of one photograph.
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
    if source.kind == "synthetic":
        size = (img_size, img_size)
        scenes = synthetic_scenes(source.count, source.views, size, seed=source.seed, split=split)
    else:
        scenes = _photo_scenes(source, split, img_size, patch_size)
    _check_scenes(scenes, patch_size)
    return scenes


def _photo_scenes(source: SceneSource, split: Split, img_size: int, patch_size: int) -> list[Scene]:
    folder = Path(source.folder or "")
    photos = list_photos(folder)
    chosen = _spread(photos, source.max_images or len(photos))
    runs = {name: _runs(len(chosen), source.views, name, source.count) for name in get_args(Split)}
    if not runs[split]:
        raise _too_few(source, len(photos))
    used = sorted(index for own in runs.values() for run in own for index in run)
    # Pictures of both splits are read together, because their common size depends on all of them.
    images = load_photos(
        [chosen[index] for index in used], mode=source.mode, target_size=img_size, patch_size=patch_size
    )
    place = {index: row for row, index in enumerate(used)}
    scenes = []
    for run in runs[split]:
        inner = picture_size(chosen[run[0]], mode=source.mode, target_size=img_size, patch_size=patch_size)
        name = f"{folder.resolve().name}[{run.start}:{run.stop}]"
        views = images[place[run[0]] : place[run[-1]] + 1].clone()
        scenes.append(Scene(name, views, _grid_points(inner, (views.shape[2], views.shape[3]))))
    return scenes


def _runs(photos: int, views: int, split: Split, count: int) -> list[range]:
    """Runs of picture indices that belong to a split: every other one, evenly thinned to ``count``."""
    length = max(1, min(views, photos // 2))
    runs = [range(start, start + length) for start in range(0, photos - length + 1, length)]
    return _spread(runs[get_args(Split).index(split) :: 2], count)


def _spread(items: Sequence[_T], most: int) -> list[_T]:
    """At most ``most`` of the items, evenly over the whole sequence, in order, the first included."""
    kept = min(most, len(items))
    return [items[index * len(items) // kept] for index in range(kept)]


def _grid_points(inner: tuple[int, int], outer: tuple[int, int]) -> Tensor:
    """``[16, 2]`` pixel xy: the middles of a 4 x 4 grid on a picture that sits centred in white."""
    steps = (torch.arange(_GRID, dtype=torch.float32) + 0.5) / _GRID
    # Integer k is the centre of pixel k (scenes.scene.Scene), so the edge lies half a pixel before 0.
    ys, xs = ((whole - own) // 2 + steps * own - 0.5 for own, whole in zip(inner, outer, strict=True))
    rows, columns = torch.meshgrid(ys, xs, indexing="ij")
    return torch.stack([columns, rows], dim=-1).reshape(-1, 2)


def _too_few(source: SceneSource, found: int) -> InputError:
    if found > 1:
        return InputError(
            f"--max-images {source.max_images} leaves no photograph for evaluation: calibration and"
            f" evaluation need one each, so allow at least 2 of the {found}"
        )
    return InputError(
        f"the folder {source.folder!r} has a single photograph, which calibration uses: evaluation needs"
        " others, so give another folder with --images"
    )


def _check_kind(kind: str, folder: str | None) -> None:
    if kind not in get_args(Kind):
        raise InputError(f"unknown kind of scenes {kind!r}: choose {' or '.join(get_args(Kind))}")
    if not isinstance(folder, str | None):
        raise InputError(f"the folder of the scenes is {folder!r}: give its path as text")
    if kind == "photos" and not folder:
        raise InputError("scenes of kind photos need a folder: give photos:DIR or --images DIR")
    if kind == "synthetic" and folder:
        raise InputError(f"synthetic scenes take no folder, got {folder!r}: for photographs give photos:{folder}")


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
