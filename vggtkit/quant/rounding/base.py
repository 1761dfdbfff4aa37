"""How a way of rounding is written, and the ones that there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor

from vggtkit.core.registry import Registry
from vggtkit.quant.quantizer import QuantizedTensor

NeededData = Literal["", "inputs", "gradients", "factors", "sequence"]
DAMPING = 0.01
"""Of the mean second moment, added to all of them, so that directions without inputs are not moved at will."""
NEAREST = "nearest"
"""Key of the rounding that needs nothing and is the default."""


class Rounding(ABC):
    """One way to choose codes, and scales, of a weight.

    Attributes:
        key: its name in plans and on the command line.
        title: in words.
        needs: what it must know of the layer beside its weight: nothing, its inputs, also how much of every token
            reaches the model's outputs, by inputs and output channels together, or its inputs once the layers before it
            are quantised.
        corrects_bias: whether the mean error of each output channel is taken off the layer's bias.
    """

    key: str
    title: str
    needs: NeededData = ""
    corrects_bias: bool = False

    @abstractmethod
    def round(
        self, weight: Tensor, key: str, moments: Tensor | None = None, name: str = "", channels: Tensor | None = None
    ) -> QuantizedTensor:
        """A weight in a format.

        Args:
            weight: ``[out, in, ...]``, output channels first.
            key: of the format.
            moments: second moments of what the weight is multiplied by, float64 ``[parts, in, in]``: part ``p`` is of
                the ``p``-th of equal shares of the output channels. None where they are not known.
            name: the layer, for messages.
            channels: second moments of the gradients at the output channels, ``[parts, out / parts, out / parts]``,
                where they are known and ``needs`` is ``"factors"``.

        Raises:
            InputError: as `vggtkit.quant.quantize`.
        """


ROUNDINGS: Registry[Rounding] = Registry("rounding")
"""All of them by key."""
