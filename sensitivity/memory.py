"""How much memory a profile will take, said before it starts, from shapes alone.

Two moments decide. In a plain pass it is the largest intermediate, a few times over, beside the FP32 values that
schemes are compared with. In the sketch it is the segment with the largest graph, which is counted by running the
model for its shapes, beside the gradients of its weights for every output and probe.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves

from errors import InputError
from model import VGGT
from quant import Layer
from scenes import Scene
from sensitivity.recorder import VALUES_PER_CALL
from sensitivity.segments import segments_of
from sensitivity.sketch import CACHE_BYTES, PART_BYTES
from sensitivity.survey import LayerVolume, run_for_shapes

FLOAT = 4
TENSORS_ALIVE = 4
"""Of the size of the largest, in a plain pass: what goes in, what is made, and two copies on the way."""

SIMULATING = 3
"""Copies of a weight while its error in a format is made."""

ALLOCATOR = 1.25
"""Memory held over memory asked for; measured 1.2 on the bundled network and 1.5 on VGGT-1B."""

_OUTPUTS_OF_HEADS = {"camera_head": 1, "depth_head": 2, "point_head": 2, "track_head": 3}
_ALL_OUTPUTS = 8


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
    model: nn.Module,
    layers: Sequence[Layer],
    volumes: Sequence[LayerVolume],
    scene: Scene,
    *,
    candidates: int,
    probes: int,
    sample_bytes: int,
) -> Footprint | None:
    """Estimate the memory of a profile.

    Args:
        model: in eval mode.
        layers: of the model.
        volumes: of the layers, from `survey`.
        scene: any of the scenes.
        candidates: formats that are scored.
        probes: random vectors per output.
        sample_bytes: of one scene's stored tokens under one scheme.

    Returns:
        The estimate; None for a large model that cannot run on the meta device.
    """
    count = _Counter(model)
    if not count.run(scene):
        return None
    references = sum(min(v.tokens * v.channels, VALUES_PER_CALL * v.calls) * FLOAT for v in volumes)
    passes = references + sample_bytes + count.kept + TENSORS_ALIVE * count.largest
    errors = FLOAT * candidates * sum(layer.weights for layer in layers)
    cached = errors if errors <= CACHE_BYTES else 0
    moments = [count.largest]
    for name, module in segments_of(model).items():
        gradients = probes * _OUTPUTS_OF_HEADS.get(name.split(".")[0], _ALL_OUTPUTS)
        sizes = [p.numel() * FLOAT for p in module.parameters() if p.ndim > 1] or [0]
        part = 0 if cached else min(PART_BYTES, candidates * max(sizes))
        of_weights = gradients * (sum(sizes) + max(sizes)) + part + SIMULATING * max(sizes)
        moments.append(count.graphs.get(name, 0) + of_weights)
    return Footprint(passes, count.stored + cached + sample_bytes + max(moments))


class _Counter:
    """Counts bytes of intermediates and of every segment's graph in a run on the meta device."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.names = {id(module): name for name, module in segments_of(model).items()}
        self.graphs: dict[str, int] = {}
        self.inside: list[str] = []
        self.largest = self.stored = self.kept = 0
        self.seen: set[int] = set()
        self.given: dict[int, Tensor] = {}

    def run(self, scene: Scene) -> bool:
        """Whether the model could be run."""
        handles = []
        for module in self.model.modules():
            handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
            handles.append(module.register_forward_hook(self._leave))
        try:
            with torch.enable_grad(), saved_tensors_hooks(self._save, lambda value: value), _fused_attention():
                return run_for_shapes(self.model, scene)
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if id(module) in self.names:
            self.inside.append(self.names[id(module)])
            self.seen = set()
            self.graphs[self.inside[-1]] = 0
            self._keep((arguments, keywords))

    def _leave(self, module: nn.Module, _arguments: object, output: object) -> None:
        self.largest = max(self.largest, bytes_of(output))
        if id(module) in self.names:
            self.inside.pop()
            self._keep(output)
        if isinstance(self.model, VGGT) and module is self.model.aggregator:
            self.kept = bytes_of(output)

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


@contextmanager
def _fused_attention() -> Iterator[None]:
    original = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = lambda q, k, v, *_rest, **_options: _fused(q, k, v)
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


def bytes_of(value: object) -> int:
    """Of all tensors in a value, however nested."""
    return sum(v.numel() * v.element_size() for v in tree_leaves(value) if isinstance(v, Tensor))


def resident_bytes() -> int | None:
    """Memory that the process has at the moment; None where the system does not tell.

    >>> (resident_bytes() or 1) > 0
    True
    """
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def peak_resident_bytes() -> int:
    """The most memory that the process has had."""
    with suppress(OSError, StopIteration, ValueError):  # what the resource module says may be a parent's
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def check_disk(needed: int, folder: Path) -> None:
    """Refuse work whose files would not fit, before it starts.

    Raises:
        InputError: with both numbers and the way out.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"the profile needs {needed / 1e6:.0f} MB of disk while it is made, {free / 1e6:.0f} MB are free in "
            f"{folder}: make room, name another --run, or give a lower --disk-budget"
        )


def free_bytes(device: torch.device) -> int | None:
    """Memory that a device has left; None where it does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = None
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    with suppress(OSError, ValueError):  # what a container may take
        group = Path("/sys/fs/cgroup")
        left = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
        free = left if free is None else min(free, left)
    return free


def check_memory(needed: int, device: torch.device) -> None:
    """Refuse work that does not fit, before it starts.

    Raises:
        InputError: with both numbers and the ways out.

    >>> check_memory(10**15, torch.device("cpu"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    errors.InputError: profiling needs about 1000000.0 GB of memory beside the weights, ... GB are free: ...
    """
    free = free_bytes(device)
    if free is not None and needed > free:
        raise InputError(
            f"profiling needs about {needed / 1e9:.1f} GB of memory beside the weights, {free / 1e9:.1f} GB are free: "
            "give fewer pictures (--max-images, --views), smaller ones (--resolution) or --probes 1"
        )
