"""3x3 convolutions with half the multiplications: Winograd convolution F(4, 3) down the columns of a map.

Four neighbouring outputs of a filter with three taps need six products instead of twelve: inputs and filter are
polynomials, which are evaluated at 0, 1, -1, 2, -2 and infinity, multiplied there, and interpolated. The other axis
stays a convolution, with three taps. Rounding is some three times that of the direct sum.

Source: Winograd, "Arithmetic complexity of computations", 1980; Lavin and Gray, "Fast algorithms for convolutional
neural networks", CVPR 2016, whose matrices these are, but for a factor of 4 that the last filter has and not its input.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggtkit.runtime.onednn import for_inference

ROWS = 4
"""Outputs down a column that share six products."""
CHANNELS = 20
"""Least ``i o / (i + o)`` of channels in and out: with fewer, additions cost what products save (docs/log.md)."""
PRODUCTS = 2**19
"""Least ``height x width x i x o``: below, starting operations costs more."""
FILTERS = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 4),
)
"""The filter's three taps at the six points."""


def is_plain_3x3(module: nn.Module) -> bool:
    """Whether it is a convolution that `filtered` knows: 3x3 over every pixel of a padded map."""
    return (
        isinstance(module, nn.Conv2d)
        and (module.kernel_size, module.stride, module.padding) == ((3, 3), (1, 1), (1, 1))
        and (module.dilation, module.groups, module.padding_mode) == ((1, 1), 1, "zeros")
    )


def pays(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether `filtered` takes this map ``[B, C, H, W]``, and is faster than the direct convolution."""
    i, o = conv.in_channels, conv.out_channels
    height, width = x.shape[-2:]
    large = height * width * i * o >= PRODUCTS and i * o >= CHANNELS * (i + o)
    return large and height % ROWS == 0 and for_inference(x, conv.weight)


def filtered(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """What a 3x3 convolution gives for ``[N, C, H, W]``, H a multiple of 4; without gradients.

    >>> conv, x = nn.Conv2d(3, 2, 3, padding=1), torch.rand(1, 3, 8, 5)
    >>> with torch.no_grad():
    ...     filtered(conv, x).allclose(conv(x), atol=1e-5)
    True
    """
    points = torch.tensor(FILTERS, dtype=torch.float64).to(x)
    filters = torch.einsum("pt,oitw->poiw", points, conv.weight)[:, :, :, None]
    biases = (None, conv.bias, None, None, None, None)  # the product at 1 is once in every output
    values = zip(_evaluated(x), filters, biases, strict=True)
    return _interpolated([F.conv2d(value, weight, bias, padding=(0, 1)) for value, weight, bias in values])


def _evaluated(x: Tensor) -> Iterator[Tensor]:
    """What four rows of outputs need, these rows of the input and one on either side, at the six points.

    The row above is the last of the four before, the row below the first of the four after. Each ``[N, C, H / 4, W]``.
    """
    a, b, c, d = (x[:, :, row::ROWS] for row in range(ROWS))
    zero = torch.sub(d, b, alpha=5)
    zero[:, :, 1:].add_(d[:, :, :-1], alpha=4)
    yield zero
    even, odd = torch.sub(d, b, alpha=4), torch.sub(c, a, alpha=4)
    yield even + odd
    yield even - odd
    torch.sub(d, b, out=even)
    torch.sub(c, a, out=odd)
    yield torch.add(even, odd, alpha=2)
    yield torch.sub(even, odd, alpha=2)
    infinity = torch.sub(a, c, alpha=1.25)
    infinity[:, :, :-1].add_(a[:, :, 1:], alpha=0.25)
    yield infinity


def _interpolated(products: list[Tensor]) -> Tensor:
    """Four rows of outputs from the six products, which are overwritten: ``[N, C, H, W]``."""
    zero, one, minus_one, two, minus_two, infinity = products
    n, channels, height, width = zero.shape
    y = zero.new_empty(n, ROWS * height, width, channels).permute(0, 3, 1, 2)
    a, b, c, d = (y[:, :, row::ROWS] for row in range(ROWS))
    even, odd = one + minus_one, one.sub_(minus_one)
    even_of_two, odd_of_two = two + minus_two, two.sub_(minus_two)
    torch.add(zero.add_(even), even_of_two, out=a)
    torch.add(odd, odd_of_two, alpha=2, out=b)
    torch.add(even, even_of_two, alpha=4, out=c)
    torch.add(infinity.add_(odd), odd_of_two, alpha=8, out=d)
    return y
