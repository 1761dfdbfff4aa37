"""Assignments in a model: the right numbers, and the originals back."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mixedprec.apply import apply_assignment, apply_plan, check_assignment, packed, quantized, split_state
from mixedprec.plan import Plan, uniform_assignment
from vggtkit.core.errors import InputError
from vggtkit.model.loading import model_fingerprint
from vggtkit.model.vggt import VGGT
from vggtkit.quant import FORMATS, UNIFORM_SCHEMES, find_layers, quantize_layer

Run = Callable[[VGGT], dict[str, Tensor]]
Swap = Callable[..., "object"]


def mixed(model: nn.Module) -> dict[str, str]:
    return dict(zip((layer.name for layer in find_layers(model)), itertools.cycle(FORMATS), strict=False))


def plan_for(model: VGGT) -> Plan:
    formats = mixed(model)
    sizes = {name: quantize_layer(model.get_submodule(name), key).nbytes for name, key in formats.items()}
    return Plan(
        model_fingerprint=model_fingerprint(model),
        model="tiny",
        policy="optimal",
        score="sketch",
        budget_text="6MB",
        budget_bytes=6_000_000,
        keep="fp16",
        overhead_bytes=1000,
        formats=formats,
        layer_bytes=sizes,
        predicted_damage={"depth": 0.5},
        total_damage=0.5,
        bound=0.5,
        optimal=True,
    )


@pytest.mark.parametrize("name", [*UNIFORM_SCHEMES, "mixed"])
def test_packed_execution_computes_what_the_simulated_does(small_model: VGGT, run: Run, name: str) -> None:
    layers = find_layers(small_model)
    assignment = mixed(small_model) if name == "mixed" else uniform_assignment(layers, name)
    with quantized(small_model, assignment) as model:
        expected = run(model)
    with packed(small_model, assignment) as model:
        found = run(model)
    assert all(found[key].equal(value) for key, value in expected.items())


def test_simulated_weights_are_near_and_kept_ones_are_fp16(small_model: VGGT) -> None:
    """Against plain arithmetic on the weights: 8 bits are at most half a step off."""
    before = {name: tensor.clone() for name, tensor in small_model.state_dict().items()}
    assignment = uniform_assignment(find_layers(small_model), "int8_per_tensor_sym")
    weights, kept = split_state(small_model, find_layers(small_model))
    simulated = apply_assignment(small_model, assignment)
    assert all(tensor.equal(before[name]) for name, tensor in small_model.state_dict().items())
    after = simulated.state_dict()
    for name in weights.values():
        step = before[name].abs().max() / 127
        assert (after[name] - before[name]).abs().max() <= 0.501 * step + 1e-4 * before[name].abs().max(), name
        assert not after[name].equal(before[name]), name
    for name in kept:
        assert after[name].equal(before[name].half().float()), name
    assert len(weights) + len(kept) == len(before)


def test_all_fp32_changes_nothing(small_model: VGGT) -> None:
    before = model_fingerprint(small_model)
    simulated = apply_assignment(small_model, uniform_assignment(find_layers(small_model), "fp32"), keep="fp32")
    assert model_fingerprint(simulated) == before


@pytest.mark.parametrize("context", [quantized, packed])
@pytest.mark.parametrize("fails", [False, True], ids=["normally", "on-exception"])
def test_originals_come_back(small_model: VGGT, context: Swap, fails: bool) -> None:
    """The very tensors: same parameter objects, same memory, same order."""
    before = [(name, id(p), p.data_ptr()) for name, p in small_model.named_parameters()]
    fingerprint = model_fingerprint(small_model)
    try:
        with context(small_model, mixed(small_model)) as model:
            assert model is small_model
            changed = {name: p.data_ptr() for name, p in model.named_parameters()}
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    assert changed != {name: pointer for name, _, pointer in before}
    assert [(name, id(p), p.data_ptr()) for name, p in small_model.named_parameters()] == before
    assert model_fingerprint(small_model) == fingerprint


@pytest.mark.parametrize("context", [quantized, packed])
@pytest.mark.parametrize("where", ["weight", "bias"])
def test_originals_come_back_when_a_value_cannot_be_held(small_model: VGGT, context: Swap, where: str) -> None:
    """Half of the layers are quantised when it shows."""
    getattr(small_model.track_head.tracker.updateformer.flow_head, where).data[0] = torch.nan
    before = [(name, id(p), p.data_ptr()) for name, p in small_model.named_parameters()]
    with pytest.raises(InputError, match=r"flow_head.*NaN"), context(small_model, mixed(small_model)):
        pass
    assert [(name, id(p), p.data_ptr()) for name, p in small_model.named_parameters()] == before


def test_split_state_finds_the_official_name_of_a_renamed_weight(small_model: VGGT) -> None:
    weights, kept = split_state(small_model, find_layers(small_model))
    attention = "track_head.tracker.updateformer.time_blocks.0.attn"
    assert weights[f"{attention}.in_proj"] == f"{attention}.in_proj_weight"
    assert f"{attention}.in_proj_bias" in kept


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda a: a.pop("camera_head.embed_pose"),
            "1 of the model's .* no format, first 'camera_head.embed_pose'",
        ),
        (lambda a: a.update(tail="fp16"), "1 layers with a format are not in the model, first 'tail'"),
        (lambda a: a.update({"camera_head.embed_pose": "int5"}), "unknown format 'int5'"),
    ],
    ids=["missing", "unexpected", "unknown-format"],
)
def test_assignment_that_does_not_fit_is_refused_before_anything_changes(
    small_model: VGGT, change: Callable[[dict[str, str]], object], message: str
) -> None:
    assignment, before = mixed(small_model), model_fingerprint(small_model)
    change(assignment)
    for use in (check_assignment, apply_assignment):
        with pytest.raises(InputError, match=message):
            use(small_model, assignment, "fp16")
    assert model_fingerprint(small_model) == before


def test_unknown_keep_is_refused(small_model: VGGT) -> None:
    with pytest.raises(InputError, match="keep is 'bf16', must be one of fp16, fp32"):
        apply_assignment(small_model, mixed(small_model), keep="bf16")


def test_plan_is_applied_to_its_own_model(small_model: VGGT, run: Run) -> None:
    plan = plan_for(small_model)
    with quantized(small_model, plan.formats):
        expected = run(small_model)
    found = run(apply_plan(small_model, plan))
    assert all(found[key].equal(value) for key, value in expected.items())


def test_plan_for_other_weights_is_refused_with_both_fingerprints(small_model: VGGT) -> None:
    plan = plan_for(small_model)
    simulated = apply_plan(small_model, plan)  # its weights are no longer those of the plan
    pattern = f"{plan.model_fingerprint}.*this model has {model_fingerprint(simulated)}"
    with pytest.raises(InputError, match=pattern):
        apply_plan(simulated, plan)


def test_plan_whose_sizes_are_of_other_formats_is_refused(small_model: VGGT) -> None:
    """Somebody exchanged formats in the file and left the sizes."""
    plan, before = plan_for(small_model), model_fingerprint(small_model)
    lied = plan.formats | {"camera_head.embed_pose": "int4_group_128"}
    assert lied != plan.formats
    with pytest.raises(InputError, match=r"counts \d+ bytes for camera_head.embed_pose at int4_group_128"):
        apply_plan(small_model, replace(plan, formats=lied))
    assert model_fingerprint(small_model) == before


def test_plan_may_count_fp32_scales(small_model: VGGT) -> None:
    small_model.camera_head.embed_pose.weight.data *= 1e-9
    plan = plan_for(small_model)
    formats = plan.formats | {"camera_head.embed_pose": "int4_group_32"}
    size = quantize_layer(small_model.camera_head.embed_pose, "int4_group_32").nbytes
    plan = replace(plan, formats=formats, layer_bytes=plan.layer_bytes | {"camera_head.embed_pose": size})
    apply_plan(small_model, plan)


def test_codes_that_were_chosen_on_scenes_are_in_the_checkpoint_alone(small_model: VGGT) -> None:
    with pytest.raises(InputError, match=r"gptq.*export"):
        apply_plan(small_model, replace(plan_for(small_model), rounding="gptq"))
