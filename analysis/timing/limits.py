"""The least that every stage of a pass could take on this machine: what it computes at the best speed of each kernel.

Operations and numbers are counted on shapes, on the meta device; the best speeds are measured on one product of the
size of VGGT-1B's and on one copy. A stage can be as fast as

- the products of its layers, each at the peak of its kernel, or as its weight can be read if that takes longer;
- attention, its two products at the peak of floating point;
- everything else (norms, activations, sums, resizing), which torch does operation by operation: what goes in and comes
  out at the speed of memory;
- unpacking the weights that are packed, once for every call.

What is added on top while it runs is the distance from that: rounding and scaling rows, softmax, small products,
starting operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from analysis.timing.clock import now, stage_of_layers
from sensitivity.survey import run_on_meta
from vggtkit.quant import Layer, get_format, quantize
from vggtkit.runtime.codes import Int8Weight, expanded, is_int8
from vggtkit.runtime.int8 import runs_whole
from vggtkit.runtime.kernels import KernelChoice, quantize_rows
from vggtkit.runtime.stages import REST, stages
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

ROWS, INPUTS, OUTPUTS = 2048, 1024, 4096
COPIED = 2**26
"""Numbers of a copy, which no cache holds."""
UNPACKED_AS = "int4_two_level_64"
REPEATS = 8
WIDTHS = {"int8": 1, "bfloat16": 2, "fp32": 4}
"""Bytes of a number."""


@dataclass(frozen=True)
class Peaks:
    """The best speeds of a machine with the threads of now.

    Attributes:
        operations: a second, by type of numbers, of `WIDTHS`; multiplications and additions.
        bytes: that memory gives and takes a second.
        unpacking: seconds a weight, from `UNPACKED_AS` to INT8.
    """

    operations: Mapping[str, float]
    bytes: float
    unpacking: float


@dataclass
class StageWork:
    """What a stage computes.

    Attributes:
        layers: operations and weights of every call of a layer, by how it runs, of `WIDTHS`.
        attention: operations of attention itself.
        numbers: that all other operations read and write.
        unpacked: weights that are unpacked, over all calls.
    """

    layers: list[tuple[str, float, int]] = field(default_factory=list)
    attention: float = 0.0
    numbers: float = 0.0
    unpacked: float = 0.0


@dataclass(frozen=True)
class StageLimit:
    """Least seconds of a stage, by what takes them."""

    products: float
    attention: float
    memory: float
    unpacking: float

    @property
    def seconds(self) -> float:
        """Of all that, one after the other."""
        return self.products + self.attention + self.memory + self.unpacking


def measured_peaks(choice: KernelChoice | None) -> Peaks:
    """Measure the peaks here, in a few seconds.

    Args:
        choice: the kernels for whole numbers; None where there are none, and bfloat16 is then not used either.
    """
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(ROWS, INPUTS, generator=generator), torch.randn(OUTPUTS, INPUTS, generator=generator)
    q, source = quantize(weight, UNPACKED_AS), torch.zeros(COPIED)
    copy = torch.empty_like(source)
    jobs: dict[str, Callable[[], object]] = {
        "fp32": partial(F.linear, x, weight),
        "copy": partial(copy.copy_, source),
        "unpacking": partial(expanded, q),
    }
    if choice is not None:
        codes, steps = quantize_rows(x)
        whole = Int8Weight(torch.randint(-127, 128, (OUTPUTS, INPUTS), dtype=torch.int8), torch.ones(OUTPUTS))
        for kernel in {choice.once, choice.each}:
            loaded = kernel.load(whole)
            jobs[f"int8 {kernel.key}"] = partial(kernel.multiply, codes, steps, loaded, None, torch.bfloat16)
    if choice is not None and choice.has_bfloat16:
        jobs["bfloat16"] = partial(F.linear, x.bfloat16(), weight.bfloat16())
    seconds, count = {name: _least(job) for name, job in jobs.items()}, 2.0 * ROWS * INPUTS * OUTPUTS
    operations = {name.partition(" ")[0]: 0.0 for name in jobs if name.partition(" ")[0] in WIDTHS}
    for name, taken in seconds.items():
        if (kind := name.partition(" ")[0]) in operations:
            operations[kind] = max(operations[kind], count / taken)
    return Peaks(operations, 2 * source.nbytes / seconds["copy"], seconds["unpacking"] / weight.numel())


def _least(job: Callable[[], object]) -> float:
    """Seconds, by the clock of kernel tables; the first run warms up."""
    taken = []
    for _ in range(REPEATS + 1):
        begun = now()
        job()
        taken.append(now() - begun)
    return min(taken[1:])


def works_as(subject: Subject, formats: Mapping[str, str], peaks: Peaks) -> dict[str, str]:
    """How every layer runs at its fastest, by name: whole numbers where its format is, else floating point."""
    floats = "bfloat16" if "bfloat16" in peaks.operations else "fp32"

    def how(layer: Layer) -> str:
        key = formats[layer.name]
        whole = is_int8(key) and not get_format(key).is_float and "int8" in peaks.operations
        return "int8" if whole and runs_whole(subject.model.get_submodule(layer.name)) else floats

    return {layer.name: how(layer) for layer in subject.layers}


def work_by_stage(subject: Subject, scene: Scene, ways: Mapping[str, str]) -> dict[str, StageWork] | None:
    """What every stage computes; None for a model that cannot run on the meta device.

    Args:
        subject: with or without values, not packed.
        scene: pictures; only their number and size matter.
        ways: how layers run, of `works_as`; a layer that is absent runs in FP32 and is not unpacked.
    """
    with torch.no_grad(), _Counted(subject, ways) as counted, _Attention(counted), counted.hooked(subject):
        return counted.work if run_on_meta(subject, scene) else None


def stage_limits(work: Mapping[str, StageWork], peaks: Peaks, floats: str, *, packed: bool) -> dict[str, StageLimit]:
    """The least seconds of every stage.

    Args:
        work: of `work_by_stage`.
        peaks: of the machine.
        floats: the type of activations and attention, of `WIDTHS`.
        packed: whether weights are unpacked as they are used.

    >>> work = StageWork([("fp32", 6e9, 10), ("fp32", 1.0, 10**9)], attention=1e9, numbers=1e9)
    >>> found = stage_limits({"blocks": work}, Peaks({"fp32": 2e9}, 4e9, 1e-9), "fp32", packed=True)["blocks"]
    >>> found.products, found.attention, found.memory, found.seconds
    (4.0, 0.5, 1.0, 5.5)
    """

    def least(how: str, operations: float, weights: int) -> float:
        return max(operations / peaks.operations[how], weights * WIDTHS[how] / peaks.bytes)

    return {
        stage: StageLimit(
            products=sum(least(*call) for call in of.layers),
            attention=of.attention / peaks.operations[floats],
            memory=of.numbers * WIDTHS[floats] / peaks.bytes,
            unpacking=of.unpacked * peaks.unpacking if packed else 0.0,
        )
        for stage, of in work.items()
    }


class _Counted(TorchDispatchMode):
    """Counts what operations compute, by the stage that runs."""

    def __init__(self, subject: Subject, ways: Mapping[str, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ways, self.homes = ways, stage_of_layers(subject)
        self.work = {stage: StageWork() for stage in (*stages(subject), REST)}
        self.stage = REST
        self.layer: Layer | None = None
        self.counting = False  # until the model runs

    @contextmanager
    def hooked(self, subject: Subject) -> Iterator[None]:
        """Within the block it is known what runs."""
        with ExitStack() as undo:
            undo.callback(subject.model.register_forward_pre_hook(self._start).remove)
            for stage, modules in stages(subject).items():
                for module in modules:
                    undo.callback(module.register_forward_pre_hook(partial(self._enter, stage)).remove)
                    undo.callback(module.register_forward_hook(partial(self._enter, REST)).remove)
            for layer in subject.layers:
                module = subject.model.get_submodule(layer.name)
                undo.callback(module.register_forward_pre_hook(partial(self._begin, layer)).remove)
                undo.callback(module.register_forward_hook(partial(self._begin, None)).remove)
            yield

    def _start(self, *_: object) -> None:
        self.counting = True

    def _enter(self, stage: str, *_: object) -> None:
        self.stage = stage

    def _begin(self, layer: Layer | None, *_: object) -> None:
        self.layer = layer
        if layer is not None and self.ways.get(layer.name) == "int8":
            self.work[self.stage].unpacked += layer.weights

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401
        """Do it, and count."""
        result = func(*args, **(kwargs or {}))
        if not self.counting:
            return result
        work = self.work[self.stage]
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            if not func.is_view:
                work.numbers += _numbers((args, kwargs, result))
            return result
        operations = float(formula(*args, **(kwargs or {}), out_val=result))
        if self.layer is None:
            work.attention += operations
        else:
            work.layers.append((self.ways.get(self.layer.name, "fp32"), operations, self.layer.weights))
        return result


class _Attention(TorchFunctionMode):
    """Attention as its two products, whose scores stay in the cache."""

    def __init__(self, counted: _Counted) -> None:
        super().__init__()
        self.counted = counted

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401
        """Every other function is what it is."""
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = args[:3]
        mixed = query.new_empty(*query.shape[:-1], value.shape[-1])
        work = self.counted.work[self.counted.stage]
        work.attention += 2.0 * key.shape[-2] * (query.numel() + mixed.numel())
        work.numbers += _numbers((query, key, value, mixed))
        return mixed


def _numbers(values: object) -> int:
    return sum(value.numel() for value in tree_leaves(values) if isinstance(value, Tensor))
