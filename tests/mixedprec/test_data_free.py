"""Planning without a profile: exact bytes, heads left out, what a size buys."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from analysis.report.plan_tables import alternatives_table
from mixedprec import apply_plan, data_free, load_quantized, parse_request, planned, save_plan, save_quantized
from mixedprec.alternatives import alternatives_values, other_sizes
from mixedprec.data_free import SAMPLED, SHAPES_ALONE
from mixedprec.plan import ANY_WEIGHTS, load_plan
from vggtkit.core.errors import InputError
from vggtkit.model import architecture, load_vggt, skeleton
from vggtkit.quant import candidates, find_layers, quantize_layer
from vggtkit.subject import bare_subject, subject_of

pytestmark = pytest.mark.usefixtures("spoken_in_options")

CANDIDATES = candidates()

BUDGET = 600_000_000
FEW = ("int8_per_channel_sym", "int4_group_32", "int3_two_level_16", "fp16")


@pytest.fixture(scope="module")
def vggt_1b() -> tuple:
    subject = bare_subject("vggt-1b")
    return subject.model, data_free("vggt-1b", subject, candidates=CANDIDATES)


def test_600_mb_holds_the_whole_of_vggt_1b(vggt_1b: tuple) -> None:
    model, evidence = vggt_1b
    found = planned(evidence, skeleton(model.config), parse_request("600MB"))
    assert BUDGET - 100_000 < found.plan.size_bytes <= BUDGET
    assert found.plan.optimal
    assert found.plan.heads == ("camera", "depth", "point", "track")
    assert found.plan.model_fingerprint == ANY_WEIGHTS
    assert found.widened is not None
    assert found.widened > BUDGET
    assert set(found.plan.formats) == {layer.name for layer in find_layers(model)}


def test_leaving_heads_out_leaves_more_for_int8(vggt_1b: tuple) -> None:
    model, evidence = vggt_1b
    rows = other_sizes(evidence, subject_of(model), parse_request("600MB"))
    assert [(row.heads, row.budget) for row in rows[:2]] == [
        (model.config.heads, "600MB"),
        (model.config.heads, "600MiB"),
    ]
    by_heads = {row.heads: row for row in rows if row.budget == "600MB"}
    left = [by_heads[heads].left_for_int8 for heads in (
        ("camera", "depth", "point", "track"), ("camera", "depth", "track"), ("camera", "depth", "point"),
        ("camera", "depth"),
    )]  # fmt: skip
    assert left == sorted(left)
    assert left[0] < 0 < left[-1]
    assert all(row.planned is not None and row.planned.plan.size_bytes <= row.budget_bytes for row in rows)
    assert rows[1].budget_bytes == 600 * 2**20
    assert len(alternatives_table(rows, model.config.heads).rows) == len(rows) == len(alternatives_values(rows))
    assert model.config.heads == ("camera", "depth", "point", "track")


def test_the_guess_follows_the_weights_where_they_are_at_hand(model_folder: Path) -> None:
    sampled = data_free(str(model_folder), candidates=FEW)
    assert sampled.score == SAMPLED
    model = load_vggt(model_folder)
    row = next(i for i, layer in enumerate(sampled.layers) if layer.name.endswith("mlp.fc1"))
    error = sampled.total_damage[row]
    assert error[FEW.index("int8_per_channel_sym")] < error[FEW.index("int4_group_32")]
    for key in FEW:
        module = model.get_submodule(sampled.layers[row].name)
        assert sampled.size_bytes[row, FEW.index(key)] == quantize_layer(module, key).nbytes
    (model_folder / "bare").mkdir(exist_ok=True)
    (model_folder / "bare" / "config.json").write_text((model_folder / "config.json").read_text())
    bare = data_free(str(model_folder / "bare"), candidates=FEW)
    assert bare.score == SHAPES_ALONE
    np.testing.assert_array_equal(bare.size_bytes, sampled.size_bytes)
    assert data_free(str(model_folder), candidates=FEW).total_damage.tolist() == sampled.total_damage.tolist()


def test_the_guess_is_the_same_whatever_file_the_weights_are_in(model_folder: Path, tmp_path: Path) -> None:
    state = load_file(model_folder / "model.safetensors")
    (tmp_path / "config.json").write_text((model_folder / "config.json").read_text())
    torch.save({"model": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "checkpoint.pt")
    save_file({f"model.{name}": value for name, value in state.items()}, tmp_path / "other.safetensors")
    expected = data_free(str(model_folder), candidates=FEW)
    for name in ("checkpoint.pt", "other.safetensors"):
        evidence = data_free(str(tmp_path / name), candidates=FEW)
        assert evidence.score == SAMPLED
        np.testing.assert_array_equal(evidence.total_damage, expected.total_damage)


@pytest.mark.parametrize("heads", [("camera",), ("camera", "depth"), ("point", "track")], ids="+".join)
def test_a_file_without_heads_is_as_planned_and_runs_without_them(
    model_folder: Path, tmp_path: Path, heads: tuple[str, ...]
) -> None:
    source = str(model_folder)
    found = planned(
        data_free(source, candidates=FEW), architecture(source), parse_request("20%", heads=heads, formats="all")
    )
    save_plan(found.plan, tmp_path / "plan.json")
    plan = load_plan(tmp_path / "plan.json")
    assert plan == found.plan
    model = load_vggt(source).with_heads(heads)
    size = save_quantized(model, plan.formats, tmp_path / "m.safetensors", keep=plan.keep)
    assert size == plan.size_bytes == (tmp_path / "m.safetensors").stat().st_size <= plan.budget_bytes
    loaded = load_quantized(tmp_path / "m.safetensors")
    assert loaded.config.heads == heads
    simulated = apply_plan(load_vggt(source), plan)
    images, points = torch.rand(2, 3, 32, 32), torch.tensor([[3.0, 4.0]])
    with torch.no_grad():
        ours, expected = loaded(images, points), simulated(images, points)
    assert ours.keys() == expected.keys()
    assert ("pose_enc" in ours) == ("camera" in heads)
    assert ("track" in ours) == ("track" in heads)
    for name in ours:
        if isinstance(ours[name], torch.Tensor):
            assert ours[name].equal(expected[name])


def test_heads_that_are_not_there_are_refused() -> None:
    model = architecture("tiny").with_heads(["camera", "depth"])
    with pytest.raises(InputError, match="the model has no track head, only camera, depth"):
        model.with_heads(["track"])
    with pytest.raises(InputError, match="'deph' is none of camera, depth, point, track"):
        planned(data_free("tiny", candidates=FEW), architecture("tiny"), parse_request("50%", heads=("deph",)))
