"""The backend ``int8``: 8-bit weights times 8-bit activations with a scale per token, summed in whole numbers.

A weight in two levels of scales is INT8 per channel, bit for bit, so one kernel runs 2 to 8 bits. What is not (plain
INT4 groups, zero points) is refused by name, or rounded once more if asked. Convolutions, and linear layers that are
kept in FP16, are computed in bfloat16 where the processor multiplies in it faster than in FP32; small layers in FP32.
In the blocks and dense heads of VGGT activations then stay in bfloat16 between layers; elsewhere every layer returns
what it was given, so any model can be run.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from vggtkit.core.allocator import retain_memory
from vggtkit.core.errors import InputError
from vggtkit.model.dpt_head import DPTFeatures
from vggtkit.model.layers import Attention, Block
from vggtkit.quant import Layer, PackedWeight, QuantizedTensor, get_format
from vggtkit.quant.activations import INT8_TOKEN
from vggtkit.runtime.attention import attend
from vggtkit.runtime.backend import Backend, Execution, Options, Prepared, is_whole, not_run
from vggtkit.runtime.codes import converted, is_int8
from vggtkit.runtime.forwards import replaced_forward
from vggtkit.runtime.kernels import KERNELS, Kernel, KernelChoice, choose, fastest
from vggtkit.runtime.processor import instructions, name
from vggtkit.runtime.reference import TILED_KERNELS as AS_REFERENCE
from vggtkit.runtime.reference import packed_weights, told_executions, weight_bytes
from vggtkit.runtime.runners import FloatRunner, Int8Runner, PutBack, Runner, has_product, is_pointwise
from vggtkit.subject import Subject

LARGE_WEIGHTS = 2**16
"""A layer of more is not measured and never stays in FP32 or bfloat16, which would take the memory that packing saves.

Those of fewer are 0.4 % of VGGT-1B, and all of the bundled network."""
SMALL_MODEL = 2**26
"""Bytes in FP32 of a model of which any weight may stay: the memory is no matter there, and starting operations is."""
SMALL_ROWS = 128
"""Tokens for which smaller layers are measured: of a few small pictures."""
SMALL_SIDE = 24
"""Rows and columns of maps for which smaller convolutions are measured."""
SMALL_CONVOLUTION = 2**14
"""A convolution of fewer weights runs in FP32, as the last of a dense head should."""
MEASURING_SECONDS = 1.0
"""For all shapes together; those that are left run in FP32."""


class Int8Backend(Backend):
    """Integer products by the kernel that `vggtkit.runtime.kernels` finds; the same numbers on any processor.

    >>> int8 = Int8Backend()
    >>> int8.runs("int3_two_level_16", "linear"), int8.runs("int4_group_32", "linear")
    (True, False)
    """

    key, title = "int8", "int8 (8-bit weights and activations per token)"
    needs = "nothing beyond torch; an x86 processor with AVX512-VNNI or AMX to save time"
    device_type = "cpu"
    kernels: tuple[Kernel, ...] = KERNELS

    def runs(self, format_key: str, layer_kind: str) -> bool:
        """Linear layers in what is INT8 per channel or floating point; convolutions in any format (bfloat16)."""
        if layer_kind != "linear":
            return layer_kind in ("conv2d", "conv_transpose2d")
        return get_format(format_key).is_float or is_int8(format_key)

    def rounds_inputs_to(self, format_key: str) -> str | None:
        """As `Backend.rounds_inputs_to`; layers that are too small to gain by it may stay."""
        return INT8_TOKEN if is_int8(format_key) else None

    def describe(self) -> str:
        """As `Backend.describe`; measures them if nothing did yet."""
        choice = self._choice(torch.device(self.device_type))
        if choice is None:
            return _fallback(self._why_none())
        return _described(choice, choice.once, self.machine())

    def machine(self) -> str:
        """What computes, in words."""
        return f"{name()} ({instructions()})"

    def prepare(self, subject: Subject, options: Options | None = None) -> Prepared:
        """Choose a runner for every layer. Without a kernel all layers run as in ``reference``, and that is said.

        Raises:
            InputError: weights of linear layers are not INT8 per channel, and ``options.convert`` is off.
        """
        options = options or Options()
        options = replace(options, executions=told_executions(subject, options))
        self._check(subject, options)
        is_here = subject.device.type == self.device_type
        elsewhere = "" if is_here else f"the model is on {subject.device.type}, not on {self.device_type}"
        choice = self._choice(subject.device) if is_here else None
        if choice is None:
            return self._as_reference(subject, elsewhere or self._why_none())
        return _Chooser(subject, options, choice).prepared(self.key, self.machine())

    def _as_reference(self, subject: Subject, reason: str) -> Prepared:
        """No layer in whole numbers."""
        fell_back = dict.fromkeys((layer.name for layer in subject.layers), reason)
        size = weight_bytes(subject, packed_weights(subject))
        execution = Execution(self.key, _fallback(reason), size, {"reference": len(fell_back)}, fell_back)
        return _Int8Prepared(subject, {}, execution)

    def _check(self, subject: Subject, options: Options) -> None:
        weights, linear = packed_weights(subject), [each.name for each in subject.layers if each.kind == "linear"]
        keys = {layer: weights[layer].format.key for layer in linear if layer in weights}
        refused = [k for k, key in keys.items() if not self.runs(key, "linear") and is_whole(options.executions.get(k))]
        if refused and not options.convert:
            raise InputError(not_run(self.key, len(refused), refused[0], keys[refused[0]]))

    def _choice(self, device: torch.device) -> KernelChoice | None:
        return None if self.missing else choose(torch.get_num_threads(), device, self.kernels)

    def _why_none(self) -> str:
        missing = self.missing
        return f"this machine lacks {missing}" if missing else "no kernel of this torch multiplies exactly here"


class _Int8Prepared(Prepared):
    """Runners by layer, put in place of forwards."""

    def __init__(self, subject: Subject, runners: Mapping[str, Runner], execution: Execution) -> None:
        self.subject, self.runners, self.execution = subject, runners, execution

    @contextmanager
    def running(self) -> Iterator[None]:
        """As `Prepared.running`; large blocks of memory are kept between layers meanwhile."""
        model = self.subject.model
        with ExitStack() as undo:
            if not self.runners:
                yield
                return
            undo.enter_context(retain_memory())
            for layer, runner in self.runners.items():
                module = model.get_submodule(layer)
                packed = module.packed
                assert isinstance(packed, PackedWeight)
                if isinstance(runner, PutBack):
                    undo.enter_context(packed.put_back())
                    continue
                undo.enter_context(packed.left_packed())
                undo.enter_context(replaced_forward(module, runner))
            for part in model.modules():
                if isinstance(part, Attention):
                    undo.enter_context(replaced_forward(part, partial(attend, part)))
                if isinstance(part, DPTFeatures):
                    undo.callback(part.register_forward_hook(_in_fp32).remove)
            yield


def _in_fp32(_module: nn.Module, _arguments: object, output: Tensor) -> Tensor:
    return output.float()


class _Chooser:
    """How each layer of a model is run."""

    def __init__(self, subject: Subject, options: Options, choice: KernelChoice) -> None:
        self.subject, self.options, self.choice = subject, options, choice
        self.stays = options.resident == "int8"
        self.kernel: Kernel = choice.once if self.stays else choice.each
        self.is_small = is_small(subject.layers)
        self.fell_back: dict[str, str] = {}
        self.converted: dict[str, float] = {}
        self.until = time.perf_counter() + MEASURING_SECONDS
        self.fastest: dict[tuple[object, ...], str] = {}
        self.flowing = _flowing(subject.model) if choice.has_bfloat16 else set()

    def prepared(self, key: str, machine: str) -> Prepared:
        """All of them, and what is to be said of it."""
        chosen = {layer.name: self._runner(layer) for layer in self.subject.layers}
        runners = {layer: runner for layer, runner in chosen.items() if runner is not None}
        ways = Counter("reference" if runner is None else runner.way for runner in chosen.values())
        others = {layer: q for layer, q in packed_weights(self.subject).items() if layer not in runners}
        size = sum(runner.weight_bytes for runner in runners.values())
        size += weight_bytes(self.subject, others, [each for each in self.subject.layers if each.name not in runners])
        said = _described(self.choice, self.kernel, machine)
        execution = Execution(key, said, size, dict(ways), self.fell_back, self.converted)
        return _Int8Prepared(self.subject, runners, execution)

    def _runner(self, layer: Layer) -> Runner | None:
        """None for one that runs as it does by itself."""
        module = self.subject.model.get_submodule(layer.name)
        packed = getattr(module, "packed", None)
        if not isinstance(packed, PackedWeight):
            self.fell_back[layer.name] = "kept in FP32"
            return None
        if not layer.is_called or layer.aliases or not has_product(module):
            self.fell_back[layer.name] = "its weight is read by other modules, or in another way, than a product"
            return PutBack(module, packed) if self._may_stay(layer) else None
        if layer.name in self.options.executions:
            return self._as_told(layer, module, packed)
        is_kept = isinstance(module, nn.Linear) and packed.format.is_float
        fast = self._fast(layer, module, packed)
        if fast is None:
            self.fell_back[layer.name] = "kept in FP16" if is_kept else "FP32 is the fastest here"
            return self._plain(module, packed, torch.float32)
        if self._may_stay(layer):
            fast = self._fastest(layer, module, packed, fast)
        if isinstance(module, nn.Linear) and not isinstance(fast, Int8Runner):
            self.fell_back[layer.name] = "kept in FP16" if is_kept else "too small to gain from INT8"
        return fast

    def _as_told(self, layer: Layer, module: nn.Module, packed: PackedWeight) -> Runner:
        """The runner of a layer whose execution a plan has decided; FP32 where it asks for what does not run here."""
        told, dtype = self.options.executions[layer.name], torch.bfloat16 if module in self.flowing else None
        stays = told == "int8_resident"
        kernel = self.choice.once if stays else self.choice.each
        if told.startswith("int8") and self._multiplies(module, packed.quantized, kernel):
            return Int8Runner(module, packed.quantized, kernel, stays=stays, dtype=dtype)
        if runs_whole(module):
            self.fell_back[layer.name] = f"the plan keeps it in {told}"
        computing = torch.bfloat16 if told == "bfloat16" and self.choice.has_bfloat16 else torch.float32
        if self._may_stay(layer):
            return self._plain(module, packed, computing)
        return FloatRunner(module, packed, computing, stays=False, dtype=dtype)

    def _may_stay(self, layer: Layer) -> bool:
        return self.is_small or stays_plain(layer)

    def _plain(self, module: nn.Module, packed: PackedWeight, computing: torch.dtype) -> Runner:
        """With a weight that stays in memory."""
        if computing == torch.float32 and module not in self.flowing:
            return PutBack(module, packed)
        dtype = computing if module in self.flowing else None
        return FloatRunner(module, packed, computing, stays=True, dtype=dtype)

    def _fast(self, layer: Layer, module: nn.Module, packed: PackedWeight) -> Runner | None:
        """The runner of a large layer; None where FP32 is the fastest, and at the end of a dense head, in any case."""
        dtype = torch.bfloat16 if module in self.flowing else None
        q = packed.quantized
        if not isinstance(module, nn.Linear) and layer.weights < SMALL_CONVOLUTION:
            return None
        if self._multiplies(module, q, self.kernel):
            return Int8Runner(module, self._whole(layer.name, q), self.kernel, stays=self.stays, dtype=dtype)
        if not self.choice.has_bfloat16:
            return None
        return FloatRunner(module, packed, torch.bfloat16, stays=self.stays, dtype=dtype)

    def _multiplies(self, module: nn.Module, q: QuantizedTensor, kernel: Kernel) -> bool:
        """Whether a product is one of whole numbers; weights of linear layers may be converted, of others not."""
        if not runs_whole(module) or not kernel.takes(math.prod(q.shape[1:]), q.shape[0]):
            return False
        return is_int8(q.format.key) or (isinstance(module, nn.Linear) and not q.format.is_float)

    def _whole(self, layer: str, q: QuantizedTensor) -> QuantizedTensor:
        if is_int8(q.format.key):
            return q
        again, self.converted[layer] = converted(q)
        return again

    def _fastest(self, layer: Layer, module: nn.Module, packed: PackedWeight, fast: Runner) -> Runner:
        """Of the runner for large layers and those with plain weights that stay; measured once a shape."""
        runners = {"fast": fast, "fp32": self._plain(module, packed, torch.float32)}
        if self.choice.has_bfloat16:
            runners["bf16"] = self._plain(module, packed, torch.bfloat16)
        key = (type(module), layer.shape, packed.format.key, module in self.flowing)
        if key not in self.fastest:
            in_time = time.perf_counter() < self.until
            with packed.put_back():
                self.fastest[key] = _fastest(runners, module, self.subject.device) if in_time else "fp32"
        return runners[self.fastest[key]]


@torch.no_grad()
def _fastest(runners: Mapping[str, Runner], module: nn.Module, device: torch.device) -> str:
    if isinstance(module, nn.Linear):
        x = torch.randn(SMALL_ROWS, module.in_features)
    else:
        assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        x = torch.randn(1, module.in_channels, SMALL_SIDE, SMALL_SIDE).contiguous(memory_format=torch.channels_last)
    jobs = {name: partial(runner, x.to(device)) for name, runner in runners.items()}
    seconds = fastest(jobs, device=device)
    return min(seconds, key=lambda name: seconds[name])


def runs_whole(module: nn.Module) -> bool:
    """Whether a module's product may be one of whole numbers.

    >>> runs_whole(nn.Linear(2, 3)), runs_whole(nn.Conv2d(2, 3, 1)), runs_whole(nn.Conv2d(2, 3, 3))
    (True, True, False)
    """
    return type(module) is nn.Linear or is_pointwise(module)


def is_small(layers: Sequence[Layer]) -> bool:
    """Whether any weight of a model may stay in FP32 or bfloat16."""
    return 4 * sum(layer.weights for layer in layers) <= SMALL_MODEL


def stays_plain(layer: Layer) -> bool:
    """Whether a layer's weight may stay in FP32 or bfloat16 in a model of any size."""
    return layer.weights <= LARGE_WEIGHTS


def _flowing(model: nn.Module) -> set[nn.Module]:
    """Modules of VGGT between which activations may stay in bfloat16."""
    parts = (part for part in model.modules() if isinstance(part, Block | DPTFeatures))
    return {module for part in parts for module in part.modules()}


def _fallback(reason: str) -> str:
    return f"falls back to the reference ({reason}): {AS_REFERENCE}"


def _described(choice: KernelChoice, kernel: Kernel, machine: str) -> str:
    floats = "bfloat16" if choice.has_bfloat16 else "FP32"
    return (
        f"INT8 weights x INT8 activations (a scale per token) by {kernel.title}, 32-bit sums; convolutions, attention "
        f"and FP16 layers in {floats}, small layers in FP32; on {machine}; {choice.said}"
    )
