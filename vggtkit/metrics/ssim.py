"""Windowed structural similarity on many small maps, one reference against many candidates.

Source: Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment: From Error Visibility to Structural
Similarity", IEEE TIP 13(4), 2004: Gaussian window 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, averaged over
the positions where the whole window lies inside the map. The same numbers as scikit-image's
``structural_similarity`` with ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False``.
"""

from functools import lru_cache

import torch
from torch import Tensor

WINDOW = 11
SIGMA = 1.5
C1 = 0.01**2
C2 = 0.03**2
SMALLEST_MAP = 3

# Elements of candidate maps filtered at a time: the five temporaries of 1 MB stay close to the core.
_CHUNK = 1 << 18

# Positions that one product filters along an axis; of longer axes most products would be with zeros.
_BAND = 64


class SsimReference:
    """Reference maps with their filtered moments, to be compared with any number of candidates.

    Args:
        maps: ``[M, H, W]`` (or ``[H, W]``), floating point. A map with a side below 11 is seen through the
            largest odd window that fits (same sigma); with a side below 3 there is none and SSIM is NaN.
        data_range: the L of the constants ``(K1 L)^2`` and ``(K2 L)^2``: one number, or one per map ``[M]``.
            By default max - min over all the maps given. A range of 0 (constant maps) counts as 1.

    Raises:
        ValueError: ``maps`` has another number of axes.

    With d = candidate - reference, both factors of SSIM are 1 minus a ratio:
    ``(1 - mu_d^2 / (mu_r^2 + mu_c^2 + C1)) * (1 - var_d / (var_r + var_c + C2))``. Written so, small errors
    are not lost in float32 to the difference of large moments.

    >>> maps = torch.arange(64.0).reshape(1, 8, 8)
    >>> SsimReference(maps).compare(torch.stack((maps, maps.flip(-1)))).round(decimals=3).tolist()
    [1.0, 0.969]
    """

    def __init__(self, maps: Tensor, data_range: float | Tensor | None = None) -> None:
        """Filter the reference once; see the class."""
        maps = maps.detach().float()
        maps = maps.unsqueeze(0) if maps.ndim == 2 else maps
        if maps.ndim != 3:
            msg = f"SSIM needs maps [M, H, W], not {tuple(maps.shape)}"
            raise ValueError(msg)
        self.maps = maps
        self.measurable = maps.shape[0] > 0 and min(maps.shape[1:]) >= SMALLEST_MAP
        if not self.measurable:
            return
        self._range = _usable_range(maps, data_range)
        self._rows, self._columns = (
            [(at, taps.to(maps.device)) for at, taps in _bands(length, window_size(maps))] for length in maps.shape[1:]
        )
        # Variances do not depend on an offset: they are taken about each map's mean, in units of the range.
        offset = maps.mean((1, 2), keepdim=True)
        self._centred = (maps - offset) / self._range
        centred_mean = self._filter(self._centred)
        self._centred_mean = centred_mean
        self._variance = (self._filter(self._centred.square()) - centred_mean.square()).clamp_(min=0.0)
        self._mean = centred_mean + offset / self._range

    def compare(self, candidates: Tensor) -> Tensor:
        """Mean SSIM of each candidate over its M maps.

        Args:
            candidates: ``[V, M, H, W]``. A NaN or an infinity anywhere makes that candidate's SSIM NaN.

        Returns:
            float64 ``[V]``, at most 1.

        Raises:
            ValueError: ``candidates.shape[1:]`` is not the shape of the reference maps.
        """
        if candidates.shape[1:] != self.maps.shape:
            shapes = f"candidates {tuple(candidates.shape)}, reference {tuple(self.maps.shape)}"
            msg = f"SSIM needs candidates [V, M, H, W] for reference maps [M, H, W]: {shapes}"
            raise ValueError(msg)
        if not self.measurable:
            return torch.full((len(candidates),), torch.nan, dtype=torch.float64)
        return torch.tensor([self._mean_ssim(maps.detach()) for maps in candidates], dtype=torch.float64)

    def _mean_ssim(self, candidate: Tensor) -> float:
        maps, height, width = self.maps.shape
        step = max(1, _CHUNK // (height * width))
        # 1 - SSIM is what is summed: float32 resolves it where SSIM itself rounds to 1.
        loss = 0.0
        for start in range(0, maps, step):
            part = slice(start, start + step)
            loss += self._loss(candidate[part], part).double().sum().item()
        return 1.0 - loss / self._mean.numel()

    def _loss(self, candidate: Tensor, part: slice) -> Tensor:
        """``1 - SSIM`` at every window of some of the maps, ``[m, h, w]``."""
        error = (candidate.float() - self.maps[part]) / self._range[part]
        offset = error.mean((1, 2), keepdim=True)
        error -= offset
        error_mean = self._filter(error)
        error_variance = (self._filter(error.square()) - error_mean.square()).clamp_(min=0.0)
        covariance = self._filter(error * self._centred[part]) - error_mean * self._centred_mean[part]
        mean, variance = self._mean[part], self._variance[part]
        candidate_variance = (variance + 2 * covariance + error_variance).clamp_(min=0.0)
        error_mean += offset
        luminance_loss = error_mean.square() / (mean.square() + (mean + error_mean).square() + C1)
        # var_d <= 2 (var_r + var_c): what rounding leaves beyond that, on errors far larger than L, is cut.
        contrast_loss = (error_variance / (variance + candidate_variance + C2)).clamp_(max=2.0)
        return luminance_loss + contrast_loss - luminance_loss * contrast_loss

    def _filter(self, maps: Tensor) -> Tensor:
        # Two dense products with band matrices: measured 10 x faster on CPU than a depthwise convolution.
        across = torch.cat([maps[..., at] @ taps.T for at, taps in self._columns], dim=-1)
        return torch.cat([taps @ across[:, at] for at, taps in self._rows], dim=1)


def ssim(reference: Tensor, candidate: Tensor, data_range: float | Tensor | None = None) -> float:
    """Mean structural similarity of maps, in [-1, 1]; 1 is identical.

    Args:
        reference: ``[M, H, W]`` or ``[H, W]``.
        candidate: the same shape.
        data_range: as in `SsimReference`, which is the way to compare many candidates.

    Returns:
        The mean over maps and window positions; NaN for maps with a side below 3 and for values not finite.

    >>> maps = torch.arange(144.0).reshape(12, 12)
    >>> ssim(maps, maps), round(ssim(maps, maps + 14.3), 4)
    (1.0, 0.9833)
    """
    if reference.shape != candidate.shape:
        msg = f"the candidate has shape {tuple(candidate.shape)}, the reference {tuple(reference.shape)}"
        raise ValueError(msg)
    prepared = SsimReference(reference, data_range)
    return prepared.compare(candidate.reshape(1, *prepared.maps.shape)).item()


def window_size(maps: Tensor) -> int:
    """Side of the window used on maps ``[..., H, W]``: 11, or the largest odd number that fits.

    >>> [window_size(torch.zeros(side, 40)) for side in (40, 11, 10, 8, 3)]
    [11, 11, 9, 7, 3]
    """
    side: int = min(WINDOW, maps.shape[-2], maps.shape[-1])
    return side if side % 2 else side - 1


def _usable_range(maps: Tensor, data_range: float | Tensor | None) -> Tensor:
    """The range per map, ``[M, 1, 1]``, with 1 in the place of 0."""
    wanted = maps.amax() - maps.amin() if data_range is None else torch.as_tensor(data_range)
    wanted = wanted.detach().to(maps).expand(len(maps)).reshape(-1, 1, 1)
    return torch.where(wanted == 0, torch.ones_like(wanted), wanted)


@lru_cache(maxsize=64)
def _bands(length: int, window: int) -> list[tuple[slice, Tensor]]:
    """Filtering along an axis as dense products with pieces of it: what is given, and the weights of `_window_matrix`.

    >>> [(at, tuple(taps.shape)) for at, taps in _bands(100, 11)]
    [(slice(0, 74, None), (64, 74)), (slice(64, 100, None), (26, 36))]
    """
    stops = [min(start + _BAND + window - 1, length) for start in range(0, length - window + 1, _BAND)]
    pieces = [slice(number * _BAND, stop) for number, stop in enumerate(stops)]
    return [(piece, _window_matrix(piece.stop - piece.start, window)) for piece in pieces]


@lru_cache(maxsize=64)
def _window_matrix(length: int, window: int) -> Tensor:
    """``[length - window + 1, length]``: row i holds the Gaussian weights of the window that starts at i."""
    taps = torch.arange(window, dtype=torch.float64) - window // 2
    weights = (-0.5 * (taps / SIGMA).square()).exp()
    weights /= weights.sum()
    positions = length - window + 1
    matrix = torch.zeros(positions, length, dtype=torch.float64)
    for start in range(positions):
        matrix[start, start : start + window] = weights
    return matrix.float()
