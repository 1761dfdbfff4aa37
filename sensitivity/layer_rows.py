"""What a layer's weight is multiplied by: every kind of layer as a product of a matrix with rows.

With the weight as ``[out, in]`` (output channels first, the rest flattened), each number that a layer puts out is the
product of one row of the weight with one row of inputs. A convolution's rows are its patches; those of a transposed
convolution are patches of its input with zeros between the pixels; the tracker's projection multiplies thirds of its
weight with rows of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vggtkit.model.layers import QKVProjection
from vggtkit.quant import Layer

Rows = Callable[[nn.Module, Sequence[Any]], list[Tensor]]
Sizes = Callable[[nn.Module, Sequence[Any], Tensor], list[Tensor]]


def input_rows(module: nn.Module, arguments: Sequence[Any]) -> list[Tensor]:
    """``[rows, in]`` for every part of the weight; parts are equal shares of the output channels, in order.

    Args:
        module: for which `has_rows` holds.
        arguments: that it was called with.

    >>> import torch
    >>> [rows.shape for rows in input_rows(nn.Conv2d(4, 6, 2, groups=2), [torch.zeros(1, 4, 3, 3)])]
    [torch.Size([4, 8]), torch.Size([4, 8])]
    """
    return _READ[type(module)][0](module, arguments)


def output_sizes(module: nn.Module, arguments: Sequence[Any], output: Tensor) -> list[Tensor]:
    """Sums over output channels of the squares of ``output``, ``[rows]`` for every part; rows as in `input_rows`."""
    return _READ[type(module)][1](module, arguments, output)


def part_count(module: nn.Module) -> int:
    """Parts of a weight that have rows of their own, as many as `input_rows` gives.

    >>> part_count(nn.Linear(2, 2)), part_count(nn.Conv2d(4, 6, 2, groups=2)), part_count(QKVProjection(4))
    (1, 2, 3)
    """
    return 3 if isinstance(module, QKVProjection) else int(getattr(module, "groups", 1))


def has_rows(layer: Layer, module: nn.Module) -> bool:
    """Whether the rows of a layer are known: linear, convolutional in two dimensions, and seen when it runs."""
    if not layer.is_called or layer.aliases or type(module) not in _READ:
        return False
    if isinstance(module, nn.ConvTranspose2d) and module.groups > 1:
        return False  # its weight keeps what several output channels share in one row
    return not isinstance(module, nn.Conv2d | nn.ConvTranspose2d) or (
        module.padding_mode == "zeros" and not isinstance(module.padding, str)
    )


def _linear_rows(_module: nn.Module, arguments: Sequence[Any]) -> list[Tensor]:
    return [arguments[0].flatten(0, -2)]


def _linear_sizes(_module: nn.Module, _arguments: Sequence[Any], output: Tensor) -> list[Tensor]:
    return [output.square().sum(-1).flatten()]


def _conv_rows(module: nn.Module, arguments: Sequence[Any]) -> list[Tensor]:
    assert isinstance(module, nn.Conv2d)
    x, kernel = _batched(arguments[0]), _pair(module.kernel_size)
    patches = F.unfold(x, kernel, _pair(module.dilation), _pair(module.padding), _pair(module.stride))
    return _split(patches, module.groups)


def _transposed_rows(module: nn.Module, arguments: Sequence[Any]) -> list[Tensor]:
    """A transposed convolution is a convolution, with the kernel reversed, of the input with zeros in between."""
    assert isinstance(module, nn.ConvTranspose2d)
    x = _batched(arguments[0])
    (kh, kw), (sh, sw), (dh, dw) = _pair(module.kernel_size), _pair(module.stride), _pair(module.dilation)
    (ph, pw), (oh, ow) = _pair(module.padding), _pair(module.output_padding)
    height, width = (x.shape[2] - 1) * sh + 1, (x.shape[3] - 1) * sw + 1
    spread = x.new_zeros(*x.shape[:2], height, width)
    spread[:, :, ::sh, ::sw] = x
    top, left = dh * (kh - 1) - ph, dw * (kw - 1) - pw
    patches = F.unfold(F.pad(spread, (left, left + ow, top, top + oh)), (kh, kw), (dh, dw))
    reversed_kernel = patches.unflatten(1, (x.shape[1], kh, kw)).flip(2, 3).flatten(1, 3)
    return _split(reversed_kernel, 1)


def _map_sizes(module: nn.Module, _arguments: Sequence[Any], output: Tensor) -> list[Tensor]:
    assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    squared = _batched(output).square().unflatten(1, (module.groups, -1)).sum(2)
    return [part.flatten() for part in squared.unbind(1)]


def _projection_rows(_module: nn.Module, arguments: Sequence[Any]) -> list[Tensor]:
    x, context = (value.flatten(0, -2) for value in arguments[:2])
    return [x, context, context]


def _projection_sizes(_module: nn.Module, arguments: Sequence[Any], output: Tensor) -> list[Tensor]:
    n, m = arguments[0].shape[1], arguments[1].shape[1]
    return [part.square().sum(-1).flatten() for part in output.split([n, m, m], dim=1)]


def _split(patches: Tensor, groups: int) -> list[Tensor]:
    """``[N, C * kernel, places]`` as rows for each group of channels."""
    return [part.transpose(1, 2).flatten(0, 1) for part in patches.chunk(groups, dim=1)]


def _batched(maps: Tensor) -> Tensor:
    return maps if maps.ndim == 4 else maps[None]


def _pair(value: object) -> tuple[int, int]:
    assert isinstance(value, tuple)
    first, second = value
    return int(first), int(second)


_READ: dict[type[nn.Module], tuple[Rows, Sizes]] = {
    nn.Linear: (_linear_rows, _linear_sizes),
    nn.Conv2d: (_conv_rows, _map_sizes),
    nn.ConvTranspose2d: (_transposed_rows, _map_sizes),
    QKVProjection: (_projection_rows, _projection_sizes),
}
