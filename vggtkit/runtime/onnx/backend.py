"""The backend ``onnxruntime``: a plan as ONNX Runtime executes it.

The packed model is written as `export --format onnx` writes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from vggtkit.model import VGGT
from vggtkit.quant import find_layers
from vggtkit.runtime.backend import Execution, is_whole
from vggtkit.runtime.onnx.file import write
from vggtkit.runtime.onnx.file_backend import FileBackend, Inputs
from vggtkit.runtime.onnx.session import Session, version
from vggtkit.runtime.onnx.styles import operators
from vggtkit.runtime.onnx.trace import trace
from vggtkit.runtime.onnx.weights import OnnxWeight
from vggtkit.runtime.processor import instructions, name

STYLE = "auto"


class OnnxRuntime(FileBackend):
    """ONNX Runtime on the processor; every format, exactly as the file says.

    >>> OnnxRuntime().runs("int3_asym_64", "linear")
    True
    """

    key, title = "onnxruntime", "ONNX Runtime (MatMulNBits, DynamicQuantizeMatMul)"
    needs = "onnx, onnxscript and onnxruntime"
    package, extra = "onnxruntime", "onnx"

    def version(self) -> str:
        """As `FileBackend.version`."""
        return version()

    def describe(self) -> str:
        """As `Backend.describe`."""
        return (
            f"ONNX Runtime {version()} on {name()} ({instructions()}): weights in 2 to 8 bits by MatMulNBits "
            "(activations in 8 bits, a scale per row and block) and DynamicQuantizeMatMul (one scale for all of them), "
            "attention, convolutions and the rest in FP32"
        )

    def execution(self, model: VGGT, told: Mapping[str, str]) -> Execution:
        """As `FileBackend.execution`."""
        weights = operators(model, STYLE, told)
        ways = Counter("FP32" if weight is None else weight.way for weight in weights.values())
        plain = {layer.name: 4 * layer.weights for layer in find_layers(model)}
        size = sum(plain[layer] if weight is None else weight.nbytes for layer, weight in weights.items())
        return Execution(self.key, self.describe(), size, dict(ways), _in_fp32(model, weights, told))

    def load(self, model: VGGT, told: Mapping[str, str], inputs: Inputs, path: Path) -> Session:
        """As `FileBackend.load`."""
        write(trace(model, inputs.shapes, operators(model, STYLE, told)), path)
        return Session(path)


def _in_fp32(model: VGGT, weights: Mapping[str, OnnxWeight | None], told: Mapping[str, str]) -> dict[str, str]:
    """Why linear layers are computed in FP32, by name."""
    reasons = {}
    for layer in find_layers(model):
        if layer.kind.startswith("conv") or weights[layer.name] is not None:
            continue
        if not is_whole(told.get(layer.name)):
            reasons[layer.name] = f"the plan keeps it in {told[layer.name]}"
        else:
            reasons[layer.name] = (
                "too small to gain by MatMulNBits, in floating point, or in groups that it does not have"
            )
    return reasons
