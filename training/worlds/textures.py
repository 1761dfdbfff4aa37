"""A bank of pictures to put on surfaces: natural statistics, regular patterns, plain walls; with their reductions.

Natural pictures are near to dead leaves (occluding discs of all sizes; Lee, Mumford and Huang, "Occlusion Models for
Natural Images", IJCV 2001) and have spectra that fall with the frequency, so most pictures are made of these two.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vggtkit.core.arrays import Array

SIDE = 128
LEVELS = SIDE.bit_length()  # the last is one texel
LEAVES = 90
LARGEST_LEAF = 0.35  # radius, in sides of the picture
_LEVEL_TEXELS = [(SIDE >> level) ** 2 for level in range(LEVELS)]


@dataclass(frozen=True)
class Bank:
    """Periodic pictures and their reductions by two, four and so on.

    Attributes:
        texels: ``[sum over levels of count * side**2]``, level by level, picture by picture, row by row; four bytes
            each: red, green, blue and nothing.
        count: how many pictures.
        plain: how many of them, the first, are of hardly more than one colour.
    """

    texels: Tensor
    count: int
    plain: int

    def colours(self, picture: Tensor, u: Tensor, v: Tensor, footprint: Tensor) -> Tensor:
        """What is at places of pictures, bilinear in the reduction whose texels are as wide as the footprint.

        Args:
            picture: numbers ``[R]``.
            u: places ``[R]`` in sides of the picture, of any size: the picture repeats.
            v: likewise.
            footprint: widths ``[R]`` of the rays, in sides.

        Returns:
            ``[3, R]`` in [0, 1].

        >>> white = Bank(torch.full((sum(_LEVEL_TEXELS),), 0xFFFFFF, dtype=torch.int32), 1, 1)
        >>> white.colours(torch.tensor([0]), *torch.zeros(3, 1)).tolist()
        [[1.0], [1.0], [1.0]]
        """
        level = (footprint * SIDE).clamp(1, SIDE).log2().round().long()
        side = torch.full_like(level, SIDE) >> level
        starts = torch.tensor(np.cumsum([0, *_LEVEL_TEXELS[:-1]]) * self.count)
        start = starts[level] + picture * side * side
        x, y = (u - u.floor()) * side - 0.5, (v - v.floor()) * side - 0.5
        left, top = x.floor(), y.floor()
        x, y = x - left, y - top
        columns, rows = left.long(), top.long()
        mixed = torch.zeros(len(u), 4)
        for row, by_row in ((rows, 1 - y), (rows + 1, y)):
            for column, by_column in ((columns, 1 - x), (columns + 1, x)):
                place = start + (row & (side - 1)) * side + (column & (side - 1))
                texel = self.texels[place].view(torch.uint8).view(-1, 4)
                mixed.addcmul_(texel.float(), (by_row * by_column)[:, None])
        return mixed[:, :3].T / 255


@functools.lru_cache(maxsize=3)
def make_bank(seed: int, count: int) -> Bank:
    """A bank of ``count`` pictures; the same seed gives the same bank. Takes some 20 ms a picture.

    >>> make_bank(0, 2).texels.shape[0] == 2 * sum(_LEVEL_TEXELS)
    True
    """
    rng = np.random.default_rng([seed, count])
    kinds = np.sort(rng.choice(len(_KINDS), count, p=[share for _, share in _KINDS]))
    level = np.stack([_worn(rng, _KINDS[kind][0](rng)) for kind in kinds]).clip(0, 1)
    levels = []
    for _ in range(LEVELS):
        packed = np.zeros((*level.shape[:3], 4), np.uint8)
        packed[..., :3] = np.round(level * 255)
        levels.append(packed.view(np.int32).ravel())
        if level.shape[1] > 1:
            level = level.reshape(count, level.shape[1] // 2, 2, -1, 2, 3).mean((2, 4))
    return Bank(torch.from_numpy(np.concatenate(levels)), count, int((kinds == 0).sum()))


@functools.cache
def _grid() -> tuple[Array, Array]:
    """Row and column of every texel, in sides."""
    y, x = np.indices((SIDE, SIDE)) / SIDE
    return y, x


def noise(rng: np.random.Generator, slope: float, stretch: float = 1.0) -> Array:
    """Periodic noise ``[SIDE, SIDE]`` whose amplitudes fall by ``slope`` with the frequency, evenly spread over [0, 1].

    Args:
        rng: source of chance.
        slope: 0 is white, 1 as in natural pictures, 2 clouds.
        stretch: how many times as long as wide its features are.
    """
    fy, fx = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
    frequency = np.hypot(fy * stretch, fx)
    frequency[0, 0] = np.inf
    waves = np.fft.rfft2(rng.standard_normal((SIDE, SIDE))) * frequency**-slope
    field = np.fft.irfft2(waves, s=(SIDE, SIDE))
    ranks = np.empty(SIDE * SIDE)
    ranks[np.argsort(field, axis=None)] = np.linspace(0, 1, SIDE * SIDE)
    return ranks.reshape(SIDE, SIDE)


def _colour(rng: np.random.Generator) -> Array:
    """One that things have: rarely saturated, from black to white."""
    hue, saturation, value = rng.random(), rng.beta(1.0, 3.2), rng.uniform(0.05, 1.0) ** 0.8
    k = (np.array([5.0, 3.0, 1.0]) + hue * 6) % 6
    rgb: Array = value * (1 - saturation * np.clip(np.minimum(k, 4 - k), 0, 1))
    return rgb


def _palette(rng: np.random.Generator, tone: Array) -> Array:
    """Colours of tones in [0, 1]: between a few, in order."""
    colours = np.stack([_colour(rng) for _ in range(rng.integers(2, 5))])
    place = tone * (len(colours) - 1)
    lower = np.minimum(place.astype(int), len(colours) - 2)
    part = (place - lower)[..., None]
    mixed: Array = colours[lower] * (1 - part) + colours[lower + 1] * part
    return mixed


def _clouds(rng: np.random.Generator) -> Array:
    return _palette(rng, noise(rng, rng.uniform(0.5, 2.2)))


def _grain(rng: np.random.Generator) -> Array:
    """Wood, brushed metal, grass: features that are long."""
    return _palette(rng, noise(rng, rng.uniform(0.8, 1.8), stretch=rng.choice([0.08, 0.15, 6.0, 12.0])))


def _plain(rng: np.random.Generator) -> Array:
    """A wall: one colour that hardly changes."""
    tone = noise(rng, rng.uniform(0.3, 2.0))[..., None] - 0.5
    return _colour(rng) * (1 + rng.uniform(0.02, 0.25) * tone)


def _leaves(rng: np.random.Generator) -> Array:
    """Discs, boxes and stripes of all sizes, one over the other."""
    y, x = _grid()
    colours = [_colour(rng) for _ in range(rng.integers(3, 8))]
    picture: Array = np.broadcast_to(colours[0], (SIDE, SIDE, 3)).copy()
    radii = np.sort(np.minimum(0.02 * (1 - rng.random(LEAVES)) ** -0.7, LARGEST_LEAF))[::-1]
    if rng.random() < 0.6:
        rng.shuffle(radii)
    for radius in radii:
        dy, dx = ((axis - rng.random() + 0.5) % 1 - 0.5 for axis in (y, x))
        angle, flat = rng.uniform(0, np.pi), np.exp(rng.normal(0, 0.5))
        a, b = (np.cos(angle) * dx + np.sin(angle) * dy) * flat, (np.cos(angle) * dy - np.sin(angle) * dx) / flat
        inside = np.maximum(abs(a), abs(b)) < radius if rng.random() < 0.5 else a * a + b * b < radius * radius
        colour = colours[rng.integers(len(colours))] * np.exp(rng.normal(0, 0.15))
        shade = 1 + rng.normal(0, 0.3) * a[inside] / radius
        picture[inside] = colour * shade[:, None]
    return picture


def _regular(rng: np.random.Generator) -> Array:
    """Checkers, stripes, tiles and bricks, somewhat bent, each cell of its own tone."""
    y, x = _grid()
    bend = rng.uniform(0, 0.03) if rng.random() < 0.5 else 0.0
    y, x = y + bend * noise(rng, 2.0), x + bend * noise(rng, 2.0)
    rows, columns = 2 * rng.integers(1, 7), 2 * rng.integers(1, 7)
    row = np.floor(y * rows).astype(int) % rows
    across = x * columns + (0.5 * (row % 2) if rng.random() < 0.4 else 0.0)
    column = np.floor(across).astype(int) % columns
    tones = rng.random((rows, columns)) * rng.uniform(0, 0.7)
    if rng.random() < 0.5:
        tones += 0.3 * (np.add.outer(np.arange(rows), np.arange(columns)) % 2)
    tone = tones[row, column]
    gap = rng.uniform(0.02, 0.12)
    joint = (y * rows % 1 < gap) | (across % 1 < gap) if rng.random() < 0.6 else np.zeros_like(tone, bool)
    return np.where(joint[..., None], _colour(rng), _palette(rng, tone.clip(0, 1)))


def _print(rng: np.random.Generator) -> Array:
    """Pages, keyboards, shelves of books: rows of small marks on a ground."""
    picture: Array = np.broadcast_to(_colour(rng), (SIDE, SIDE, 3)).copy()
    inks = [_colour(rng) for _ in range(rng.integers(1, 5))]
    top = int(rng.integers(2, 6))
    while top < SIDE - 4:
        height, left = int(rng.integers(2, 20 if len(inks) > 2 else 6)), int(rng.integers(1, 12))
        while left < SIDE - 2:
            width = int(rng.integers(1, 9))
            picture[top : top + height, left : left + width] = inks[rng.integers(len(inks))]
            left += width + int(rng.integers(1, 5))
        top += height + int(rng.integers(1, 8))
    return picture


_KINDS: tuple[tuple[Callable[[np.random.Generator], Array], float], ...] = (
    (_plain, 0.2),
    (_leaves, 0.27),
    (_clouds, 0.2),
    (_regular, 0.15),
    (_grain, 0.1),
    (_print, 0.08),
)


def _worn(rng: np.random.Generator, picture: Array) -> Array:
    """Some dirt of large features and some of small ones, as on whatever is not new."""
    large, small = rng.uniform(0, 0.3), rng.uniform(0, 0.15)
    dirt = 1 + large * (noise(rng, 1.5) - 0.5) + small * (noise(rng, 0.4) - 0.5)
    worn: Array = picture * dirt[..., None]
    return worn
