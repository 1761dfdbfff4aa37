"""The backend ``openvino``: a plan as OpenVINO executes it on the processor.

The packed model is written as an ONNX file with explicit quantisation (`vggtkit.runtime.onnx.qdq`), of which OpenVINO
makes integer products of its own: INT8 weights per output channel, the plan's codes bit for bit, times 8-bit
activations with one scale a layer, and queries times keys. These scales are fixed beforehand, from the first pictures
of every shape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch

from vggtkit.model import VGGT
from vggtkit.quant import Layer, find_layers
from vggtkit.quant.activations import INT8_TENSOR
from vggtkit.runtime.backend import Execution
from vggtkit.runtime.codes import is_int8
from vggtkit.runtime.onnx.file import write
from vggtkit.runtime.onnx.file_backend import FileBackend, Inputs
from vggtkit.runtime.onnx.qdq import QdqWeight
from vggtkit.runtime.onnx.trace import trace
from vggtkit.runtime.openvino.calibration import spans_of
from vggtkit.runtime.openvino.compiled import EXTRA, Compiled, floats, openvino_version
from vggtkit.runtime.openvino.weights import operands, why_not_whole
from vggtkit.runtime.processor import instructions, missing_for_int8, name


class OpenVino(FileBackend):
    """OpenVINO on the processor; every format, those that are no INT8 per channel with activations in bfloat16.

    >>> OpenVino().runs("int3_asym_64", "linear")
    True
    """

    key, title = "openvino", "OpenVINO (8-bit weights and activations, one scale a layer)"
    needs = "onnx, onnxscript and openvino"
    package, extra = "openvino", EXTRA

    def version(self) -> str:
        """As `FileBackend.version`."""
        return openvino_version()

    def rounds_inputs_to(self, format_key: str) -> str | None:
        """As `Backend.rounds_inputs_to`."""
        return INT8_TENSOR if is_int8(format_key) else None

    def describe(self) -> str:
        """As `Backend.describe`."""
        where = f"OpenVINO {openvino_version()} on {name()} ({instructions()})"
        if missing_for_int8():
            return f"{where}: everything in {floats()}, of the plan's weights"
        return (
            f"{where}: INT8 weights x INT8 activations (one scale a layer, from the first pictures) in linear layers "
            f"and convolutions, the rest in {floats()}"
        )

    def execution(self, model: VGGT, told: Mapping[str, str]) -> Execution:
        """As `FileBackend.execution`."""
        layers, weights, plain = find_layers(model), operands(model, told), floats()
        reasons = {layer.name: why_not_whole(model, layer, told) for layer in layers}
        ways = Counter(plain if reason else "INT8" for reason in reasons.values())
        size = sum(_bytes(layer, weights[layer.name], plain) for layer in layers)
        fell_back = {layer: reason for layer, reason in reasons.items() if reason}
        return Execution(self.key, self.describe(), size, dict(ways), fell_back)

    def load(self, model: VGGT, told: Mapping[str, str], inputs: Inputs, path: Path) -> Compiled:
        """As `FileBackend.load`; scales of activations are those of the inputs."""
        with torch.no_grad(), spans_of(model) as spans:
            type(model).forward(model, *inputs)
        spans = spans.with_room()
        weights = operands(model, told, spans.inputs)
        scored = {} if missing_for_int8() else spans.scored
        write(trace(model, inputs.shapes, weights, standard=True, largest_scored=scored), path)
        return Compiled(path)


def _bytes(layer: Layer, weight: QdqWeight | None, plain: str) -> int:
    """That a weight takes in memory."""
    if weight is None:
        return layer.weights * (2 if plain == "bfloat16" else 4)
    return layer.weights + 4 * layer.shape[0]
