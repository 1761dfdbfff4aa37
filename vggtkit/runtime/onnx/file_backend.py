"""What backends have in common that execute a plan as a file.

The packed model is written as an ONNX file into a temporary folder, once for every shape of input, and takes the place
of the model's own forward.
"""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.model import VGGT
from vggtkit.runtime.backend import Backend, Execution, Options, Prepared
from vggtkit.runtime.forwards import replaced_forward
from vggtkit.runtime.onnx.tensors import WRITERS, check_packages
from vggtkit.runtime.onnx.trace import Shapes
from vggtkit.runtime.reference import told_executions
from vggtkit.subject import Subject

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


class OnFiles(Prepared):
    """A model whose passes are those of files, one for every shape of input.

    Args:
        model: packed.
        execution: how the files run.
        load: writes a file at a path, for the shapes of some inputs, and loads it.
    """

    has_stages, writes_files = False, True

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


class FileBackend(Backend):
    """A package that runs such files on the processor; every format, in one way or another.

    Attributes:
        package: that runs them.
        extra: of this project, that installs it.
    """

    package: ClassVar[str]
    extra: ClassVar[str]

    @property
    def missing(self) -> str:
        """As `Backend.missing`."""
        return "" if self.version() else self.package

    def runs(self, format_key: str, layer_kind: str) -> bool:  # noqa: ARG002
        """All of them."""
        return True

    def check(self, subject: Subject) -> None:
        """As `Backend.check`.

        Raises:
            InputError: no VGGT, not on the processor, or a package is missing.
        """
        check_packages(*WRITERS, self.package, extra=self.extra)
        if subject.vggt is None:
            raise InputError(f"{setting('execute', self.key)}: only a VGGT becomes an ONNX file; use int8 or reference")
        if subject.device.type != "cpu":
            raise InputError(f"{setting('execute', self.key)} runs on the processor: give {setting('device', 'cpu')}")

    def prepare(self, subject: Subject, options: Options | None = None) -> Prepared:
        """The file is written when a pass shows its pictures.

        Raises:
            InputError: as `check`.
        """
        self.check(subject)
        assert subject.vggt is not None
        told = told_executions(subject, options or Options())
        return OnFiles(subject.vggt, self.execution(subject.vggt, told), partial(self.load, subject.vggt, told))

    @abstractmethod
    def version(self) -> str:
        """Of the package; "" where it is not installed."""

    @abstractmethod
    def execution(self, model: VGGT, told: Mapping[str, str]) -> Execution:
        """How a packed model will run, by what its plan says of layers."""

    @abstractmethod
    def load(self, model: VGGT, told: Mapping[str, str], inputs: Inputs, path: Path) -> Run:
        """Write a file at a path, for the shapes of some inputs, and load it."""
