"""Linear layers and convolutions by oneDNN, for measurements that run a model thousands of times.

torch multiplies float32 matrices with MKL, which on some processors (AMD with AVX512: 110 against 230 GFLOP/s of one
core) reaches half of what oneDNN, inside the same torch, does. And oneDNN applies the activation that follows while
what it computed is still in the cache. Results of products differ in the last bits of float32, so what is compared must
be computed alike: reference and candidate both by these, or both by torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggtkit.runtime.forwards import replaced_forward

Then = Literal["none", "gelu", "relu"]
THEN: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "gelu": F.gelu, "relu": F.relu}

_names = torch.ops.mkldnn if torch.backends.mkldnn.is_available() else None
_linear, _convolution = getattr(_names, "_linear_pointwise", None), getattr(_names, "_convolution_pointwise", None)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, then: Then = "none") -> Tensor:
    """As ``torch.nn.functional.linear``, and an activation; by torch where oneDNN is not for it.

    ``[..., in]`` to ``[..., out]`` by a weight ``[out, in]`` and a bias ``[out]``.

    >>> x, weight = torch.rand(3, 5), torch.rand(2, 5)
    >>> with torch.no_grad():
    ...     linear(x, weight).allclose(F.linear(x, weight))
    True
    """
    if _linear is None or not for_inference(input, weight):
        return THEN[then](F.linear(input, weight, bias))
    result: Tensor = _linear(input, weight, bias, then, [], "none")
    return result


def convolution(conv: nn.Conv2d, x: Tensor, then: Then = "none") -> Tensor:
    """What a convolution padded with zeros gives, and an activation; by torch where oneDNN is not for it.

    ``[B, C, H, W]`` to ``[B, out, H, W]``.

    >>> conv, x = nn.Conv2d(3, 2, 3, padding=1), torch.randn(1, 3, 8, 5)
    >>> with torch.no_grad():
    ...     convolution(conv, x, "relu").allclose(conv(x).relu(), atol=1e-6)
    True
    """
    if _convolution is None or not for_inference(x, conv.weight):
        return THEN[then](F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups))
    where = conv.padding, conv.stride, conv.dilation, conv.groups
    result: Tensor = _convolution(x, conv.weight, conv.bias, *where, then, [], "none")
    return result


@contextmanager
def linear_layers(model: nn.Module) -> Iterator[None]:
    """Within the block torch's own linear layers of a model multiply by oneDNN.

    >>> model, x = nn.Sequential(nn.Linear(5, 3)), torch.rand(2, 5)
    >>> with torch.no_grad(), linear_layers(model):
    ...     result = model(x)
    >>> result.allclose(model(x))
    True
    """
    with ExitStack() as undo:
        for module in model.modules():
            if type(module) is nn.Linear and "forward" not in vars(module):
                undo.enter_context(replaced_forward(module, partial(_forward, module)))
        yield


def _forward(module: nn.Linear, input: Tensor) -> Tensor:
    return linear(input, module.weight, module.bias)


def for_inference(x: Tensor, weight: Tensor) -> bool:
    """Both, of any shape, float32 on the CPU, no gradients, and nobody asked for a lower precision."""
    plain = x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu"
    return plain and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
