"""The backend ``onnxruntime``: a plan as ONNX Runtime executes it.

The packed model is written as `export --format onnx` writes it, into a temporary folder, once for every shape of input,
and takes the place of the model's own forward.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.model import VGGT
from vggtkit.quant import find_layers
from vggtkit.runtime.backend import Backend, Execution, Options, Prepared, is_whole
from vggtkit.runtime.forwards import replaced_forward
from vggtkit.runtime.onnx.file import write
from vggtkit.runtime.onnx.session import Session, version
from vggtkit.runtime.onnx.styles import operators
from vggtkit.runtime.onnx.tensors import WRITERS, check_packages
from vggtkit.runtime.onnx.trace import Shapes, trace
from vggtkit.runtime.onnx.weights import OnnxWeight
from vggtkit.runtime.processor import instructions, name
from vggtkit.runtime.reference import told_executions
from vggtkit.subject import Subject

STYLE = "auto"
Run = Callable[..., dict[str, Tensor]]
"""Outputs by name, of inputs by name."""


class Inputs(NamedTuple):
    """Of a pass.

    Attributes:
        images: ``[1, S, 3, H, W]``.
        query_points: ``[1, N, 2]``.
    """

    images: Tensor
    query_points: Tensor

    @property
    def shapes(self) -> Shapes:
        """What a file must be made for."""
        _, views, _, height, width = self.images.shape
        return Shapes(height, width, views, self.query_points.shape[1])


class OnnxRuntime(Backend):
    """ONNX Runtime on the processor; every format, exactly as the file says.

    >>> OnnxRuntime().runs("int3_asym_64", "linear")
    True
    """

    key, title = "onnxruntime", "ONNX Runtime (MatMulNBits, DynamicQuantizeMatMul)"
    needs = "onnx, onnxscript and onnxruntime"

    @property
    def missing(self) -> str:
        """As `Backend.missing`."""
        return "" if version() else "onnxruntime"

    def runs(self, format_key: str, layer_kind: str) -> bool:  # noqa: ARG002
        """All of them."""
        return True

    def describe(self) -> str:
        """As `Backend.describe`."""
        return (
            f"ONNX Runtime {version()} on {name()} ({instructions()}): weights in 2 to 8 bits by MatMulNBits "
            "(activations in 8 bits, a scale per row and block) and DynamicQuantizeMatMul (one scale for all of them), "
            "attention, convolutions and the rest in FP32"
        )

    def check(self, subject: Subject) -> None:
        """As `Backend.check`.

        Raises:
            InputError: no VGGT, not on the processor, or a package is missing.
        """
        check_packages(*WRITERS, "onnxruntime")
        check_writable_as_file(self.key, subject)

    def prepare(self, subject: Subject, options: Options | None = None) -> Prepared:
        """The file is written when a pass shows the size of its pictures.

        Raises:
            InputError: as `check`.
        """
        self.check(subject)
        assert subject.vggt is not None
        model, told = subject.vggt, told_executions(subject, options or Options())

        def load(inputs: Inputs, path: Path) -> Session:
            write(trace(model, inputs.shapes, operators(model, STYLE, told)), path)
            return Session(path)

        return OnFiles(model, self._execution(model, told), load)

    def _execution(self, model: VGGT, told: Mapping[str, str]) -> Execution:
        weights = operators(model, STYLE, told)
        ways = Counter("FP32" if weight is None else weight.way for weight in weights.values())
        plain = {layer.name: 4 * layer.weights for layer in find_layers(model)}
        size = sum(plain[layer] if weight is None else weight.nbytes for layer, weight in weights.items())
        return Execution(self.key, self.describe(), size, dict(ways), _in_fp32(model, weights, told))


class OnFiles(Prepared):
    """A model whose passes are those of files, one for every shape of input.

    Args:
        model: packed.
        execution: how the files run.
        load: writes a file at a path, for the shapes of some inputs, and loads it.
    """

    has_stages = False

    def __init__(self, model: VGGT, execution: Execution, load: Callable[[Inputs, Path], Run]) -> None:
        self.model, self.execution, self.load = model, execution, load
        self.loaded: dict[Shapes, Run] = {}
        self.folder = tempfile.TemporaryDirectory(prefix="vggt-mixedprec-")

    @contextmanager
    def running(self) -> Iterator[None]:
        """As `Prepared.running`; the first pass of a shape takes as long as the export does."""
        with replaced_forward(self.model, self._forward):
            yield

    def _forward(self, images: Tensor, query_points: Tensor | None = None) -> dict[str, Tensor]:
        images = images[None] if images.ndim == 4 else images
        points = torch.zeros(1, 1, 2) if query_points is None else query_points
        inputs = Inputs(images, points[None] if points.ndim == 2 else points)
        if inputs.shapes not in self.loaded:
            self.loaded[inputs.shapes] = self.load(inputs, Path(self.folder.name) / f"{len(self.loaded)}.onnx")
        return {**self.loaded[inputs.shapes](**inputs._asdict()), "images": images}


def check_writable_as_file(backend: str, subject: Subject) -> None:
    """Refuse what cannot be written as an ONNX file and run on the processor.

    Raises:
        InputError: no VGGT, or not on the processor.
    """
    if subject.vggt is None:
        raise InputError(f"{setting('execute', backend)}: only a VGGT becomes an ONNX file; use int8 or reference")
    if subject.device.type != "cpu":
        raise InputError(f"{setting('execute', backend)} runs on the processor: give {setting('device', 'cpu')}")


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
