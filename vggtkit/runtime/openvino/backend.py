"""The backend ``openvino``: a plan as OpenVINO executes it on the processor.

The packed model is written as an ONNX file with explicit quantisation (`vggtkit.runtime.onnx.qdq`), of which OpenVINO
makes integer products of its own: INT8 weights per output channel, the plan's codes bit for bit, times 8-bit
activations with one scale a layer. These scales are fixed beforehand, from the first pictures of every shape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch

from vggtkit.model import VGGT
from vggtkit.quant import Layer, PackedWeight, find_layers
from vggtkit.runtime.backend import Backend, Execution, Options, Prepared, is_whole
from vggtkit.runtime.codes import is_int8
from vggtkit.runtime.onnx.backend import Inputs, OnFiles, check_writable_as_file
from vggtkit.runtime.onnx.file import write
from vggtkit.runtime.onnx.qdq import QdqWeight, largest_inputs
from vggtkit.runtime.onnx.tensors import WRITERS, check_packages
from vggtkit.runtime.onnx.trace import trace
from vggtkit.runtime.onnx.weights import Codes
from vggtkit.runtime.openvino.attention import largest_scored
from vggtkit.runtime.openvino.session import EXTRA, Session, floats, version
from vggtkit.runtime.processor import instructions, missing_for_int8, name
from vggtkit.runtime.reference import told_executions
from vggtkit.subject import Subject

LEAST_OUTPUTS = 16
"""A layer with fewer, as the last of every head, gains nothing in whole numbers, and nothing after it would hide what
rounding its input does."""


class OpenVino(Backend):
    """OpenVINO on the processor; every format, those that are no INT8 per channel with activations in bfloat16.

    >>> OpenVino().runs("int3_asym_64", "linear")
    True
    """

    key, title = "openvino", "OpenVINO (8-bit weights and activations, one scale a layer)"
    needs = "onnx, onnxscript and openvino"

    @property
    def missing(self) -> str:
        """As `Backend.missing`."""
        return "" if version() else "openvino"

    def runs(self, format_key: str, layer_kind: str) -> bool:  # noqa: ARG002
        """All of them."""
        return True

    def describe(self) -> str:
        """As `Backend.describe`."""
        return (
            f"OpenVINO {version()} on {name()} ({instructions()}): INT8 weights x INT8 activations (one scale a layer, "
            f"from the first pictures) in linear layers and convolutions, the rest in {floats()}"
        )

    def check(self, subject: Subject) -> None:
        """As `Backend.check`.

        Raises:
            InputError: no VGGT, not on the processor, or a package is missing.
        """
        check_packages(*WRITERS, "openvino", extra=EXTRA)
        check_writable_as_file(self.key, subject)

    def prepare(self, subject: Subject, options: Options | None = None) -> Prepared:
        """The file is written when a pass shows its pictures.

        Raises:
            InputError: as `check`.
        """
        self.check(subject)
        assert subject.vggt is not None
        model, told = subject.vggt, told_executions(subject, options or Options())
        whole = {layer.name: layer for layer in find_layers(model) if not _why_not_whole(model, layer, told)}

        def load(inputs: Inputs, path: Path) -> Session:
            with torch.no_grad(), largest_inputs(model) as largest, largest_scored(model) as scored:
                type(model).forward(model, *inputs)
            weights = {layer.name: None for layer in find_layers(model)} | {
                layer: QdqWeight(_codes(model, layer), largest[layer], whole[layer].kind) for layer in whole
            }
            write(trace(model, inputs.shapes, weights, standard=True, largest_scored=scored), path)
            return Session(path)

        return OnFiles(model, self._execution(model, told), load)

    def _execution(self, model: VGGT, told: Mapping[str, str]) -> Execution:
        reasons = {layer.name: _why_not_whole(model, layer, told) for layer in find_layers(model)}
        plain = floats()
        ways = Counter(plain if reason else "INT8" for reason in reasons.values())
        plain_bytes = 2 if plain == "bfloat16" else 4
        size = sum(
            plain_bytes * layer.weights if reasons[layer.name] else layer.weights + 4 * layer.shape[0]
            for layer in find_layers(model)
        )
        return Execution(
            self.key, self.describe(), size, dict(ways), {layer: reason for layer, reason in reasons.items() if reason}
        )


def _why_not_whole(model: VGGT, layer: Layer, told: Mapping[str, str]) -> str:
    """Why a layer is not computed in whole numbers; "" where it is."""
    packed = getattr(model.get_submodule(layer.name), "packed", None)
    if not isinstance(packed, PackedWeight):
        return "kept in FP32"
    if missing := missing_for_int8():
        return f"this processor has no {missing}"
    if not is_whole(told.get(layer.name)):
        return f"the plan keeps it in {told[layer.name]}"
    if not is_int8(packed.format.key):
        return f"{packed.format.key} is not INT8 per channel"
    return "" if layer.shape[0] >= LEAST_OUTPUTS else "its outputs are too few to gain from INT8"


def _codes(model: VGGT, layer: str) -> Codes:
    packed = model.get_submodule(layer).packed
    assert isinstance(packed, PackedWeight)
    return Codes(packed.quantized)
