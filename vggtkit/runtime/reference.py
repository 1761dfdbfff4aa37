"""The backend ``reference``: the exact numbers of the simulated model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from vggtkit.quant import FORMATS, Layer, PackedWeight, QuantizedTensor, own_weight
from vggtkit.runtime.backend import Backend, Execution, Options, Prepared
from vggtkit.subject import Subject

TILED_KERNELS = (
    "packed weights in memory, each layer's weight dequantised to FP32 right before it runs, FP32 kernels of torch: "
    "exact, and no faster than FP32"
)


class Reference(Backend):
    """Weights are dequantised layer by layer and multiplied in FP32; every format and every kind of layer.

    >>> Reference().runs("int3_asym_64", "conv2d")
    True
    """

    key, title = "reference", "reference (dequantised by layer, FP32)"

    def runs(self, format_key: str, layer_kind: str) -> bool:  # noqa: ARG002
        """All of them."""
        return format_key in FORMATS

    def describe(self) -> str:
        """As `Backend.describe`."""
        return TILED_KERNELS

    def prepare(self, subject: Subject, options: Options | None = None) -> Prepared:  # noqa: ARG002
        """There is nothing to make ready: packed layers run so by themselves."""
        weights = packed_weights(subject)
        return _AsPacked(
            Execution(self.key, TILED_KERNELS, weight_bytes(subject, weights), {self.key: len(subject.layers)})
        )


class _AsPacked(Prepared):
    def __init__(self, execution: Execution) -> None:
        self.execution = execution

    def running(self) -> AbstractContextManager[None]:
        return nullcontext()


def packed_weights(subject: Subject) -> dict[str, QuantizedTensor]:
    """The packed weights of a model, by layer; layers with a plain weight are absent."""
    packed = {layer.name: getattr(subject.model.get_submodule(layer.name), "packed", None) for layer in subject.layers}
    return {name: weight.quantized for name, weight in packed.items() if isinstance(weight, PackedWeight)}


def told_executions(subject: Subject, options: Options) -> dict[str, str]:
    """How layers are to run, by name, where that is decided: by options, else by the checkpoint of their weights."""
    packed = {layer.name: getattr(subject.model.get_submodule(layer.name), "packed", None) for layer in subject.layers}
    kept = {name: weight.execution for name, weight in packed.items() if isinstance(weight, PackedWeight)}
    return {name: how for name, how in kept.items() if how is not None} | dict(options.executions)


def weight_bytes(
    subject: Subject, weights: Mapping[str, QuantizedTensor], layers: Sequence[Layer] | None = None
) -> int:
    """Bytes of layers' weights as they are in memory, packed or plain; of all layers by default."""
    layers = subject.layers if layers is None else layers
    plain = [own_weight(subject.model.get_submodule(each.name)) for each in layers if each.name not in weights]
    return sum(weights[each.name].nbytes for each in layers if each.name in weights) + sum(w.nbytes for w in plain)
