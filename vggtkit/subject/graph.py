"""The model as a graph, from a real execution: which layers feed which, and which read the same tensor.

Every layer's output carries a node of autograd's graph. From the nodes behind a layer's inputs the graph is walked back
until it meets the outputs of other layers: those feed it, directly or through norms, attention and additions. Layers
whose input is one and the same tensor share it.

The topology does not depend on widths, so a network of any size is run as a narrow one of the same depth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from vggtkit.model import VGGT, VGGTConfig
from vggtkit.quant import Layer, find_layers

INPUT = "images"
_LAYOUT = ("View", "UnsafeView", "ReshapeAlias", "Alias", "Clone", "Transpose", "Permute", "Squeeze", "Unsqueeze")


def model_graph(model: VGGT) -> nx.DiGraph:
    """Run a model once on two small pictures and see who feeds whom.

    Args:
        model: with weights, not packed; unchanged.

    Returns:
        A directed graph whose nodes are the names of the quantisable layers (attributes ``kind``, ``role``, ``block``,
        ``weights``) and ``"images"``; an edge where an output reaches an input without passing another layer. The graph
        attribute ``same_input`` lists the layers that read the same tensor.
    """
    config = model.config
    side = config.patch_size * max(2, -(-config.track_stride * 2**config.track_corr_levels // config.patch_size))

    def run() -> Iterable[object]:
        images = torch.rand(1, 2, 3, side, side, generator=torch.Generator().manual_seed(0)).requires_grad_()
        outputs: dict[str, object] = model(images, torch.tensor([[[1.0, 1.0], [side / 2, side / 2]]]))
        return outputs.values()

    return traced_graph(model, find_layers(model), run)


def traced_graph(model: nn.Module, layers: Sequence[Layer], run: Callable[[], Iterable[object]]) -> nx.DiGraph:
    """Run a model once and see who feeds whom.

    Args:
        model: with weights, not packed; unchanged.
        layers: its layers; those that are not called themselves have no edges.
        run: runs the model and returns what it put out.

    Returns:
        As `model_graph`.
    """
    recorder = _Recorder()
    handles = [hook for layer in layers for hook in recorder.hooks(layer.name, model.get_submodule(layer.name))]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(parameter.is_floating_point())
        with torch.enable_grad():
            recorder.alive += [value for value in run() if isinstance(value, Tensor)]
    finally:
        for handle in handles:
            handle.remove()
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
    return _graph(layers, recorder)


def topology(config: VGGTConfig) -> nx.DiGraph:
    """The graph of a network of this depth, from running a narrow one; ``weights`` are the narrow network's.

    >>> from vggtkit.model.config import TINY
    >>> graph = topology(TINY)
    >>> list(graph.successors("aggregator.frame_blocks.0.mlp.fc1"))
    ['aggregator.frame_blocks.0.mlp.fc2']
    """
    narrow = replace(
        config, patch_size=8, img_size=16, embed_dim=32, num_heads=2, vit_num_heads=2, camera_num_heads=2,
        dpt_features=8, dpt_out_channels=(8, 8, 8, 8), track_features=8, track_hidden_size=16, track_num_heads=2,
        track_virtual_tracks=2, track_corr_levels=2, track_corr_radius=1,
    )  # fmt: skip
    torch_state = torch.random.get_rng_state()
    try:
        torch.manual_seed(0)
        model = VGGT(narrow).eval()
    finally:
        torch.random.set_rng_state(torch_state)
    return model_graph(model)


def same_input(graph: nx.DiGraph) -> list[tuple[str, ...]]:
    """Names of the layers that read the same tensor, by tensor."""
    groups: list[tuple[str, ...]] = graph.graph["same_input"]
    return groups


class _Recorder:
    """Nodes of autograd's graph behind the inputs and outputs of layers, over all calls."""

    def __init__(self) -> None:
        self.inputs: dict[str, list[Any]] = defaultdict(list)
        self.made_by: dict[Any, str] = {}
        self.readers: dict[Any, list[str]] = defaultdict(list)
        self.alive: list[Tensor] = []  # an address is only a name as long as its tensor lives

    def hooks(self, name: str, module: nn.Module) -> Iterable[Any]:
        def before(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
            for argument in {id(a): a for a in arguments if isinstance(a, Tensor)}.values():
                self.alive.append(argument)
                self.inputs[name].append(argument.grad_fn)
                same = _origin(argument), argument.shape
                if name not in self.readers[same]:
                    self.readers[same].append(name)

        def after(_module: nn.Module, _arguments: object, output: object) -> None:
            for value in tree_leaves(output):
                if isinstance(value, Tensor) and value.grad_fn is not None:
                    self.made_by[value.grad_fn] = name

        return module.register_forward_pre_hook(before), module.register_forward_hook(after)

    def sources(self, start: Any) -> set[str]:  # noqa: ANN401 - autograd's nodes have no public type
        """The layers whose outputs are met first on the way back; the pictures where there is none."""
        names, seen, stack = set(), set(), [start]
        while stack:
            node = stack.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if node in self.made_by:
                names.add(self.made_by[node])
            else:
                stack += [parent for parent, _ in node.next_functions]
        return names


def _origin(tensor: Tensor) -> Any:  # noqa: ANN401 - autograd's nodes have no public type
    """The node that made a tensor's values, wherever they were only laid out anew since; its id for a leaf."""
    node = tensor.grad_fn
    while node is not None and type(node).__name__.startswith(_LAYOUT):
        node = node.next_functions[0][0]
    return id(tensor) if node is None else node


def _graph(layers: Iterable[Layer], recorder: _Recorder) -> nx.DiGraph:
    graph = nx.DiGraph(
        same_input=[*dict.fromkeys(tuple(names) for names in recorder.readers.values() if len(names) > 1)]
    )
    graph.add_node(INPUT, kind="input", role="input", block="input", weights=0)
    for layer in layers:
        graph.add_node(layer.name, kind=layer.kind, role=layer.role, block=layer.block, weights=layer.weights)
    for name, nodes in recorder.inputs.items():
        sources = set().union(*(recorder.sources(node) for node in nodes))
        graph.add_edges_from((source, name) for source in sorted(sources) or [INPUT])
    return graph
