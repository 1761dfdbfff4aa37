"""The graph of a model, from running it."""

from dataclasses import replace

import networkx as nx
import pytest
import torch
from torch import nn

from vggtkit.model import VGGT, VGGTConfig
from vggtkit.quant import find_layers
from vggtkit.subject.graph import INPUT, model_graph, same_input, topology, traced_graph


class Fork(nn.Module):
    """Two layers read one tensor, a third their sum and the first input: the answer is known."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.q, self.k, self.out = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, images: torch.Tensor, _points: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.a(images).relu()
        return {"y": self.out(self.q(x) + self.k(x.view(-1, 4)).view(x.shape) + images)}


def test_who_feeds_whom_and_who_shares_is_seen_from_a_run() -> None:
    model, images = Fork(), torch.rand(1, 2, 4, requires_grad=True)
    layers = find_layers(model)
    graph = traced_graph(model, layers, lambda: model(images, torch.zeros(1)).values())
    assert set(graph.edges) == {(INPUT, "a"), ("a", "q"), ("a", "k"), ("q", "out"), ("k", "out")}
    assert same_input(graph) == []  # k reads another shape of it
    model.forward = lambda images, _: {"y": model.q(images) + model.k(images)}
    shared = traced_graph(model, layers, lambda: model(images * 2, torch.zeros(1)).values())
    assert same_input(shared) == [("q", "k")]


def test_the_narrow_network_has_the_graph_of_the_real_one(small_model: VGGT) -> None:
    real, narrow = model_graph(small_model), topology(small_model.config)
    assert set(real.edges) == set(narrow.edges)
    assert same_input(real) == same_input(narrow)
    assert not any(parameter.grad is not None for parameter in small_model.parameters())


def test_vggt_1b_is_one_piece_and_flows_from_the_pictures_to_the_heads() -> None:
    config = VGGTConfig()
    graph = topology(config)
    assert nx.is_weakly_connected(graph)
    assert list(graph.predecessors("aggregator.patch_embed.patch_embed.proj")) == [INPUT]
    assert set(graph.successors("aggregator.global_blocks.23.mlp.fc1")) == {"aggregator.global_blocks.23.mlp.fc2"}
    assert nx.has_path(graph, "aggregator.frame_blocks.0.attn.qkv", "camera_head.pose_branch.fc2")
    assert not nx.has_path(graph, "depth_head.projects.0", "camera_head.pose_branch.fc2")
    assert ("track_head.tracker.vis_predictor.0", "track_head.tracker.conf_predictor.0") in same_input(graph)


@pytest.mark.parametrize("heads", [("camera",), ("depth", "track")])
def test_heads_left_out_are_not_in_the_graph(small_config: VGGTConfig, heads: tuple[str, ...]) -> None:
    roles = set(nx.get_node_attributes(topology(replace(small_config, heads=heads)), "role").values())
    assert {role.removesuffix("_head") for role in roles if role.endswith("_head")} == set(heads)
