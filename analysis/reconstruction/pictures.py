"""Which pictures are reconstructed, and how each of them lies in what the network sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.scenes import Scene, list_photos, load_photos
from vggtkit.scenes.depth_files import Size
from vggtkit.scenes.photos import centre_on_white, note_skipped, place_on, shown_size
from vggtkit.scenes.sampling import spread


@dataclass(frozen=True)
class PlacedPicture:
    """A picture, and where it lies on the canvas that all of them share.

    Attributes:
        name: of its file.
        size: of the file, as it is shown.
        resized: what the network sees of it is this large, before crop mode cuts it,
        corner: and its first pixel lies in this column and row of the canvas; above it where it is cut.
    """

    name: str
    size: Size
    resized: Size
    corner: tuple[int, int]

    @property
    def stretch(self) -> tuple[float, float]:
        """Pixels of the canvas per pixel of the file, across and down."""
        return self.resized[0] / self.size[0], self.resized[1] / self.size[1]


class Pictures:
    """Pictures of one place, read when they are asked for.

    Args:
        pictures: how each lies.
        canvas: what the network sees is this large.
        files: of the pictures; none where they were rendered.
        rendered: ``[S, 3, H, W]`` in [0, 1], where there are no files.
        prepared: target and patch size of the preparation.
        notes: what is to be said of their folder.
    """

    def __init__(
        self,
        pictures: Sequence[PlacedPicture],
        canvas: Size,
        files: Sequence[Path] = (),
        rendered: Tensor | None = None,
        prepared: tuple[int, int] = (518, 14),
        notes: Sequence[str] = (),
    ) -> None:
        self.pictures, self.canvas, self.notes = tuple(pictures), canvas, tuple(notes)
        self._files, self._rendered, self._prepared = tuple(files), rendered, prepared
        self.stems = _stems([picture.name for picture in pictures])

    def __len__(self) -> int:
        """How many."""
        return len(self.pictures)

    def scene(self, numbers: Sequence[int]) -> Scene:
        """Some of them as the network is given them.

        Raises:
            InputError: a picture is missing or damaged.
        """
        names = f"{self.pictures[numbers[0]].name} to {self.pictures[numbers[-1]].name}"
        return Scene(names, torch.stack([self._image(number) for number in numbers]), torch.zeros(0, 2))

    def _image(self, number: int) -> Tensor:
        if self._rendered is not None:
            return self._rendered[number]
        target, patch = self._prepared
        prepared = load_photos([self._files[number]], target_size=target, patch_size=patch)[0]
        return centre_on_white(prepared, self.canvas[1], self.canvas[0])

    def shown(self) -> NDArray[np.bool_]:
        """Which pixels ``[S, H, W]`` of the canvas show a picture; the others are white beside it."""
        mask = np.zeros((len(self), self.canvas[1], self.canvas[0]), dtype=np.bool_)
        for number, picture in enumerate(self.pictures):
            left, top = picture.corner
            mask[number, max(0, top) : top + picture.resized[1], max(0, left) : left + picture.resized[0]] = True
        return mask


def photographs(folder: str | Path, sizes: tuple[int, int], *, most: int | None = None, stride: int = 1) -> Pictures:
    """The photographs of a folder, in the order of their names.

    Args:
        folder: as `list_photos` takes it.
        sizes: width that pictures are brought to, and the patch size of the network.
        most: at most so many of them, evenly spread.
        stride: every so many of them; before ``most`` counts.

    Raises:
        InputError: no photographs, or one that is damaged or has a name that lists cannot hold.
    """
    files = list_photos(folder)
    notes = note_skipped(files[0].parent)
    files = files[::stride]
    files = spread(files, len(files) if most is None else most)
    for file in files:
        if not file.name.isprintable():
            raise InputError(f"the picture {file.name!r} has a name that a list cannot hold: rename it")
    target, patch = sizes
    shown = [shown_size(file) for file in files]
    whole = [place_on((target, target), size, mode="crop", target_size=target, patch_size=patch)[0] for size in shown]
    canvas = (max(size[0] for size in whole), max(min(size[1], target) for size in whole))
    placed = [
        PlacedPicture(file.name, size, *place_on(canvas, size, mode="crop", target_size=target, patch_size=patch))
        for file, size in zip(files, shown, strict=True)
    ]
    return Pictures(placed, canvas, files=files, prepared=sizes, notes=notes)


def rendered(scene: Scene) -> Pictures:
    """The pictures of a scene that was rendered."""
    height, width = scene.images.shape[-2:]
    placed = [
        PlacedPicture(f"view_{number + 1}.png", (width, height), (width, height), (0, 0))
        for number in range(len(scene.images))
    ]
    return Pictures(placed, (width, height), rendered=scene.images)


def width_for(asked: int | None, sizes: tuple[int, int]) -> tuple[int, int]:
    """Width that pictures are brought to, and the patch size.

    Args:
        asked: a width; None for that which the network is made for.
        sizes: of the network, as `Subject.picture_sizes` has them.

    Raises:
        InputError: it is no multiple of the patch size.

    >>> width_for(None, (518, 14)), width_for(280, (518, 14))
    ((518, 14), (280, 14))
    """
    own, patch = sizes
    width = asked or own
    if width % patch:
        nearest = max(1, round(width / patch)) * patch
        raise InputError(f"{setting('resolution', width)} is no multiple of the patch size {patch}: give {nearest}")
    return width, patch


def _stems(names: Sequence[str]) -> tuple[str, ...]:
    """What files made of pictures are called: as the picture without its ending, where that is the only one."""
    stems = [Path(name).stem for name in names]
    lower = [stem.lower() for stem in stems]
    return tuple(stem if lower.count(stem.lower()) == 1 else name for stem, name in zip(stems, names, strict=True))
