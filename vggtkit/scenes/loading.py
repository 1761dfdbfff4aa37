"""A source of scenes -> the scenes of one half, ready for the model, and which pictures they show."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.core.memory import free_bytes
from vggtkit.core.program import setting
from vggtkit.scenes.ground_truth import prepare_views
from vggtkit.scenes.kinds import SCENE_KINDS
from vggtkit.scenes.photos import picture_size
from vggtkit.scenes.recording import Recording
from vggtkit.scenes.sampling import FrameGroup, Split, label, split_pictures
from vggtkit.scenes.scene import Scene
from vggtkit.scenes.source import SceneSource

_GRID = 4  # query points a side
_DIGITS = 16  # of a digest
_CHUNK = 1 << 20
_VALUES_PER_PIXEL = 8  # of a rendered picture: colours, a point, depth, a mask
_NOTES = 8  # lines about recordings that are said, at most


def load_scenes(
    source: SceneSource,
    split: Split,
    *,
    img_size: int,
    patch_size: int,
    say: Callable[[str], None] = lambda _: None,
) -> list[Scene]:
    """Scenes of one split, ready for the model.

    Pictures are taken in their order, in groups of ``source.views`` that go to calibration and evaluation in
    turn (:func:`vggtkit.scenes.sampling.split_pictures`). All pictures in use, of both splits, come to one size.
    Query points are a 4 x 4 grid on the first picture. Recordings have their cameras, depth and points as ``truth``
    (:func:`vggtkit.scenes.ground_truth.prepare_views`), no tracks.

    Args:
        source: which scenes.
        split: ``"calibration"`` or ``"evaluation"``.
        img_size: side of the model's input, pixels, where the source has no resolution of its own.
        patch_size: of the model, pixels; divides ``img_size``.
        say: told what was left out of the folder, and why.

    Returns:
        At least one scene, all with images of one height and width and the same number of views; photographs
        have no ``truth``.

    Raises:
        InputError: as :func:`vggtkit.scenes.photos.load_photos` or the reader of the kind; or evaluation wanted of one
            picture; or a resolution that is no multiple of the patch size.
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
    kind = SCENE_KINDS.pick(source.kind)
    img_size = _resolution(source, img_size, patch_size)
    if kind.read is None and source.kind == "synthetic":
        _check_memory_for(source, img_size)
    if kind.load is not None:
        scenes = kind.load(source, split, img_size, patch_size)
    else:
        recordings = _read(source)
        for note in _few_notes(recordings):
            say(note)
        scenes = _recorded_scenes(recordings, source, split, img_size, patch_size)
    _check_scenes([scene for scene in scenes if scene.inputs is None], patch_size)
    return scenes


def _check_memory_for(source: SceneSource, img_size: int) -> None:
    """Refuse rendered scenes that would not fit into memory, before the first is rendered."""
    needed = source.count * source.views * _VALUES_PER_PIXEL * 4 * img_size**2
    free = free_bytes(torch.device("cpu"))
    if free is not None and needed > free:
        raise InputError(
            f"{source.count} scenes of {source.views} pictures of {img_size}x{img_size} take {needed / 1e9:.1f} GB of "
            f"memory, {free / 1e9:.1f} GB are free: give a lower {setting('num_scenes')}, {setting('views')} or "
            f"{setting('resolution')}"
        )


def _read(source: SceneSource) -> list[Recording]:
    """The recordings of a source; none where its kind makes scenes without any."""
    read = SCENE_KINDS.pick(source.kind).read
    return read(Path(source.folder or "")) if read else []


def notes_on(source: SceneSource) -> list[str]:
    """What was left out of a source's folder, and why, in a few lines; none for rendered scenes.

    Raises:
        InputError: as the reader of the kind.

    >>> notes_on(SceneSource("synthetic"))
    []
    """
    return _few_notes(_read(source))


def _few_notes(recordings: Sequence[Recording]) -> list[str]:
    notes = [note for recording in recordings for note in recording.notes]
    more = len(notes) - _NOTES
    return notes[:_NOTES] + [f"and {more} more lines like these about other recordings"] * (more > 0)


def _resolution(source: SceneSource, img_size: int, patch_size: int) -> int:
    """The source's own resolution, else the model's."""
    wanted = source.resolution or img_size
    if wanted % patch_size:
        nearest = max(1, round(wanted / patch_size)) * patch_size
        asked = setting("resolution", wanted)
        raise InputError(f"{asked} is no multiple of the patch size {patch_size}: give {nearest}")
    return wanted


def pictures_of(source: SceneSource, split: Split) -> frozenset[Path]:
    """Files of the pictures in one split; none for rendered scenes.

    Raises:
        InputError: as the reader of the kind.

    >>> pictures_of(SceneSource("synthetic"), "evaluation")
    frozenset()
    """
    return frozenset(_pictures(source)[split])


def picture_digests(source: SceneSource, split: Split) -> frozenset[str]:
    """What the pictures in one split are, whatever they are called: 16 hex digits of the SHA-256 of each file.

    Empty for scenes without files, such as rendered ones.

    Raises:
        InputError: as the reader of the kind, or a file that cannot be read.

    >>> picture_digests(SceneSource("synthetic"), "evaluation")
    frozenset()
    """
    return frozenset(digest_pictures(pictures_of(source, split)))


def digest_pictures(paths: Iterable[Path]) -> dict[str, Path]:
    """Files by digest; of two with the same content the first by name.

    Raises:
        InputError: a file that cannot be read.
    """
    digests: dict[str, Path] = {}
    for path in sorted(paths):
        digests.setdefault(picture_digest(path), path)
    return digests


def picture_digest(path: Path) -> str:
    """16 hex digits of the SHA-256 of a file.

    Raises:
        InputError: it cannot be read.
    """
    sha256 = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                sha256.update(chunk)
    except OSError as error:
        raise InputError(f"the picture {str(path)!r} cannot be read ({error.strerror}): remove or repair it") from error
    return sha256.hexdigest()[:_DIGITS]


def check_source(source: SceneSource) -> None:
    """Refuse a source before long work that would be refused after it, at evaluation.

    Raises:
        InputError: no picture is left for evaluation, or a picture is in both halves under two names.

    >>> check_source(SceneSource("synthetic"))
    """
    if SCENE_KINDS.pick(source.kind).read is None:
        return
    pictures = _pictures(source)
    if not pictures["evaluation"]:
        raise _too_few(source, sum(len(recording.frames) for recording in _read(source)))
    first, second = (digest_pictures(pictures[split]) for split in get_args(Split))
    for digest in first.keys() & second.keys():
        raise InputError(
            f"the pictures {str(first[digest])!r} and {second[digest].name!r} are the same: calibration would have one"
            " and evaluation the other, so remove one"
        )


def _pictures(source: SceneSource) -> dict[Split, list[Path]]:
    recordings = _read(source)
    groups = _groups(source, [len(recording.frames) for recording in recordings])
    return {
        split: [recordings[own].frames[index].image for own, run in part for index in run]
        for split, part in groups.items()
    }


def _recorded_scenes(
    recordings: Sequence[Recording], source: SceneSource, split: Split, img_size: int, patch_size: int
) -> list[Scene]:
    """Scenes of frames, with ground truth where they have cameras; of the other split only headers are read."""
    groups = _groups(source, [len(recording.frames) for recording in recordings])
    if not groups[split]:
        raise _too_few(source, sum(len(recording.frames) for recording in recordings))
    used = {recordings[own].frames[index].image for part in groups.values() for own, run in part for index in run}
    sizes = {path: picture_size(path, mode=source.mode, target_size=img_size, patch_size=patch_size) for path in used}
    side = img_size if source.mode == "pad" else 0
    canvas = (max(side, *(size[1] for size in sizes.values())), max(side, *(size[0] for size in sizes.values())))
    scenes = []
    for own, run in groups[split]:
        frames = [recordings[own].frames[index] for index in run]
        images, truth = prepare_views(frames, canvas, mode=source.mode, target_size=img_size, patch_size=patch_size)
        points = grid_points(sizes[frames[0].image], (canvas[1], canvas[0]))
        scenes.append(Scene(f"{recordings[own].name}{label(run)}", images, points, truth))
    return scenes


def _groups(source: SceneSource, lengths: list[int]) -> dict[Split, list[FrameGroup]]:
    return split_pictures(
        lengths,
        views=source.views,
        count=source.count,
        stride=source.stride,
        max_images=source.max_images,
        sampling=source.sampling,
        seed=source.seed,
    )


def grid_points(inner: tuple[int, int], outer: tuple[int, int]) -> Tensor:
    """``[16, 2]`` pixel xy: the middles of a 4 x 4 grid on a picture that sits centred in white."""
    steps = (torch.arange(_GRID, dtype=torch.float32) + 0.5) / _GRID
    # Integer k is the centre of pixel k (scenes.scene.Scene), so the edge lies half a pixel before 0.
    ys, xs = ((whole - own) // 2 + steps * own - 0.5 for own, whole in zip(inner, outer, strict=True))
    rows, columns = torch.meshgrid(ys, xs, indexing="ij")
    return torch.stack([columns, rows], dim=-1).reshape(-1, 2)


def _too_few(source: SceneSource, photographs: int) -> InputError:
    if photographs > 1:
        strided = source.stride >= photographs
        option = setting("stride", source.stride) if strided else setting("max_images", source.max_images)
        return InputError(
            f"{option} leaves no photograph for evaluation: calibration and evaluation need one each, so allow at"
            f" least 2 of the {photographs}"
        )
    return InputError(
        f"the folder {source.folder!r} has a single photograph, which calibration uses: evaluation needs"
        f" others, so give another folder with {setting('images')} or {setting('scenes')}"
    )


def _check_scenes(scenes: list[Scene], patch_size: int) -> None:
    """What leaves this module must suit the model; anything else is our fault, hence no InputError."""
    for scene in scenes:
        if scene.inputs is not None:
            continue  # a model that is no VGGT takes what it is given
        images, points = scene.images, scene.query_points
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2:] != scenes[0].images.shape[2:]:
            raise ValueError(f"scene {scene.name}: images of shape {tuple(images.shape)} do not suit the others")
        if images.shape[2] % patch_size or images.shape[3] % patch_size:
            raise ValueError(f"scene {scene.name}: {tuple(images.shape[2:])} pixels are no whole patches")
        if images.dtype != torch.float32 or not bool(((images >= 0) & (images <= 1)).all()):
            raise ValueError(f"scene {scene.name}: pixels are not float32 in [0, 1]")
        if points.ndim != 2 or points.shape[1] != 2 or not bool(torch.isfinite(points).all()):
            raise ValueError(f"scene {scene.name}: query points of shape {tuple(points.shape)} are no finite [N, 2]")
