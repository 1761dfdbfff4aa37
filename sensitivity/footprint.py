"""How much memory a profile will take, said before it starts, from shapes alone.

Two moments decide. In a plain pass it is the largest intermediate, a few times over, beside the FP32 values that
schemes are compared with. In the sketch it is the segment with the largest graph, which is counted by running the
model for its shapes, beside the gradients of its weights for every output and probe. `GraphCounter` counts in a pass
that may count other things too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from sensitivity.input_rounding import has_rounded_input
from sensitivity.recorder import VALUES_PER_CALL, repeated_layers
from sensitivity.survey import LayerVolume, run_for_shapes
from sensitivity.weight_errors import CACHE_BYTES, NOISE_DRAWS, WEIGHTS_AT_ONCE
from vggtkit.core.memory import bytes_of
from vggtkit.model.outputs import outputs_of_head
from vggtkit.quant import Layer
from vggtkit.quant.activations import ACTIVATION_FORMATS
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

FLOAT = 4
TENSORS_ALIVE = 4
"""Of the size of the largest, in a plain pass: what goes in, what is made, and two copies on the way."""

SIMULATING = 3
"""Copies of a weight while its error in a format is made."""

ALLOCATOR = 1.25
"""Memory held over memory asked for; measured 1.2 on the bundled network and 1.5 on VGGT-1B."""

SOME_OUTPUTS = 8
"""Of a model that does not say how many it has."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of memory that a profile takes beside what the process has already.

    Attributes:
        passes: of the passes in FP32 and under schemes.
        sketch: of the backward passes.
    """

    passes: int
    sketch: int

    @property
    def peak(self) -> int:
        """The larger of the two, with what the allocator keeps in gaps."""
        return int(ALLOCATOR * max(self.passes, self.sketch))


def footprint(
    subject: Subject,
    layers: Sequence[Layer],
    volumes: Sequence[LayerVolume],
    count: GraphCounter,
    *,
    candidates: int,
    probes: int,
    sample_bytes: int,
) -> Footprint | None:
    """Estimate the memory of a profile.

    Args:
        subject: to be profiled.
        layers: of it.
        volumes: of the layers, from `survey`.
        count: what was counted in a pass over any of the scenes.
        candidates: formats that are scored.
        probes: random vectors per output.
        sample_bytes: of one scene's stored tokens under one scheme.

    Returns:
        The estimate; None for a large model that cannot run on the meta device.
    """
    if not count.is_complete:
        return None
    references = sum(min(v.tokens * v.channels, VALUES_PER_CALL * v.calls) * FLOAT for v in volumes)
    repeated = repeated_layers(layers, volumes)
    kept = FLOAT * sum(layer.weights for layer in layers if layer.name in repeated)
    if subject.segments_are_known:  # the pass that is gone back through is kept meanwhile
        kept += count.stored
    passes = references + sample_bytes + kept + count.trunk_bytes + TENSORS_ALIVE * count.largest
    errors = FLOAT * candidates * sum(layer.weights for layer in layers)
    noise = FLOAT * NOISE_DRAWS * max((layer.weights for layer in layers), default=0)
    # Errors that are not kept are made in the same memory for all layers.
    cached = noise + (errors if errors <= CACHE_BYTES else FLOAT * candidates * WEIGHTS_AT_ONCE)
    moments = [count.largest]
    for name, module in count.segments.items():
        gradients = probes * _outputs_behind(subject, name)
        sizes = [p.numel() * FLOAT for p in module.parameters() if p.ndim > 1] or [0]
        of_weights = gradients * (sum(sizes) + max(sizes)) + SIMULATING * max(sizes)
        moments.append(count.graphs.get(name, 0) + count.rounding.get(name, 0) + of_weights)
    between = count.between + count.rounding.get("", 0)
    return Footprint(passes, count.stored + between + cached + sample_bytes + max(moments))


def graphs_of(subject: Subject, scene: Scene) -> GraphCounter | None:
    """What passes with gradients keep in memory; None for a model that cannot run on the meta device."""
    count = GraphCounter(subject)
    with count.watching():
        run_for_shapes(subject, scene)
    return count if count.is_complete else None


def _outputs_behind(subject: Subject, segment: str) -> int:
    """How many outputs see a segment."""
    heads = subject.heads_of_segment(segment)
    return sum(len(outputs_of_head(head)) for head in heads) if heads else SOME_OUTPUTS


class GraphCounter:
    """Counts bytes of intermediates, of every segment's graph and of its inputs' errors, in a pass that it watches.

    Args:
        subject: whose pass is watched.
        segments: that the sketch goes back through one at a time; those of the subject by default.

    Attributes:
        is_complete: whether the watched pass came to its end.
        graphs: what a segment keeps for its way back, by name.
        between: the same of what lies between segments, where these are not known.
        handed: what a segment is given and hands on, by name.
        rounding: errors of a segment's rounded inputs, by name; "" between segments.
        stored: what segments are given and hand on, each once.
        trunk_bytes: what the trunk hands to the heads.
        largest: of any module's output.
    """

    def __init__(self, subject: Subject, segments: Mapping[str, nn.Module] | None = None) -> None:
        self.subject = subject
        self.segments = subject.segments() if segments is None else segments
        self.names = {id(module): name for name, module in self.segments.items()}
        self.trunk = subject.trunk
        rounded = [layer for layer in subject.layers if has_rounded_input(subject.model, layer)]
        self.rounded = {id(subject.model.get_submodule(layer.name)) for layer in rounded}
        self.is_complete = False
        self.graphs: dict[str, int] = {}
        self.handed: dict[str, int] = {}
        self.rounding: dict[str, int] = {}
        self.inside: list[str] = []
        self.largest = self.stored = self.trunk_bytes = self.between = 0
        self.seen: set[int] = set()
        self.outside: set[int] = set()
        self.given: dict[int, Tensor] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The pass, with gradients, is within this context."""
        handles = []
        for module in self.subject.model.modules():
            if isinstance(module, torch.jit.ScriptModule):  # takes no hooks; one with weights was refused
                continue
            handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
            handles.append(module.register_forward_hook(self._leave))
        try:
            with torch.enable_grad(), saved_tensors_hooks(self._save, lambda value: value), _FusedAttention():
                yield
        finally:
            self.given.clear()
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if id(module) in self.rounded:
            place = self.inside[-1] if self.inside else ""
            errors = len(ACTIVATION_FORMATS) * FLOAT * sum(value.numel() for value in arguments)
            self.rounding[place] = self.rounding.get(place, 0) + errors
        if id(module) in self.names:
            self.inside.append(self.names[id(module)])
            self.seen = set()
            self.graphs[self.inside[-1]] = self.rounding[self.inside[-1]] = 0
            self.handed[self.inside[-1]] = bytes_of((arguments, keywords))
            self._keep((arguments, keywords))

    def _leave(self, module: nn.Module, _arguments: object, output: object) -> None:
        self.largest = max(self.largest, bytes_of(output))
        if id(module) in self.names:
            self.handed[self.inside.pop()] += bytes_of(output)
            self._keep(output)
        if module is self.trunk:
            self.trunk_bytes = bytes_of(output)
        self.is_complete = module is self.subject.model

    def _keep(self, values: object) -> None:
        """What stays until the way back; what one segment hands to the next is there once."""
        for value in tree_leaves(values):
            if isinstance(value, Tensor) and value.untyped_storage()._cdata not in self.given:
                self.given[value.untyped_storage()._cdata] = value
                self.stored += bytes_of(value)

    def _save(self, value: Tensor) -> Tensor:
        origin = value if value._base is None else value._base
        storage = value.untyped_storage()._cdata
        is_weight = origin.is_leaf and origin.requires_grad
        if self.inside and not is_weight and storage not in self.seen:
            self.seen.add(storage)
            self.graphs[self.inside[-1]] += value.untyped_storage().nbytes()
        # What lies between known segments is small; a foreign model may be all of it.
        elif not self.inside and not self.subject.segments_are_known and not is_weight and storage not in self.outside:
            self.outside.add(storage)
            self.between += value.untyped_storage().nbytes()
        return value


class _Fused(torch.autograd.Function):
    """Attention as fused kernels keep it for the way back: without its weights, which the meta device would keep."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: ANN401
        """Shapes alone."""
        output = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, output)
        return output


# mypy takes torch's `apply` for untyped
_fused: Callable[..., Tensor] = _Fused.apply


class _FusedAttention(TorchFunctionMode):
    """Within this context attention is `_fused`; nothing of torch is replaced."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Every other function is what it is."""
        if func is F.scaled_dot_product_attention:
            return _fused(*args[:3])
        return func(*args, **(kwargs or {}))
