"""Tables fit the screen, lose nothing, and say what the profile says."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis.report.document import Table
from analysis.report.profile_tables import (
    MOST_BLOCKS,
    layer_table,
    profile_summary,
    profile_tables,
    scheme_table,
    short_name,
)
from sensitivity import Profile
from tests.analysis.example import drawn
from vggtkit.model import VGGT, VGGTConfig
from vggtkit.model.config import TINY
from vggtkit.quant import find_layers

WIDTH = 100


def cells(table: Table, first: str) -> tuple[str, ...]:
    return next(row for row in table.texts if row[0] == first)


@pytest.fixture(scope="module")
def vggt_1b_profile(small_profile: Profile) -> Profile:
    """The layers of the full network with made-up scores: long names and large numbers."""
    with torch.device("meta"):
        layers = tuple(find_layers(VGGT(VGGTConfig())))
    rng = np.random.default_rng(0)
    kinds = {
        kind: {metric: 100 * rng.random((len(layers), 7)) for metric in metrics}
        for kind, metrics in small_profile.scores.items()
    }
    damage = {name: 1e-9 * rng.random((len(layers), 10)) for name in small_profile.damage}
    sizes = np.array([[layer.weights] * 10 for layer in layers])
    inputs = {
        name: np.resize(values, (len(layers), *values.shape[1:]))
        for name, values in small_profile.input_changes.items()
    }
    return replace(small_profile, layers=layers, size_bytes=sizes, scores=kinds, damage=damage, input_changes=inputs)


def test_tables_fit_100_columns_without_ellipsis(small_profile: Profile, vggt_1b_profile: Profile) -> None:
    for profile in (small_profile, vggt_1b_profile):
        for table in profile_tables(profile):
            text = drawn(table, WIDTH)
            assert max(map(len, text.splitlines())) <= WIDTH
            assert all(cell in text for row in table.texts for cell in row)  # nothing wrapped inside a cell either


def test_the_table_by_block_is_left_out_where_it_would_be_long(
    small_profile: Profile, vggt_1b_profile: Profile
) -> None:
    small, large = ([table.title for table in profile_tables(profile)] for profile in (small_profile, vggt_1b_profile))
    assert any("by block" in title for title in small)
    assert not any("by block" in title for title in large)
    assert len({layer.block for layer in small_profile.layers}) <= MOST_BLOCKS
    assert any("by role" in title for title in large)


@pytest.mark.parametrize("config", [TINY, VGGTConfig()], ids=["tiny", "vggt-1b"])
def test_short_names_tell_all_layers_apart(config: VGGTConfig) -> None:
    with torch.device("meta"):
        names = [short_name(layer) for layer in find_layers(VGGT(config))]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 36
    assert "frame.3 attn.qkv" in names
    assert "depth_head.refinenet1.res2.conv1" in names


def test_schemes_show_size_measured_and_predicted_damage(small_profile: Profile) -> None:
    column = small_profile.column("int8_per_channel_asym")
    row = cells(scheme_table(small_profile), "INT8 channel asym")
    assert row[1] == f"{small_profile.size_bytes[:, column].sum() / 1e6:.2f}"
    assert float(row[2]) == pytest.approx(small_profile.total_uniform[3], rel=0.01)
    assert float(row[3]) == pytest.approx(small_profile.total_damage[:, column].sum(), rel=0.01)
    accumulated = small_profile.scores["accumulated"]
    means = [np.nanmean(accumulated[metric][:, 3]) for metric in ("mae", "cosine", "ssim", "nmse")]
    np.testing.assert_allclose([float(cell) for cell in row[4:]], means, atol=6e-5)


def test_shares_of_the_roles_sum_to_everything(small_profile: Profile) -> None:
    table = profile_tables(small_profile)[1]
    shares = [float(row[4].removesuffix("%")) for row in table.texts]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert int(cells(table, "track head")[1]) == sum(layer.role == "track_head" for layer in small_profile.layers)


def test_layers_are_ordered_by_damage_at_the_outputs(small_profile: Profile) -> None:
    *_, most, least, inputs = profile_tables(small_profile, top=3)
    damage = small_profile.total_damage[:, small_profile.column("int4_group_128")]
    order = np.argsort(-damage)
    for table, rows in ((most, order[:3]), (least, order[::-1][:3])):
        assert [row[0] for row in table.texts] == [short_name(small_profile.layers[row]) for row in rows]
    assert most.title == "3 most sensitive layers"
    rounded = small_profile.total_activation_damage("int8_token")
    rows = np.argsort(-np.nan_to_num(rounded, nan=-1))[:3]
    assert [row[0] for row in inputs.texts][:3] == [short_name(small_profile.layers[row]) for row in rows]
    assert inputs.texts[-1][2] == f"{np.nansum(rounded):.1e}"


def test_a_layer_that_is_no_picture_has_no_ssim(small_profile: Profile) -> None:
    names = [layer.name for layer in small_profile.layers]
    rows = [names.index("camera_head.embed_pose"), names.index("aggregator.frame_blocks.0.mlp.fc1")]
    table = layer_table(small_profile, rows, "two")
    camera, trunk = (row[-1] for row in table.texts)
    assert camera == "n/a"
    assert 0 < float(trunk) < 1


def test_summary_is_json_of_the_same_numbers(small_profile: Profile) -> None:
    values = json.loads(json.dumps(profile_summary(small_profile, top=3)))
    column = small_profile.column("int4_group_128")
    assert values["layers"] == len(small_profile.layers)
    assert values["schemes"]["int4_group_128"]["layer_bytes"] == small_profile.size_bytes[:, column].sum()
    assert sum(values["roles"].values()) == pytest.approx(small_profile.total_damage[:, column].sum())
    assert values["most_sensitive"][0]["damage"] == small_profile.total_damage[:, column].max()
    assert len(values["most_sensitive"]) == 3
