"""``profile --fold``: all later commands work on the folded network, and nothing mistakes it for the original."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from analysis.steps.run_folder import FOLDING
from mixedprec import apply_plan, load_plan, load_quantized
from sensitivity import open_profile
from tests.analysis.commands.running import assert_refused, change_facts, cli, the_json
from vggtkit.core.errors import InputError
from vggtkit.model import load_vggt
from vggtkit.model.folding import outlier_twin
from vggtkit.quant import find_layers


@pytest.fixture(scope="module")
def twin_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiniest VGGT with outliers in the inputs of its blocks' layers."""
    folder = tmp_path_factory.mktemp("twin")
    twin = outlier_twin(load_vggt(str(model_folder)), share=16, factor=100.0)
    save_file(twin.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text((model_folder / "config.json").read_text())
    return folder


@pytest.mark.slow
def test_a_folded_profile_is_planned_evaluated_and_written(twin_folder: Path, tmp_path: Path) -> None:
    formats = "int8_per_channel_sym,int4_two_level"
    asked = ("--model", twin_folder, "--num-scenes", 1, "--views", 2, "--probes", 2, "--run", tmp_path)
    shown = cli("profile", *asked, "--fold")
    assert shown.code == 0
    assert "folded factors of" in shown.err
    folded = open_profile(tmp_path).facts[FOLDING]
    assert folded
    the_json(cli("plan", "--run", tmp_path, "--budget", "60%", "--formats", formats, "--execute", "int8", "--json"))
    judged = the_json(cli("evaluate", "--run", tmp_path, "--repeats", 0, "--execute", "int8", "--json"))
    assert next(row for row in judged["results"] if row["key"] == "plan")["damage"] < 0.1
    written = the_json(cli("export", "--run", tmp_path, "--json"))
    plan, original = load_plan(tmp_path / "plan.json"), load_vggt(str(twin_folder))
    with pytest.raises(InputError, match="made for weights"):
        apply_plan(original, plan)
    packed = load_quantized(written["path"])
    name, numbers = next(iter(folded.items()))
    factors = torch.exp2(torch.tensor(numbers, dtype=torch.float32))
    expected = (original.get_parameter(f"{name}.weight") * factors).half().float()
    assert packed.get_parameter(f"{name}.weight").equal(expected)
    shown = cli("inspect", find_layers(original)[2].name, "--run", tmp_path)
    assert shown.code == 0
    change_facts(tmp_path, **{FOLDING: '{"nowhere": [1]}'})
    assert_refused(cli("export", "--run", tmp_path), "nowhere is no norm")


def test_where_there_is_nothing_to_fold_it_says_so(tmp_path: Path) -> None:
    made = cli(
        "profile", "--model", "tests.analysis.commands.other_models:encoder", "--inputs",
        "tests.analysis.commands.other_models:tokens", "--run", tmp_path, "--probes", 1, "--fold",
    )  # fmt: skip
    assert made.code == 0, made.err
    assert "nothing to fold" in made.err
    assert FOLDING not in open_profile(tmp_path).facts
