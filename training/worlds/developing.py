"""From light to pictures, as cameras do: exposure, white balance, vignetting, blur, tone curve, noise, 8 bits."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vggtkit.core.arrays import Array

LEVELS = 255


def develop(rng: np.random.Generator, light: Tensor) -> Tensor:
    """Pictures ``[S, 3, H, W]`` in [0, 1] of linear light of that shape; one camera, adapting from view to view."""
    views = len(light)
    key = rng.uniform(0.12, 0.45)
    brightness = light.mean((1, 2, 3)).clamp(min=1e-4)
    common = brightness.log().mean().exp()
    adapted = common * (brightness / common) ** rng.uniform(0, 1)  # between one exposure for all and one for each
    exposure = key / adapted * _lots(rng, (views,), 0.08)
    balance = _lots(rng, (1, 3), 0.12) * _lots(rng, (views, 3), 0.02)
    light = light * (exposure[:, None] * balance)[..., None, None] * _vignette(rng, light.shape[-2:])
    light = _blurred(rng, light).clamp(0, 1)
    picture = light ** (1 / rng.uniform(1.6, 2.4))
    contrast = rng.uniform(-0.3, 0.6)
    picture = picture + contrast * picture * (1 - picture) * (2 * picture - 1)
    grey = picture.mean(1, keepdim=True)
    picture = grey + rng.choice([0.0, *rng.uniform(0.5, 1.5, 15)]) * (picture - grey)
    developed: Tensor = ((picture + _noise(rng, picture)).clamp(0, 1) * LEVELS).round() / LEVELS
    return developed


def _lots(rng: np.random.Generator, shape: tuple[int, ...], spread: float) -> Tensor:
    return torch.from_numpy(np.exp(rng.normal(0, spread, shape))).float()


def _vignette(rng: np.random.Generator, size: torch.Size) -> Tensor:
    y, x = (torch.linspace(-1, 1, side) for side in size)
    squared = y.square()[:, None] + x.square()
    return 1 - float(rng.uniform(0, 0.25)) * squared / 2


def _blurred(rng: np.random.Generator, light: Tensor) -> Tensor:
    """Out of focus in half of the scenes, moved in a tenth of the views."""
    width = rng.uniform(0.3, 0.9) if rng.random() < 0.5 else 0.0
    kernels = [_kernel(rng, width) for _ in light]
    if all(kernel is None for kernel in kernels):
        return light
    return torch.stack([one if k is None else _filtered(one, k) for one, k in zip(light, kernels, strict=True)])


def _kernel(rng: np.random.Generator, width: float) -> Array | None:
    y, x = np.indices((5, 5)) - 2.0
    if rng.random() < 0.1:
        angle, long = rng.uniform(0, np.pi), rng.uniform(0.8, 2.0)
        along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        kernel = np.exp(-0.5 * ((along / long) ** 2 + (across / max(width, 0.4)) ** 2))
    elif width:
        kernel = np.exp(-0.5 * (x * x + y * y) / width**2)
    else:
        return None
    normal: Array = kernel / kernel.sum()
    return normal


def _filtered(picture: Tensor, kernel: Array) -> Tensor:
    weight = torch.from_numpy(kernel).float().expand(3, 1, 5, 5)
    return F.conv2d(F.pad(picture[None], (2, 2, 2, 2), mode="replicate"), weight, groups=3)[0]


def _noise(rng: np.random.Generator, picture: Tensor) -> Tensor:
    """More of it in the dark; half of the time of the width of two pixels, as compressed pictures have it."""
    amount = rng.uniform(0, 0.04) if rng.random() < 0.7 else 0.0
    white = torch.from_numpy(rng.standard_normal(picture.shape, dtype=np.float32))
    if rng.random() < 0.5:
        white = F.avg_pool2d(F.pad(white, (0, 1, 0, 1), mode="replicate"), 2, 1) * 2
    return amount * (1.3 - picture) * white
