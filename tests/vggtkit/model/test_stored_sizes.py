"""A config and the shapes of the tensors beside it must say the same."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vggtkit.model.config import HEADS, TINY, VGGTConfig
from vggtkit.model.loading import architecture, load_vggt, skeleton
from vggtkit.model.stored_sizes import stored_sizes

Refused = Callable[[str | Path], str]
CAMERA_DEPTH = ("camera", "depth")
UNREADABLE = {"vit_num_heads", "camera_num_heads", "dpt_layer_idx", "track_corr_levels", "track_corr_radius"} | {
    "track_stride",
    "track_iters",
    "track_num_heads",
    "heads",
}


def without_heads(state: dict[str, Tensor], *heads: str) -> dict[str, Tensor]:
    roots = tuple(f"{head}_head." for head in heads)
    return {name: value for name, value in state.items() if not name.startswith(roots)}


@pytest.mark.parametrize("name", ["tiniest", "tiny", "vggt-1b"])
def test_every_size_that_shapes_tell_is_read(name: str, tiniest_config: VGGTConfig) -> None:
    config = {"tiniest": tiniest_config, "tiny": TINY, "vggt-1b": VGGTConfig()}[name]
    sizes = stored_sizes(skeleton(config).state_dict(), HEADS)
    assert sizes == {key: value for key, value in asdict(config).items() if key not in UNREADABLE}


CHANGES = {
    "embed_dim": 64,
    "vit_depth": 2,
    "aggregator_depth": 3,
    "num_heads": 4,
    "num_register_tokens": 2,
    "patch_size": 4,
    "img_size": 64,
    "camera_trunk_depth": 2,
    "dpt_features": 16,
    "dpt_out_channels": [8, 8, 8, 16],
    "track_features": 16,
    "track_hidden_size": 32,
    "track_depth": 2,
    "track_virtual_tracks": 3,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_size_that_differs_is_named_with_both_numbers(
    plain: Path, tiniest_config: VGGTConfig, refused: Refused, name: str
) -> None:
    (plain / "config.json").write_text(json.dumps(json.loads(tiniest_config.to_json()) | {name: CHANGES[name]}))
    value = getattr(tiniest_config, name)
    stored = list(value) if isinstance(value, tuple) else value
    assert f": {name} is {stored} by the shapes of the tensors, but {CHANGES[name]} in {plain}/config.json" in refused(
        plain
    )


def test_an_empty_config_is_not_taken_for_vggt_1b(plain: Path, refused: Refused) -> None:
    (plain / "config.json").write_text("{}")
    text = refused(plain)
    assert "embed_dim is 32 by the shapes of the tensors, but 1024 as in VGGT-1B" in text
    assert f"({plain}/config.json does not state it)" in text


def test_a_config_that_is_a_list_is_refused(plain: Path, refused: Refused) -> None:
    (plain / "config.json").write_text("[]")
    assert refused(plain) == f"{plain}/config.json: expected a JSON object, found list"


def test_heads_without_tensors_are_absent(
    net: Path, tiniest_state: dict[str, Tensor], tiniest_config: VGGTConfig
) -> None:
    save_file(without_heads(tiniest_state, "point", "track"), net / "model.safetensors")
    said: list[str] = []
    model = load_vggt(net, say=said.append)
    assert model.config == architecture(net).config == replace(tiniest_config, heads=CAMERA_DEPTH)
    assert said == [f"{net}/model.safetensors: no tensors of point, track; the network has only camera, depth"]
    outputs = model(torch.rand(1, 3, 32, 32), torch.zeros(1, 2))
    assert sorted(outputs) == ["depth", "depth_conf", "images", "pose_enc", "pose_enc_list"]


def test_a_head_of_which_one_tensor_is_missing_is_not_absent(
    net: Path, tiniest_state: dict[str, Tensor], refused: Refused
) -> None:
    save_file({k: v for k, v in tiniest_state.items() if k != "point_head.norm.bias"}, net / "model.safetensors")
    assert "1 tensors are missing, the first is point_head.norm.bias" in refused(net)


@pytest.mark.parametrize("spelling", ["heads", "enable"])
def test_heads_that_the_config_leaves_out_are_left_out_and_said(
    plain: Path, tiniest_config: VGGTConfig, spelling: str
) -> None:
    stated = {"heads": list(CAMERA_DEPTH)} if spelling == "heads" else {"enable_point": False, "enable_track": False}
    (plain / "config.json").write_text(json.dumps(json.loads(tiniest_config.to_json()) | stated))
    said: list[str] = []
    assert load_vggt(plain, say=said.append).config.heads == architecture(plain).config.heads == CAMERA_DEPTH
    assert len(said) == 1
    assert "tensors of point, track are left out" in said[0]


@pytest.mark.parametrize("stated", [{"heads": ["camera", "track"]}, {"enable_track": True, "enable_point": False}])
def test_a_head_that_the_config_names_must_have_tensors(
    net: Path, tiniest_config: VGGTConfig, tiniest_state: dict[str, Tensor], refused: Refused, stated: dict[str, object]
) -> None:
    save_file(without_heads(tiniest_state, "track"), net / "model.safetensors")
    (net / "config.json").write_text(json.dumps(json.loads(tiniest_config.to_json()) | stated))
    assert f"no tensors of a track head, which {net}/config.json names, only of camera, depth, point" in refused(net)


class TestPublishedConfig:
    """The constructor's arguments of the published code: img_size, patch_size, embed_dim, enable_..."""

    TEXT = json.dumps(
        {"img_size": 518, "patch_size": 14, "embed_dim": 1024, "enable_camera": True, "enable_depth": True}
        | {"enable_point": False, "enable_track": False}
    )

    def test_gives_the_sizes_of_vggt_1b_and_its_heads(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(self.TEXT)
        model = architecture(tmp_path)
        assert model.config == VGGTConfig(heads=CAMERA_DEPTH)
        assert sum(parameter.numel() for parameter in model.parameters()) == 909_112_320 + 216_174_610 + 32_654_562

    def test_of_another_network_is_refused(self, plain: Path, refused: Refused) -> None:
        """It does not state the numbers of heads, so those of VGGT-1B would apply, and the results would be wrong."""
        text = '{"img_size": 32, "patch_size": 8, "embed_dim": 32, "enable_point": true}'
        (plain / "config.json").write_text(text)
        assert "embed_dim 32 is no multiple of 4 times num_heads 16" in refused(plain)
        (plain / "config.json").write_text(text.replace('"embed_dim": 32, ', ""))
        assert "embed_dim is 32 by the shapes of the tensors, but 1024 as in VGGT-1B" in refused(plain)


def test_planning_reads_the_header_alone(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vggtkit.model.checkpoint_formats.load_file", None)
    assert all(parameter.is_meta for parameter in architecture(plain).parameters())
    assert load_file(plain / "model.safetensors")  # there it is


def test_random_weights_ask_the_config_alone(net: Path, tiniest_config: VGGTConfig) -> None:
    (net / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    assert load_vggt(net, weights="random").config == tiniest_config
