"""Quantised checkpoints: exact sizes, the same numbers after loading, and damage that is named."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import vggtkit.core.atomic
from mixedprec.apply import quantized
from mixedprec.checkpoint import (
    NOTE_BYTES,
    load_quantized,
    overhead_bytes,
    read_info,
    save_quantized,
)
from mixedprec.plan import uniform_assignment
from tests.mixedprec.editing import edited
from vggtkit.core.errors import InputError
from vggtkit.model.config import VGGTConfig
from vggtkit.model.loading import load_vggt, model_fingerprint
from vggtkit.model.vggt import VGGT
from vggtkit.quant import FORMATS, UNIFORM_SCHEMES, find_layers, quantize_layer
from vggtkit.runtime.backend import EXECUTIONS

Run = Callable[[VGGT], dict[str, Tensor]]
ASSIGNMENTS = [*UNIFORM_SCHEMES, "fp16", "fp32", "mixed"]


def assignment_of(model: VGGT, name: str) -> dict[str, str]:
    """A uniform assignment, or every format in turn."""
    layers = find_layers(model)
    if name != "mixed":
        return uniform_assignment(layers, name)
    return dict(zip((layer.name for layer in layers), itertools.cycle(FORMATS), strict=False))


def layer_bytes(model: VGGT, assignment: dict[str, str]) -> int:
    return sum(quantize_layer(model.get_submodule(name), key).nbytes for name, key in assignment.items())


def assert_bytes(model: VGGT, assignment: dict[str, str], keep: str, path: Path, size_bytes: int) -> None:
    """Exactly the overhead and the layers, and one summary beside the file."""
    assert path.stat().st_size == size_bytes
    assert size_bytes == overhead_bytes(model, keep) + layer_bytes(model, assignment)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("name", "keep"), [*((name, "fp32") for name in ASSIGNMENTS if name != "fp32"), ("fp32", "fp16")]
)
def test_file_takes_exactly_the_overhead_and_its_layers(
    small_model: VGGT, tmp_path: Path, name: str, keep: str
) -> None:
    """What is kept is of the other type than where models are loaded, below."""
    assignment, path = assignment_of(small_model, name), tmp_path / "model.safetensors"
    size_bytes = save_quantized(small_model, assignment, path, keep=keep, note={"command": "export" * 50})
    assert_bytes(small_model, assignment, keep, path, size_bytes)


def test_scales_too_small_for_fp16_are_counted_too(small_model: VGGT, tmp_path: Path, run: Run) -> None:
    layer = small_model.camera_head.embed_pose
    layer.weight.data *= 1e-9
    assignment, path = assignment_of(small_model, "int4_group_32"), tmp_path / "model.safetensors"
    size_bytes = save_quantized(small_model, assignment, path)
    assert load_file(path)["camera_head.embed_pose.weight.scales"].dtype == torch.float32
    assert size_bytes == overhead_bytes(small_model) + layer_bytes(small_model, assignment)
    with quantized(small_model, assignment):
        expected = run(small_model)
    assert all(value.equal(expected[key]) for key, value in run(load_quantized(path)).items())


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_loaded_model_computes_what_the_simulated_one_does(
    small_model: VGGT, tmp_path: Path, run: Run, name: str
) -> None:
    """Bit for bit, every output; and the bytes of the file."""
    assignment, path = assignment_of(small_model, name), tmp_path / "model.safetensors"
    keep = "fp32" if name == "fp32" else "fp16"
    original = run(small_model)
    size_bytes = save_quantized(small_model, assignment, path, keep=keep, note={"command": "export" * 50})
    assert_bytes(small_model, assignment, keep, path, size_bytes)
    with quantized(small_model, assignment, keep):
        expected = run(small_model)
    loaded = load_quantized(path)
    found = run(loaded)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert value.isfinite().all(), key
        assert found[key].equal(value), key
    assert found["depth"].equal(original["depth"]) == (name == "fp32")
    assert not loaded.training


def test_the_small_published_fixture_survives(tmp_path: Path, shared_dir: Path) -> None:
    model = load_vggt(shared_dir / "fixtures" / "vggt_small")
    assignment, path = assignment_of(model, "mixed"), tmp_path / "model.safetensors"
    images = torch.rand(2, 3, model.config.img_size, model.config.img_size)
    save_quantized(model, assignment, path)
    with torch.no_grad(), quantized(model, assignment):
        expected = model(images)
    with torch.no_grad():
        found = load_quantized(path)(images)
    assert all(torch.equal(found[key], expected[key]) for key in ("pose_enc", "depth", "world_points"))


def test_packed_memory_is_that_of_the_file(small_model: VGGT, tmp_path: Path) -> None:
    """No FP32 copy of a packed weight stays behind; kept tensors are FP32 in memory."""
    assignment, path = assignment_of(small_model, "int8_per_channel_asym"), tmp_path / "model.safetensors"
    save_quantized(small_model, assignment, path)
    loaded = load_quantized(path)
    buffers = sum(buffer.nbytes for name, buffer in loaded.named_buffers() if ".packed." in name)
    assert buffers == layer_bytes(small_model, assignment)
    assert sum(parameter.numel() for parameter in loaded.parameters()) == sum(
        parameter.numel() for parameter in small_model.parameters()
    ) - sum(layer.weights for layer in find_layers(small_model))


def test_fp32_file_is_an_ordinary_checkpoint(small_model: VGGT, tmp_path: Path) -> None:
    """Official names and layouts: the library reads the very state dict."""
    path = tmp_path / "model.safetensors"
    save_quantized(small_model, assignment_of(small_model, "fp32"), path, keep="fp32")
    found, expected = load_file(path), small_model.state_dict()
    assert found.keys() == expected.keys()
    assert all(found[name].equal(tensor) for name, tensor in expected.items())
    assert "track_head.tracker.updateformer.time_blocks.0.attn.in_proj_weight" in found


def test_tensors_are_aligned_and_named_after_the_weight(small_model: VGGT, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_quantized(small_model, assignment_of(small_model, "mixed"), path)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    del header["__metadata__"]
    width = {"F32": 4, "F16": 2, "U8": 1}
    assert all((8 + length + entry["data_offsets"][0]) % width[entry["dtype"]] == 0 for entry in header.values())
    official = small_model.state_dict().keys()
    assert {name.removesuffix(".codes") for name in header if name.endswith(".codes")} <= official


def test_capacity_of_the_header_leaves_room_for_the_worst_case(
    small_model: VGGT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three tensors per layer, a key of 31 characters, longest note: it still fits, and the size is unmoved."""
    longest = replace(FORMATS["int8_per_channel_asym"], key="x" * 31)
    monkeypatch.setitem(FORMATS._values, longest.key, longest)
    assignment = assignment_of(small_model, longest.key)
    note = {"n": "x" * (NOTE_BYTES - len('{"n":""}') - 4)}  # four quotes are escaped
    sizes = {
        save_quantized(small_model, assignment, tmp_path / f"{i}.safetensors", note=entry)
        for i, entry in enumerate([None, note])
    }
    assert len(sizes) == 1
    with pytest.raises(InputError, match=f"takes {NOTE_BYTES + 1} bytes.*at most {NOTE_BYTES}"):
        save_quantized(small_model, assignment, tmp_path / "2.safetensors", note={"n": note["n"] + "x"})


def test_overhead_of_vggt_1b_needs_no_memory_and_little_header() -> None:
    with torch.device("meta"):
        model = VGGT(VGGTConfig())
    kept = 1_256_537_516 - sum(layer.weights for layer in find_layers(model))
    header = overhead_bytes(model) - 2 * kept
    assert overhead_bytes(model, "fp32") == header + 4 * kept
    assert header < 600_000


def test_info_and_summary_say_what_is_inside(small_model: VGGT, tmp_path: Path) -> None:
    assignment, path = assignment_of(small_model, "mixed"), tmp_path / "model-mixed.safetensors"
    seen: list[str] = []
    size_bytes = save_quantized(small_model, assignment, path, note={"seed": 3}, on_layer=seen.append)
    info = read_info(path)
    assert (info.config, info.formats, info.keep) == (small_model.config, assignment, "fp16")
    assert info.note == {"seed": 3}
    assert info.model_fingerprint == model_fingerprint(small_model)
    assert seen == list(assignment)
    summary = json.loads((tmp_path / "model-mixed.json").read_text())
    assert summary["formats"] == assignment
    assert summary["size_bytes"] == size_bytes
    assert summary["overhead_bytes"] + sum(summary["layer_bytes"].values()) == size_bytes


def test_a_file_says_how_its_layers_run(small_model: VGGT, tmp_path: Path) -> None:
    assignment, path = assignment_of(small_model, "mixed"), tmp_path / "m.safetensors"
    without = save_quantized(small_model, assignment, path)
    assert read_info(path).executions == {}
    told = dict(zip(list(assignment)[1:], EXECUTIONS, strict=False))
    assert save_quantized(small_model, assignment, path, executions=told) == without
    assert read_info(path).executions == json.loads(path.with_suffix(".json").read_text())["executions"] == told
    model = load_quantized(path)
    for name, key in assignment.items():
        if key != "fp32":
            assert model.get_submodule(name).packed.execution == told.get(name)


def test_a_file_from_before_that_is_read_and_says_nothing_of_it(small_model: VGGT, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_quantized(small_model, assignment_of(small_model, "int4_group_32"), path)
    edited(path, lambda _, m: m.update(schema_version="3") or m.pop("executions"))
    assert read_info(path).executions is None
    layer = next(layer.name for layer in find_layers(small_model))
    assert load_quantized(path, verify=False).get_submodule(layer).packed.execution is None


def test_model_stays_and_a_file_can_be_replaced_while_in_use(small_model: VGGT, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    before = model_fingerprint(small_model)
    save_quantized(small_model, assignment_of(small_model, "mixed"), path)
    loaded = load_quantized(path)
    fingerprint = model_fingerprint(loaded)
    save_quantized(small_model, assignment_of(small_model, "int4_group_64"), path)
    assert model_fingerprint(loaded) == fingerprint
    loaded = load_quantized(path)
    fingerprint = model_fingerprint(loaded)
    path.write_bytes(bytes(path.stat().st_size))  # in place, where a mapped file would change under the model
    assert model_fingerprint(loaded) == fingerprint
    assert model_fingerprint(small_model) == before
    with pytest.raises(ValueError, match="packed"):
        save_quantized(loaded, assignment_of(small_model, "fp16"), path)


@pytest.mark.parametrize("name", ["plan", "config"])
def test_summary_never_replaces_another_json_file(small_model: VGGT, tmp_path: Path, name: str) -> None:
    """`plan.safetensors` would put its summary where the plan is."""
    (tmp_path / f"{name}.json").write_text('{"formats": {}}')
    with pytest.raises(InputError, match=rf"{name}\.json would be overwritten"):
        save_quantized(small_model, assignment_of(small_model, "fp16"), tmp_path / f"{name}.safetensors")
    assert [entry.name for entry in tmp_path.iterdir()] == [f"{name}.json"]


def test_other_suffix_is_refused(small_model: VGGT, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"name it .*model\.bin\.safetensors"):
        save_quantized(small_model, assignment_of(small_model, "fp16"), tmp_path / "model.bin")


def test_full_disk_leaves_the_old_file_and_no_other(small_model: VGGT, tmp_path: Path) -> None:
    """A real write that fails half-way: the limit on file sizes stands for the end of the disk."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "model.safetensors"
    path.write_text("older")
    assignment = assignment_of(small_model, "fp32")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"cannot write .*model\.safetensors: File too large"):
            save_quantized(small_model, assignment, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["older"]


def test_interrupt_leaves_no_temporary_file(small_model: VGGT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(vggtkit.core.atomic.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_quantized(small_model, assignment_of(small_model, "fp16"), tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda m: m.camera_head.embed_pose.weight.data.fill_(torch.nan), "camera_head.embed_pose.*NaN"),
        (
            lambda m: m.camera_head.embed_pose.bias.data.fill_(torch.inf),
            "camera_head.embed_pose.bias.*NaN or Inf",
        ),
        (
            lambda m: m.camera_head.embed_pose.bias.data.fill_(1e5),
            "bias reaches 100000, more than FP16 holds",
        ),
    ],
    ids=["weight-nan", "kept-inf", "kept-overflow"],
)
def test_values_that_cannot_be_held_are_named_and_nothing_is_written(
    small_model: VGGT, tmp_path: Path, spoil: Callable[[VGGT], None], message: str
) -> None:
    spoil(small_model)
    with pytest.raises(InputError, match=message):
        save_quantized(small_model, assignment_of(small_model, "int4_group_32"), tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []
