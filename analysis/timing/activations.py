"""The most memory that a pass holds beside the weights, from shapes alone.

The model runs on the meta device, where nothing is computed; every tensor that an operation makes is counted from then
until nobody holds it, as it would be on the processor. Attention is taken as fused, which keeps no scores;
convolutions are taken to copy their input and output into an order of their own meanwhile, as oneDNN does.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from sensitivity.survey import run_on_meta
from vggtkit.core.memory import bytes_of
from vggtkit.scenes import Scene
from vggtkit.subject import Subject


def peak_activation_bytes(subject: Subject, scene: Scene) -> int | None:
    """Bytes of all tensors at the fullest moment of a pass; None for a model that cannot run on the meta device.

    Args:
        subject: with or without values.
        scene: pictures; only their number and size matter.

    >>> from vggtkit.subject import ModuleSubject
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)).eval()
    >>> scene = Scene("one", torch.zeros(1, 3, 4, 4), torch.zeros(0, 2))
    >>> peak_activation_bytes(ModuleSubject(model), scene) == 4 * 12 * (4 + 8 + 8)  # input, hidden, its copy
    True
    """
    costs = shape_costs(subject, scene)
    return costs and costs.peak_bytes


class ShapeCosts(NamedTuple):
    """What follows from the shapes of a pass.

    Attributes:
        peak_bytes: of all tensors at its fullest moment.
        operations: multiplications and additions of products, convolutions and attention, by torch's own formulas.
    """

    peak_bytes: int
    operations: int


def shape_costs(subject: Subject, scene: Scene) -> ShapeCosts | None:
    """Memory and operations of a pass; None for a model that cannot run on the meta device.

    Args:
        subject: with or without values.
        scene: pictures; only their number and size matter.

    >>> from vggtkit.subject import ModuleSubject
    >>> model = nn.Linear(4, 8).eval()
    >>> shape_costs(ModuleSubject(model), Scene("one", torch.zeros(1, 3, 4, 4), torch.zeros(0, 2))).operations
    768
    """
    with torch.no_grad(), _Fused() as attention, _Held() as held:
        handle = subject.model.register_forward_pre_hook(held.begin, with_kwargs=True)
        try:
            if not run_on_meta(subject, scene):
                return None
        finally:
            handle.remove()
    return ShapeCosts(held.peak, held.operations + attention.operations)


def held_bytes(subject: Subject, scene: Scene) -> int:
    """Bytes of all tensors that a pass makes, at its fullest moment, counted while it runs.

    What was there before does not count: weights, packed or not, and the pictures. What kernels take for themselves
    without telling torch is not seen.

    >>> from vggtkit.subject import ModuleSubject
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 1)).eval()
    >>> held_bytes(ModuleSubject(model), Scene("one", torch.zeros(2, 3, 4, 4), torch.zeros(0, 2))) == 4 * 2 * (8 + 8)
    True
    """
    call = subject.arguments(scene, subject.device)
    with torch.no_grad(), _Held(but_what_was_there=True) as held:
        subject.call(call)
    return int(held.peak)


class _Held(TorchDispatchMode):
    """Counts the bytes of what operations make, from then until it is freed."""

    def __init__(self, *, but_what_was_there: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive: dict[int, weakref.ref[Any]] = {}
        self.now = self.peak = self.operations = 0
        self.counting = self.but_what_was_there = but_what_was_there
        self.weights: set[int] = set()

    def begin(self, module: nn.Module, arguments: object, keywords: object) -> None:
        """Hook: from here on it counts, the input included, but not weights, of which views are made all the time."""
        self.counting = True
        self.weights = {value.untyped_storage()._cdata for value in (*module.parameters(), *module.buffers())}
        for value in _tensors(tree_leaves((arguments, keywords))):
            self._count(value)

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401
        """Do it, and count what it takes and what comes out."""
        if self.but_what_was_there:  # what no operation has made goes into one before it can come out as a view
            for value in _tensors((args, kwargs)):
                key = _place(value)
                if key is not None and key not in self.alive:
                    self.weights.add(key)
        result = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self.operations += formula(*args, **(kwargs or {}), out_val=result)
        if self.counting:
            for value in _tensors(result):
                self._count(value)
            if func is torch.ops.aten.convolution.default:
                self.peak = max(self.peak, self.now + bytes_of(args[0]) + bytes_of(result))
        return result

    def _count(self, value: Tensor) -> None:
        storage = value.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.alive or key in self.weights or not size:
            return

        def freed(_: object) -> None:
            if self.alive.pop(key, None) is not None:
                self.now -= size

        self.alive[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)


def _tensors(value: object) -> Iterator[Tensor]:
    """Those in what operations take and return, lists and dictionaries at most: `tree_leaves`, but faster."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))


def _place(value: Tensor) -> int | None:
    """Of a tensor's storage; None for one without memory."""
    try:
        return int(value.untyped_storage()._cdata)
    except NotImplementedError:
        return None


class _Fused(TorchFunctionMode):
    """Attention that keeps no scores; its products are counted."""

    operations = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401
        """Every other function is what it is."""
        if func is F.scaled_dot_product_attention:
            query, key, value = args[:3]
            scores = query[..., 0].numel() * key.shape[-2]
            self.operations += 2 * scores * (query.shape[-1] + value.shape[-1])
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return func(*args, **(kwargs or {}))
