"""Roles and blocks of VGGT and of other networks, and a user's own table before them."""

from pathlib import Path

import pytest
from torch import nn

from vggtkit.core.errors import InputError
from vggtkit.quant import NameTable, find_layers, read_roles

NAMES = {
    "aggregator.patch_embed.blocks.11.attn.qkv": ("attention", "vit.11"),
    "aggregator.patch_embed.patch_embed.proj": ("patch_embed", "patch_embed"),
    "aggregator.global_blocks.0.mlp.fc2": ("mlp", "global.0"),
    "camera_head.trunk.0.attn.proj": ("camera_head", "camera_head"),
    "track_head.tracker.updateformer.time_blocks.3.mlp.fc1": ("track_head", "track_head"),
    "layers.2.self_attn.out_proj": ("attention", "layers.2"),
    "layers.2.linear1": ("mlp", "layers.2"),
    "pretrained.blocks.7.attn.qkv": ("attention", "blocks.7"),
    "depth_head.scratch.output_conv1": ("depth_head", "depth_head"),
    "backbone.encoder.layer.3.attention.attention.query": ("attention", "layer.3"),
    "decoder.conv_in": ("other", "decoder"),
    "classifier": ("head", "other"),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_vggt_and_of_vision_transformers(name: str) -> None:
    assert (NameTable().role(name), NameTable().block(name)) == NAMES[name]


def test_a_users_patterns_come_first(tmp_path: Path) -> None:
    path = tmp_path / "roles.toml"
    path.write_text('[roles]\n"^0$" = "entrance"\n[blocks]\n"^(\\\\d)$" = "step.\\\\1"\n')
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert [(layer.role, layer.block) for layer in find_layers(model, read_roles(path))] == [
        ("entrance", "step.0"),
        ("other", "step.1"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("roles = [", "TOML"),
        ('[parts]\n"a" = "b"', "'parts'"),
        ("roles = 3", "table of patterns"),
        ('[roles]\n"a" = 3', "not 3"),
        ('[roles]\n"(" = "b"', "no regular expression"),
        ('[blocks]\n"a(.)" = "\\\\2"', "group"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "roles.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_roles(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_roles(tmp_path / "absent.toml")
