"""Any torch module as a subject."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from vggtkit.core.errors import InputError
from vggtkit.model.outputs import OUTPUTS
from vggtkit.quant import layer_kind
from vggtkit.scenes import Scene
from vggtkit.subject.base import Call, Subject
from vggtkit.subject.factory import describe_error, raised_by_us
from vggtkit.subject.graph import traced_graph
from vggtkit.subject.outputs import flatten_outputs
from vggtkit.subject.state import unchanged_state

DEFAULT_SIZES = {"img_size": 518, "patch_size": 14}
SIZE_NAMES = {"img_size": ("img_size", "image_size"), "patch_size": ("patch_size",)}
"""What VGGT's forks, transformers, timm and torchvision call them."""
SIZE_PLACES = ("config", "patch_embed")
"""Where they keep them, beside the model itself."""


class ModuleSubject(Subject):
    """A module of which nothing is known but what it shows.

    It is given a scene's own ``inputs`` where it has some. Else it is given pictures: as a batch of one with query
    points if it takes query points, as VGGT's forks do, and ``[S, 3, H, W]`` otherwise. A model that returns outputs by
    VGGT's names is compared on these alone.
    """

    def arguments(self, scene: Scene, device: torch.device) -> Call:
        """As `Subject.arguments`; every tensor is a copy, since a model may work in place on its input."""
        if scene.inputs is not None:
            inputs: Any = tree_map(partial(_copied, device=device), scene.inputs)
            return Call((), inputs) if isinstance(inputs, Mapping) else Call(tuple(inputs), {})
        images, query = scene.images.to(device, copy=True), scene.query_points.to(device, copy=True)
        return Call((images[None], query[None]) if self._takes_query_points() else (images,), {})

    def call(self, call: Call) -> object:
        """As `Subject.call`, uncompiled and from the same state every time.

        What the model's own code raises is told as the model's.

        Raises:
            InputError: the model's own code failed.
        """
        lower = self.precision != torch.float32
        with self.as_written(), torch.autocast(self.device.type, self.precision, enabled=lower, cache_enabled=False):
            try:
                return super().call(call)
            except (InputError, torch.OutOfMemoryError, MemoryError):
                raise
            except Exception as error:  # the user's own code may raise anything
                if raised_by_us(error):
                    raise
                name = self.source or type(self.model).__name__
                raise InputError(f"the model ({name}) fails on its input with {describe_error(error)}") from error

    @contextmanager
    def as_written(self) -> Iterator[None]:
        """As `Subject.as_written`."""
        with _plainly(), unchanged_state(self.model):
            yield

    def outputs(self, returned: object) -> dict[str, Tensor]:
        """As `Subject.outputs`: by path, see `flatten_outputs`."""
        flattened = flatten_outputs(returned)
        published = {name: flattened.values[name] for name in OUTPUTS if name in flattened.values}
        beside = {name: "not one of VGGT's outputs" for name in flattened.values if published and name not in published}
        self.left_out = flattened.left_out | beside
        return published or flattened.values

    def figures(self, outputs: Mapping[str, Tensor], scene: Scene, **options: Any) -> dict[str, float]:  # noqa: ANN401
        """As `Subject.figures`; none where an output is only called as one of VGGT's."""
        try:
            return super().figures(outputs, scene, **options)
        except (ValueError, RuntimeError):
            return {}

    def with_heads(self, heads: Sequence[str]) -> Subject:
        """Itself; it has no heads that can be left out.

        Raises:
            InputError: heads are named.
        """
        if heads:
            raise InputError(f"{self.source or type(self.model).__name__} has no heads that can be chosen")
        return self

    def segments(self) -> dict[str, nn.Module]:
        """Members of lists of alike modules, the outermost ones."""
        return alike_modules(self.model)

    @property
    def picture_sizes(self) -> tuple[int, int]:
        """As `Subject.picture_sizes`, as the model or its config says; VGGT's, in whole patches, where neither does."""
        img_size, patch_size = (_size_of(self.model, SIZE_NAMES[name], usual) for name, usual in DEFAULT_SIZES.items())
        return max(1, img_size // patch_size) * patch_size, patch_size

    def graph(self, scene: Scene | None = None) -> nx.DiGraph:
        """As `Subject.graph`, from a pass over the scene."""
        if scene is None:
            raise InputError("the graph of this model is seen by running it: a scene is needed")
        return traced_graph(self.model, self.layers, lambda: self.run(scene, check=False).values())

    def description(self) -> str:
        """Nothing: only its source can make it again."""
        return ""

    def _takes_query_points(self) -> bool:
        parameters = inspect.signature(self.model.forward).parameters.values()
        needed = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
        return len(needed) > 1 or any(p.name == "query_points" for p in parameters)


def alike_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Members of lists of alike modules that hold layers, the outermost lists alone.

    >>> list(alike_modules(nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, batch_first=True), 2)))
    ['layers.0', 'layers.1']
    """
    members: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        children = list(module.children()) if isinstance(module, nn.ModuleList | nn.Sequential) else []
        inside = any(name == other or name.startswith(f"{other}.") for other in members)
        if len(children) > 1 and not inside and len({type(member) for member in children}) == 1:
            members |= {
                f"{name}.{number}" if name else number: member
                for number, member in module.named_children()
                if layer_kind(member) is None and any(layer_kind(part) for part in member.modules())
            }
    return members


def _size_of(model: nn.Module, names: Sequence[str], usual: int) -> int:
    """A positive number, or two that are equal, that a model or a part of it has under one of the names."""
    places = (model, *(getattr(model, place, None) for place in SIZE_PLACES))
    sizes = (_side(getattr(place, name, None)) for place in places for name in names)
    return next((size for size in sizes if size > 0), usual)


def _side(value: object) -> int:
    """A whole number, or the one of which there are several; else 0."""
    sides = value if isinstance(value, tuple | list) else (value,)
    is_square = bool(sides) and all(isinstance(side, int) and side == sides[0] for side in sides)
    return int(sides[0]) if is_square else 0


def _copied(value: object, device: torch.device) -> object:
    return value.to(device, copy=True) if isinstance(value, Tensor) else value


@contextmanager
def _plainly() -> Iterator[None]:
    """Parts that are compiled run as they were written, and torch's attention by its own layers, so that hooks see."""
    with ExitStack() as undo:
        set_stance: Callable[[str], Any] | None = getattr(torch.compiler, "set_stance", None)
        if set_stance is not None:
            undo.enter_context(set_stance("force_eager"))
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        undo.callback(torch.backends.mha.set_fastpath_enabled, before)
        yield
