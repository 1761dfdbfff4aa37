"""Profiles and plans of models that are no VGGT: a transformer of torch's own, and a convolutional network."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mixedprec import apply_plan, load_plan, load_quantized
from sensitivity import open_profile
from tests.analysis.commands.other_models import encoder, pyramid, tokens
from tests.analysis.commands.running import assert_refused, cli, the_json
from vggtkit.core.errors import InputError
from vggtkit.model import VGGT, VGGTConfig
from vggtkit.quant import dequantize_layer, find_layers, quantize_layer, replaced_weights
from vggtkit.subject import subject_of

HERE = "tests.analysis.commands.other_models"
SCHEME = "int4_group_32"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A profile of each, through the command line."""
    folder = tmp_path_factory.mktemp("others")
    roles = folder / "roles.toml"
    roles.write_text('[roles]\n"^stem$" = "entrance"\n')
    options = {"encoder": ("--inputs", f"{HERE}:tokens", "--probes", 16), "pyramid": ("--roles", roles, "--views", 2)}
    for name, own in options.items():
        ran = cli("profile", "--model", f"{HERE}:{name}", "--run", folder / name, "--num-scenes", 2, "--json", *own)
        assert ran.code == 0, ran.err
    return {name: folder / name for name in options}


def damage_alone(model: nn.Module, name: str, arguments: list[Tensor]) -> float:
    """NMSE of the first output with one layer quantised, mean over scenes; by running the model."""
    module = model.get_submodule(name)
    found = []
    with torch.no_grad():
        for x in arguments:
            reference = model(x)
            with replaced_weights(model, {name: dequantize_layer(quantize_layer(module, SCHEME), module)}):
                changed = model(x)
            found.append(float((changed - reference).square().sum() / reference.square().sum()))
    return float(np.mean(found))


def test_a_transformer_of_torch(runs: dict[str, Path]) -> None:
    """Damage also of the projection that torch's attention reads past its module."""
    profile = open_profile(runs["encoder"])
    model = encoder().eval()
    assert [layer.name for layer in profile.layers] == [layer.name for layer in find_layers(model)]
    assert {layer.role for layer in profile.layers} == {"attention", "mlp"}
    assert {layer.block for layer in profile.layers} == {"layers.0", "layers.1"}
    scenes = tokens()
    arguments = [next(scenes) for _ in range(2)]
    column = profile.column(SCHEME)
    for row, layer in enumerate(profile.layers):
        truth = damage_alone(model, layer.name, arguments)
        assert profile.damage["output"][row, column] == pytest.approx(truth, rel=0.9), layer.name
        assert np.isnan(profile.scores["isolated"]["mae"][row]).all() == layer.name.endswith(("out_proj", "self_attn"))
    assert [layer.name for layer in profile.layers if layer.name.endswith("self_attn")] == [
        "layers.0.self_attn", "layers.1.self_attn"
    ]  # fmt: skip
    whole = {layer.name: model.get_submodule(layer.name) for layer in profile.layers}
    weights = {name: dequantize_layer(quantize_layer(module, SCHEME), module) for name, module in whole.items()}
    measured = []
    with torch.no_grad():
        for x in arguments:
            reference = model(x)
            with replaced_weights(model, weights):
                measured.append(float((model(x) - reference).square().sum() / reference.square().sum()))
    found = profile.uniform["output"][profile.schemes.index(SCHEME)]
    np.testing.assert_allclose(found, np.mean(measured), rtol=1e-3)


def test_a_convolutional_network(runs: dict[str, Path]) -> None:
    profile = open_profile(runs["pyramid"])
    roles = {layer.name: layer.role for layer in profile.layers}
    assert roles["stem"] == "entrance"
    assert (roles["depth_head"], roles["classifier"], roles["up"]) == ("head", "head", "other")
    assert set(profile.damage) == {"disparity", "logits"}
    assert (profile.damage["disparity"][[layer.name == "stem" for layer in profile.layers]] > 0).all()
    assert (profile.damage["logits"][[layer.name == "depth_head" for layer in profile.layers]] == 0).all()
    assert not np.isnan(profile.scores["accumulated"]["ssim"][0]).any()
    assert profile.facts["config"] == ""


FACTORIES = {"encoder": encoder, "pyramid": pyramid}


@pytest.mark.parametrize("name", FACTORIES)
def test_every_command_works_on_them(runs: dict[str, Path], name: str) -> None:
    run = runs[name]
    plan = the_json(cli("plan", "--run", run, "--budget", "int4_group_128", "--refine", 2, "--json"))
    assert plan["policy"] == "joint"
    assert 0 <= float(str(plan["bound"])) <= float(str(plan["predicted_damage"])) * 1.01
    assert int(str(plan["size_bytes"])) <= int(str(plan["budget_bytes"]))
    evaluated = the_json(cli("evaluate", "--run", run, "--repeats", 1, "--json"))
    rows = {row["key"]: row for row in evaluated["results"]}
    assert rows["plan"]["size_bytes"] == plan["size_bytes"]
    assert 0 < rows["int8_per_channel_sym"]["damage"] < rows["int4_group_128"]["damage"]
    assert rows["plan"]["geometry"] == {}
    for command in (
        ("inspect", open_profile(run).layers[0].name),
        ("report",),
        ("pareto", "--points", 3, "--measure", 2),
        ("formats",),
    ):
        assert cli(*command, "--run", run, "--json").code == 0


@pytest.mark.parametrize("name", FACTORIES)
def test_a_packed_file_loads_with_the_function_and_is_the_simulated_model(runs: dict[str, Path], name: str) -> None:
    """Bit for bit; the file has the bytes that were planned, and starts no code by itself."""
    run = runs[name]
    planned = the_json(cli("plan", "--run", run, "--budget", "int4_group_64", "--rounding", "nearest", "--json"))
    exported = the_json(cli("export", "--run", run, "--json"))
    path = Path(str(exported["path"]))
    assert path.stat().st_size == exported["size_bytes"] == planned["size_bytes"]
    with pytest.raises(InputError, match=f"{HERE}:{name}.*model=build"):
        load_quantized(path)
    packed = load_quantized(path, model=FACTORIES[name])
    simulated = apply_plan(FACTORIES[name]().eval(), load_plan(run / "plan.json"))
    x = next(tokens()) if name == "encoder" else torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        ours, expected = subject_of(packed).outputs(packed(x)), subject_of(simulated).outputs(simulated(x))
    assert all(ours[key].equal(expected[key]) for key in expected)


def test_a_function_runs_only_where_it_was_named(runs: dict[str, Path], tmp_path: Path) -> None:
    """A profile of somebody else's must not start code by naming it."""
    foreign = Path(shutil.copytree(runs["pyramid"], tmp_path / "foreign"))
    for command in ("plan", "evaluate", "export", "audit", "pareto", "formats"):
        assert_refused(cli(command, "--run", foreign), f"--model {HERE}:pyramid")
    assert cli("plan", "--run", foreign, "--model", f"{HERE}:pyramid").code == 0


def test_weights_of_a_function_are_its_own(tmp_path: Path) -> None:
    ran = cli("profile", "--model", f"{HERE}:pyramid", "--weights", "random", "--run", tmp_path / "x")
    assert_refused(ran, "--weights random", "function")
    assert pyramid() is not None


@pytest.mark.slow
@pytest.mark.usefixtures("few_formats")
def test_a_vggt_without_some_heads_goes_through_every_command(tmp_path: Path, tiniest_config: VGGTConfig) -> None:
    """Heads that its config leaves out are absent: from layers, outputs, figures, plans and files."""
    config = replace(tiniest_config, heads=("camera", "depth"))
    folder, run = tmp_path / "network", tmp_path / "run"
    folder.mkdir()
    torch.manual_seed(0)
    save_file(VGGT(config).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(config.to_json())
    options = ("--num-scenes", 1, "--views", 2, "--probes", 1, "--run", run)
    assert cli("profile", "--model", folder, *options).code == 0
    assert set(open_profile(run).damage) == {"pose_enc", "depth", "depth_conf"}
    plan = the_json(cli("plan", "--run", run, "--refine", 0, "--draw", "--json"))
    assert plan["heads"] == ["camera", "depth"]
    rows = the_json(cli("evaluate", "--run", run, "--repeats", 1, "--json"))["results"]
    assert {"auc30", "abs_rel"} <= set(rows[-1]["geometry"])
    assert not {"chamfer", "track_px", "agreement"} & set(rows[-1]["geometry"])
    assert cli("audit", "--run", run).code == 0
    path = Path(str(the_json(cli("export", "--run", run, "--json"))["path"]))
    assert load_quantized(path).config.heads == ("camera", "depth")
