"""The backend ``onnxruntime``: passes of a file in the place of the model's own."""

import sys

import pytest
import torch

from mixedprec import packed, uniform_assignment
from tests.random_vggt import random_vggt
from vggtkit.core.errors import InputError
from vggtkit.metrics.tensors import nmse
from vggtkit.model.config import VGGTConfig
from vggtkit.quant import find_layers
from vggtkit.runtime import int8
from vggtkit.runtime.backend import Options
from vggtkit.runtime.backends import BACKENDS
from vggtkit.runtime.onnx.styles import operators
from vggtkit.subject import ModuleSubject, subject_of


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """No layer is too small for whole numbers."""
    for name in ("LARGE_WEIGHTS", "SMALL_MODEL"):
        monkeypatch.setattr(int8, name, 0)


@pytest.mark.usefixtures("everything_is_large")
def test_a_plan_runs_as_its_file_does(tiniest_config: VGGTConfig) -> None:
    model = random_vggt(tiniest_config).with_heads(["camera"])
    formats = uniform_assignment(find_layers(model), "int4_two_level_16")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), packed(model, formats):
        prepared = BACKENDS.pick("onnxruntime").prepare(subject_of(model))
        expected = model(images)["pose_enc"]
        with prepared.running():
            found, again = model(images)["pose_enc"], model(images)["pose_enc"]
        after = model(images)["pose_enc"]
    assert found.shape == expected.shape
    assert 0 < nmse(expected, found) < 1e-3
    assert found.equal(again)
    assert after.equal(expected)
    execution = prepared.execution
    assert not prepared.has_stages
    linear = [layer for layer in find_layers(model) if layer.kind == "linear"]
    assert execution.layers == {"MatMulNBits, 4 bits": len(linear), "FP32": 1}
    # codes of 4 bits and an FP32 scale for 16 weights; the patches' convolution is plain
    sizes = [out * -(-columns // 16) * 12 for out, columns in (layer.shape for layer in linear)]
    assert execution.weight_bytes == sum(sizes) + 4 * 3 * 8 * 8 * 32
    assert execution.fell_back == {}
    assert "ONNX Runtime" in execution.kernels


def test_layers_that_would_only_be_slower_are_in_fp32_by_themselves(tiniest_config: VGGTConfig) -> None:
    """Up to 4 bits in a small network; 8 bits are faster there too."""
    model = random_vggt(tiniest_config).with_heads(["camera"])
    names = [layer.name for layer in find_layers(model) if layer.kind == "linear"]
    formats = uniform_assignment(find_layers(model), "int4_two_level_16") | {names[0]: "int8_per_channel_sym"}
    with torch.no_grad(), packed(model, formats):
        found, kinds = operators(model, "auto"), operators(model, "nbits")
    assert [name for name, weight in found.items() if weight is not None] == names[:1]
    assert [name for name, weight in kinds.items() if weight is not None] == names


@pytest.mark.usefixtures("everything_is_large")
def test_a_layer_whose_input_the_plan_does_not_round_is_in_fp32(tiniest_config: VGGTConfig) -> None:
    model = random_vggt(tiniest_config).with_heads(["camera"])
    names = [layer.name for layer in find_layers(model) if layer.kind == "linear"]
    told = {names[0]: "bfloat16", names[1]: "int8"}
    with torch.no_grad(), packed(model, uniform_assignment(find_layers(model), "int4_two_level_16")):
        execution = BACKENDS.pick("onnxruntime").prepare(subject_of(model), Options(executions=told)).execution
    assert execution.fell_back == {names[0]: "the plan keeps it in bfloat16"}
    assert execution.layers == {"MatMulNBits, 4 bits": len(names) - 1, "FP32": 2}


@pytest.mark.usefixtures("spoken_in_options")
def test_what_it_cannot_run_is_refused_in_one_line(tiniest_config: VGGTConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = BACKENDS.pick("onnxruntime")
    other = ModuleSubject(torch.nn.Sequential(torch.nn.Linear(2, 2)).eval())
    with pytest.raises(InputError, match="--execute onnxruntime: only a VGGT"):
        backend.check(other)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert backend.missing == "onnxruntime"
    with pytest.raises(InputError, match=r"onnxruntime is not installed: .*\[onnx\]"):
        backend.prepare(subject_of(random_vggt(tiniest_config)))
