"""The same function of VGGT from fewer operations, for measurements that run a model thousands of times.

- In a DPT head everything between two activations is linear, so its order is free: a 1x1 convolution acts on a map
  before it is enlarged instead of after (a quarter of the work), and enlarging, convolving and shrinking again, as the
  features of the tracker do, is one map between two small pictures (a third of the work on the bundled network).
- Large 3x3 convolutions take half the products (`vggtkit.runtime.winograd`).
- Activations are applied as products are computed (`vggtkit.runtime.onednn`), and the tracker's queries, keys and
  values are not copied on the way to their attention.

Only rounding differs from the published order, so what is compared must be computed alike: reference and candidate both
inside the context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggtkit.model.dpt_head import DPTFeatures, Fusion, ResidualConv, Scratch, resized
from vggtkit.model.layers import CrossAttention, Mlp, QKVProjection
from vggtkit.runtime.forwards import replaced_forward
from vggtkit.runtime.onednn import Then, convolution, linear
from vggtkit.runtime.winograd import filtered, is_plain_3x3, pays

MapSize = tuple[int, int]
Forward = Callable[..., object]


@contextmanager
def fewer_operations(model: nn.Module) -> Iterator[None]:
    """Within the block the parts of a model compute what they do in the cheaper way, linear layers by oneDNN.

    >>> from vggtkit.model import VGGT
    >>> from vggtkit.model.config import TINY
    >>> model, images = VGGT(TINY).eval(), torch.rand(2, 3, 64, 64)
    >>> with torch.no_grad():
    ...     expected = model(images)["depth"]
    ...     with fewer_operations(model):
    ...         model(images)["depth"].allclose(expected, rtol=1e-3)
    True
    """
    cheaper: dict[nn.Module, Forward] = {}
    for module in model.modules():  # what holds a part comes before it, and has the say
        cheaper = dict(_cheaper(module)) | cheaper
    with ExitStack() as undo:
        for module, forward in cheaper.items():
            undo.enter_context(replaced_forward(module, forward))
        yield


def _cheaper(module: nn.Module) -> Iterator[tuple[nn.Module, Forward]]:
    """A module, or parts of it, and what to compute instead."""
    match module:
        case DPTFeatures(down_ratio=ratio) if ratio > 1:
            yield module.scratch, partial(_without_large_maps, module.scratch)
            yield module.scratch.output_conv1, partial(_resampling, module.scratch.output_conv1)
        case Scratch(output_conv2=nn.Sequential() as last):
            conv, rectifier = last[0], last[1]
            assert isinstance(conv, nn.Conv2d)
            yield conv, partial(_convolved, conv, then="relu")
            yield rectifier, _unchanged
        case Fusion():
            yield module, partial(convolved_before_resized, module)
        case ResidualConv():
            yield module, partial(_residual, module)
            yield module.conv1, partial(_convolved, module.conv1, then="relu")
        case nn.Conv2d() if is_plain_3x3(module):
            yield module, partial(_convolved, module)
        case Mlp():
            yield module.fc1, partial(_linear_and_gelu, module.fc1)
            yield module.act, _unchanged
        case CrossAttention():
            yield module, partial(_attended, module)
            yield module.in_proj, partial(_projected, module.in_proj)
        case nn.Linear():
            yield module, partial(_multiplied, module)


def _convolved(self: nn.Conv2d, x: Tensor, then: Then = "none") -> Tensor:
    if not pays(self, x):
        return convolution(self, x, then)
    y = filtered(self, x)
    return y.relu_() if then == "relu" else y


def _residual(self: ResidualConv, x: Tensor) -> Tensor:
    x = x.relu()
    result: Tensor = self.conv2(self.conv1(x)) + x  # the first is rectified
    return result


def _linear_and_gelu(self: nn.Linear, x: Tensor) -> Tensor:
    return linear(x, self.weight, self.bias, "gelu")


def _multiplied(self: nn.Linear, x: Tensor) -> Tensor:
    return linear(x, self.weight, self.bias)


def _projected(self: QKVProjection, x: Tensor, context: Tensor) -> tuple[Tensor, ...]:
    """As `QKVProjection.parts`."""
    d = self.dim
    if x is context:
        return tuple(linear(x, self.weight, self.bias).split(d, dim=-1))
    query = linear(x, self.weight[:d], self.bias[:d])
    return query, *linear(context, self.weight[d:], self.bias[d:]).split(d, dim=-1)


def _unchanged(x: Tensor) -> Tensor:
    return x


def _attended(self: CrossAttention, x: Tensor, context: Tensor) -> Tensor:
    parts = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in self.in_proj(x, context))
    result: Tensor = self.out_proj(F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))
    return result


def convolved_before_resized(self: Fusion, x: Tensor, finer: Tensor | None, size: MapSize) -> Tensor:
    """As `Fusion.forward`, its 1x1 convolution acting on a quarter of the pixels."""
    if finer is not None:
        x = x + self.resConfUnit1(finer)
    x = self.out_conv(self.resConfUnit2(x))
    return x if x.shape[-2:] == size else resized(x, size)


def _without_large_maps(self: Scratch, maps: list[Tensor], size: MapSize) -> Tensor:
    x, finest = self.fused(maps)
    result: Tensor = self.output_conv1(self.refinenet1(x, finest, (finest.shape[-2], finest.shape[-1])), size)
    return result


def _resampling(self: nn.Conv2d, x: Tensor, size: MapSize) -> Tensor:
    """``resized(conv(resized(x, twice as large)), size)`` of a 3x3 convolution, in three products without large maps.

    With ``R`` and ``C`` the rows and columns of one tap (`_taps`) it is ``sum over taps of W[tap] R[tap] x C[tap]^T``:
    rows first, then the channels, which sums over vertical taps, then the columns, which sums over horizontal ones.
    """
    n, channels, h, w = x.shape
    height, width = size
    rows = _taps(h, height).to(x).transpose(0, 1).reshape(height * 3, h)
    columns = _taps(w, width).to(x).permute(1, 2, 0).reshape(width, w * 3)
    x = x.permute(0, 2, 3, 1).reshape(n, h, w * channels)
    x = (rows @ x).view(n * height, 3, w, channels).permute(0, 3, 1, 2)
    weight = self.weight.permute(3, 0, 1, 2).reshape(-1, channels, 3, 1)
    x = F.conv2d(x, weight).permute(0, 2, 3, 1).reshape(n * height, w * 3, -1)
    x = (columns @ x).view(n, height, width, -1).permute(0, 3, 1, 2)
    return x if self.bias is None else x + self.bias[:, None, None]


@lru_cache(maxsize=16)
def _taps(before: int, after: int) -> Tensor:
    """Rows of a picture made twice as many, moved as a tap of a padded convolution sees them, and resized.

    ``[3, after, before]``, float64.
    """
    between = 2 * before
    enlarge, shrink = _resize_matrix(before, between), _resize_matrix(between, after)
    moved = [torch.diag(torch.ones(between - abs(tap), dtype=torch.float64), tap) for tap in (-1, 0, 1)]
    return torch.stack([shrink @ move @ enlarge for move in moved])


def _resize_matrix(before: int, after: int) -> Tensor:
    """Bilinear resizing along one axis, ``[after, before]``."""
    identity = torch.eye(before, dtype=torch.float64)[None]
    return F.interpolate(identity, size=after, mode="linear", align_corners=True)[0].T
