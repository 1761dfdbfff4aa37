"""A model under study: how it is called and on what, what it puts out, and how it is taken apart.

Everything that measures, plans or reports asks these questions of a subject and of nothing else. VGGT answers them from
what is published (`vggtkit.subject.vggt`), any other module from what it shows (`vggtkit.subject.module`).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import networkx as nx
import torch
from torch import Tensor, nn

from vggtkit.core.errors import InputError
from vggtkit.metrics.depth import Alignment
from vggtkit.metrics.geometry import geometry_metrics
from vggtkit.metrics.points import QUERY_LIMIT
from vggtkit.model import VGGT
from vggtkit.model.outputs import PUBLISHED_OUTPUTS, outputs_by_task
from vggtkit.quant import Layer, NameTable, find_layers
from vggtkit.scenes import Scene


class Call(NamedTuple):
    """What a model is called with.

    Attributes:
        arguments: in their order.
        keywords: by name.
    """

    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]


class TokenGrid(NamedTuple):
    """How the tokens of one view lie.

    Attributes:
        special: class or camera token and registers, in front of the patches.
        rows: of patches.
        columns: of patches.
    """

    special: int
    rows: int
    columns: int

    @property
    def tokens(self) -> int:
        """Of one view."""
        return self.special + self.rows * self.columns


class Subject(ABC):
    """A model under study.

    Args:
        model: in eval mode, not packed.
        source: as `open_subject` takes it; for messages and files.
        names: how roles and blocks are told from the names of layers.

    Attributes:
        precision: that it computes in; weights are FP32 in memory all the same.
        left_out: what the model returned in the last pass that is no output, by name, with what it is.
    """

    heads: tuple[str, ...] = ()
    """What can be left out of the model, in its order; none for most."""

    recorded_whole: tuple[type[nn.Module], ...] | None = None
    """Modules that `sensitivity.replay` records as a whole; None where a pass must not be replayed in parts."""

    vggt: VGGT | None = None
    """The model itself where it is a VGGT, for what is made for its architecture alone; None for others."""

    segments_are_known: bool = False
    """Whether all that segments are given and hand on is known to be seen, see `sensitivity.dataflow`."""

    def __init__(self, model: nn.Module, source: str = "", names: NameTable | None = None) -> None:
        self.model, self.source, self.names = model, source, names or NameTable()
        self.left_out: Mapping[str, str] = {}
        self.precision = torch.float32

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers whose weights can be quantised, in model order."""
        return tuple(find_layers(self.model, self.names))

    def reading(self, layers: Sequence[Layer]) -> Subject:
        """The same model with what a profile knows of its layers: those whose weight is read past their module."""
        read_past = {layer.name for layer in layers if layer.reader == ""}
        other = copy.copy(self)
        other.layers = tuple(replace(layer, reader="") if layer.name in read_past else layer for layer in self.layers)
        return other

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.model.parameters()).device

    @property
    def parameters(self) -> int:
        """How many numbers the model holds."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def run(self, scene: Scene, *, check: bool = True) -> dict[str, Tensor]:
        """The model's outputs for a scene; this is the one place where a model is run.

        Args:
            scene: what it sees. Every pass is given tensors of its own, so a model that works in place on its input
                changes nobody else's.
            check: refuse outputs that are not finite; a scheme that breaks the model is a result instead.

        Returns:
            By name: of VGGT the published outputs, of others every floating-point tensor, see `flatten_outputs`.

        Raises:
            InputError: an output is not finite, there is none, or the model's own code fails.
        """
        outputs = self.outputs(self.call(self.arguments(scene, self.device)))
        if not torch.is_grad_enabled():
            outputs = {name: value.detach() for name, value in outputs.items()}
        for name, value in outputs.items():
            if check and not value.isfinite().all():
                raise InputError(
                    f"scene {scene.name}: the FP32 model gives NaN or Inf in {name}; it cannot be a reference"
                )
        return outputs

    @torch.no_grad()
    def predict(self, scene: Scene, *, check: bool = False) -> dict[str, Tensor]:
        """The same without gradients, on the CPU in FP32, to be compared and kept."""
        return {name: value.float().cpu() for name, value in self.run(scene, check=check).items()}

    def call(self, call: Call) -> object:
        """Call the model, as `run` does."""
        return self.model(*call.arguments, **call.keywords)

    @abstractmethod
    def arguments(self, scene: Scene, device: torch.device) -> Call:
        """What the model is called with for a scene, on a device."""

    @abstractmethod
    def outputs(self, returned: object) -> dict[str, Tensor]:
        """What the model returned, by name of output."""

    def tasks(self, outputs: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Outputs by what they are for; an output that belongs to none is a task of its own."""
        return outputs_by_task(outputs)

    def figures(
        self,
        outputs: Mapping[str, Tensor],
        scene: Scene,
        *,
        alignment: Alignment = "median",
        query_limit: int = QUERY_LIMIT,
        seed: int = 0,
    ) -> dict[str, float]:
        """What a scene's outputs say of cameras, depth, points and tracks, see `geometry_metrics`.

        Figures that need an output which the model does not have are absent.
        """
        if not any(name in PUBLISHED_OUTPUTS for name in outputs):
            return {}
        size = (scene.images.shape[-2], scene.images.shape[-1])
        return geometry_metrics(outputs, scene.truth, size, alignment=alignment, query_limit=query_limit, seed=seed)

    @abstractmethod
    def with_heads(self, heads: Sequence[str]) -> Subject:
        """The same model without its other heads; weights are shared, nothing is copied or changed.

        Raises:
            InputError: an unknown head, or one that the model lacks.
        """

    @abstractmethod
    def segments(self) -> dict[str, nn.Module]:
        """The modules that backward passes go through one at a time, by name."""

    @contextmanager
    def as_written(self) -> Iterator[None]:
        """Within the block parts of the model run as they do in `run`, and what they remember is forgotten after."""
        yield

    def heads_of_segment(self, name: str) -> tuple[str, ...]:  # noqa: ARG002
        """The heads whose outputs see a segment; none where that is not known."""
        return ()

    @property
    def trunk(self) -> nn.Module | None:
        """The part whose output all heads read, if there is one."""
        return None

    def token_grid(self, scene: Scene) -> TokenGrid | None:  # noqa: ARG002
        """How tokens lie in the views of a scene; None where they do not, or nobody knows."""
        return None

    @property
    def picture_sizes(self) -> tuple[int, int]:
        """Width of the pictures that the model is made for, and of its patches, in pixels."""
        return 518, 14

    @contextmanager
    def computing_in(self, dtype: torch.dtype) -> Iterator[None]:
        """Let the model compute in a precision within the block.

        Weights stay as they are and are rounded when they are used, the replaced ones as well: nothing is cached.
        """
        before, self.precision = self.precision, dtype
        try:
            yield
        finally:
            self.precision = before

    @contextmanager
    def differentiated_in(self, dtype: torch.dtype) -> Iterator[None]:
        """As `computing_in`, for gradients, which need less precision than what they are compared for."""
        with self.computing_in(dtype):
            yield

    def lowered_segments(self, dtype: torch.dtype) -> Mapping[str, torch.dtype]:  # noqa: ARG002
        """Segments that `differentiated_in` computes in another precision than they were in, and in which, by name."""
        return {}

    @abstractmethod
    def graph(self, scene: Scene | None = None) -> nx.DiGraph:
        """Which layers feed which, see `vggtkit.subject.graph`; seen in a pass over a scene where one is needed.

        Raises:
            InputError: a scene is needed and not given.
        """

    @abstractmethod
    def description(self) -> str:
        """What the architecture can be built from again, as files keep it; "" where only the source can."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the model, what it was made with, and what was set since, for workers."""
        return type(self), (self.model, self.source, self.names), self._set_since()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """What was set since it was made."""
        for name, value in state.items():
            setattr(self, name, value)

    def _set_since(self) -> dict[str, Any]:
        layers = {"layers": self.__dict__["layers"]} if "layers" in self.__dict__ else {}
        return {"precision": self.precision} | layers
