"""The backend ``int8``: what it runs, how far it is from the reference, what it says."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from mixedprec import Assignment, packed, uniform_assignment
from tests.random_vggt import random_vggt
from vggtkit.core.errors import InputError
from vggtkit.metrics.tensors import nmse
from vggtkit.model import VGGT
from vggtkit.model.config import VGGTConfig
from vggtkit.quant import PackedWeight, find_layers, pack_layer, quantize_layer
from vggtkit.runtime import int8, processor
from vggtkit.runtime.backend import EXECUTIONS, RESIDENT, Options, Prepared
from vggtkit.runtime.backends import BACKENDS
from vggtkit.runtime.kernels import KERNELS, InFP32, KernelChoice, usable_kernels
from vggtkit.runtime.runners import Int8Runner
from vggtkit.subject import ModuleSubject, subject_of

KEYS = ("int8_per_channel_sym", "int4_two_level_64", "int3_two_level_16", "int2_two_level_16")


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """No layer is too small for whole numbers."""
    for name in ("LARGE_WEIGHTS", "SMALL_MODEL", "SMALL_CONVOLUTION"):
        monkeypatch.setattr(int8, name, 0)


@pytest.fixture
def vggt(tiniest_config: VGGTConfig) -> VGGT:
    return random_vggt(tiniest_config)


@contextmanager
def prepared(model: nn.Module, formats: Assignment, options: Options | None = None) -> Iterator[Prepared]:
    """Packed, and ready to run."""
    with torch.no_grad(), packed(model, formats):
        yield BACKENDS.pick("int8").prepare(subject_of(model), options)


def outputs(model: VGGT) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    returned = model(torch.rand(2, 3, 32, 32, generator=generator), torch.rand(3, 2, generator=generator) * 31)
    return {name: value for name, value in returned.items() if isinstance(value, Tensor) and name != "images"}


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("resident", RESIDENT)
@pytest.mark.parametrize("key", KEYS)
def test_a_layer_errs_by_what_rounding_its_input_can_do(key: str, resident: str) -> None:
    """Half a step of the row on every input: ``step / 2 * sum |w|``, and FP32's own rounding."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(100, 40))
    x = torch.randn(2, 30, 100) * torch.logspace(-2, 2, 30)[:, None]
    with prepared(model, {"0": key}, Options(resident)) as ready:
        assert ready.execution.layers == {"int8": 1}
        exact = model(x)
        weight = model[0].packed()
        with ready.running():
            found = model(x)
    steps = x.abs().amax(-1, keepdim=True) / 127
    bound = steps / 2 * weight.abs().sum(1)
    assert bool(((found - exact).abs() <= bound + 1e-5 * exact.abs().amax()).all())
    assert found.dtype == x.dtype
    assert 0 < nmse(exact, found) < 5e-4


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("resident", RESIDENT)
def test_a_vggt_is_near_the_reference_and_as_before_afterwards(vggt: VGGT, resident: str) -> None:
    with prepared(vggt, uniform_assignment(find_layers(vggt), "int4_two_level_16"), Options(resident)) as ready:
        reference = outputs(vggt)
        with ready.running():
            found = outputs(vggt)
        again = outputs(vggt)
    assert ready.execution.layers["int8"] > 60
    assert all(again[name].equal(value) for name, value in reference.items())
    for name in ("pose_enc", "depth", "depth_conf", "world_points", "world_points_conf"):
        assert found[name].dtype == torch.float32
        assert nmse(reference[name], found[name]) < 1e-2, name
        assert not found[name].equal(reference[name])


def test_small_layers_keep_a_plain_weight_while_the_model_runs(vggt: VGGT) -> None:
    with prepared(vggt, uniform_assignment(find_layers(vggt), "int4_two_level_16")) as ready:
        assert all(isinstance(layer, str) for layer in ready.execution.fell_back)
        with ready.running():
            outputs(vggt)
        fc1 = vggt.aggregator.frame_blocks[0].mlp.fc1
        assert fc1.weight is None
    assert fc1.weight is not None


@pytest.mark.usefixtures("everything_is_large")
def test_packed_weights_stay_as_large_as_in_the_file() -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 16))
    sizes = {}
    for resident in RESIDENT:
        with prepared(model, dict.fromkeys(("0", "1"), "int4_two_level_64"), Options(resident)) as ready:
            sizes[resident] = ready.execution.weight_bytes
            file_bytes = sum(module.packed.quantized.nbytes for module in model)
    assert sizes["packed"] == file_bytes
    assert sizes["int8"] == 64 * 32 + 32 * 16 + 4 * (32 + 16)


@pytest.fixture
def bfloat16(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> bool:
    """Whether bfloat16 is taken to be faster than FP32, whatever was measured."""
    choice = int8.choose(torch.get_num_threads())
    assert choice is not None
    monkeypatch.setattr(int8, "choose", lambda *_: choice._replace(has_bfloat16=request.param))
    return bool(request.param)


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("bfloat16", [True, False], indirect=True)
def test_any_module_runs_and_returns_what_it_was_given(bfloat16: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.ConvTranspose2d(6, 4, 2, stride=2),
        nn.Flatten(2), nn.Linear(64, 5),
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 4, 4)
    formats = {"0": "int4_group_32", "2": "int4_two_level_64", "3": "int8_per_channel_asym", "5": "fp16"}
    with prepared(model, formats) as ready:
        exact = model(x)
        with ready.running():
            found = model(x)
    assert isinstance(ready, int8._Int8Prepared)
    assert isinstance(ready.runners["2"], Int8Runner)
    assert found.dtype == torch.float32
    assert nmse(exact, found) < 1e-3
    fp32 = {} if bfloat16 else dict.fromkeys(("0", "3"), "FP32 is the fastest here")
    assert ready.execution.fell_back == {**fp32, "5": "kept in FP16"}


def test_formats_that_are_no_int8_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 16))
    formats = {"0": "int4_two_level_64", "1": "int4_group_32"}
    with (
        pytest.raises(InputError, match=r"1 linear layers .* first 1 \(int4_group_32\).*convert"),
        prepared(model, formats),
    ):
        pass


@pytest.mark.usefixtures("everything_is_large")
def test_or_converted_with_the_error_said() -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 16))
    formats = {"0": "int4_two_level_64", "1": "int4_group_32"}
    with prepared(model, formats, Options(convert=True)) as ready:
        exact = model[1](torch.eye(32))
        with ready.running():
            found = model[1](torch.eye(32))
    assert ready.execution.converted.keys() == {"1"}
    assert ready.execution.layers == {"int8": 2}
    bias = model[1].bias.detach()  # the rows of a unit matrix are whole numbers: only the weight differs
    assert nmse(exact - bias, found - bias) == pytest.approx(ready.execution.converted["1"], rel=0.02)


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("resident", RESIDENT)
def test_a_layer_that_keeps_its_input_is_not_rounded(resident: str) -> None:
    """One large channel takes all of INT8's steps; bfloat16 has some for each number. Any format will do then."""
    model = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 16))
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(0))
    x[:, 5] *= 1000
    with torch.no_grad():
        model[0].weight[:, 5] = 0
    formats = {"0": "int4_group_32", "1": "int8_per_channel_sym"}
    with prepared(model, formats, Options(resident, executions={"0": "bfloat16"})) as ready:
        exact = model[0](x)
        with ready.running():
            found = model[0](x)
    assert nmse(exact, found) < 1e-4
    assert ready.execution.fell_back == {"0": "the plan keeps it in bfloat16"}
    assert ready.execution.layers["int8"] == 1
    with prepared(model, formats, Options(resident, convert=True)) as ready, ready.running():
        assert nmse(exact, model[0](x)) > 0.1


def test_without_an_exact_kernel_it_falls_back_and_says_so(vggt: VGGT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "choose", lambda *_: None)
    with prepared(vggt, uniform_assignment(find_layers(vggt), "int4_two_level_16")) as ready:
        reference = outputs(vggt)
        with ready.running():
            found = outputs(vggt)
    assert all(found[name].equal(value) for name, value in reference.items())
    assert ready.execution.layers == {"reference": len(find_layers(vggt))}
    assert ready.execution.fell_back.keys() == {layer.name for layer in find_layers(vggt)}
    for said in (ready.execution.kernels, BACKENDS.pick("int8").describe()):
        assert "no kernel of this torch multiplies exactly here" in said
        assert "falls back to the reference" in said


@pytest.mark.usefixtures("everything_is_large")
def test_every_exact_kernel_computes_the_same_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums are whole numbers, so what a processor without the instructions computes is what one with them does."""
    torch.manual_seed(0)
    model, x, found = nn.Sequential(nn.Linear(1500, 40)), torch.randn(30, 1500), []
    for kernel in usable_kernels():
        choice = KernelChoice(kernel, kernel, has_bfloat16=False, said="given")
        monkeypatch.setattr(int8, "choose", lambda *_, choice=choice: choice)
        with prepared(model, {"0": "int8_per_channel_sym"}) as ready, ready.running():
            found.append(model(x))
        assert kernel.title in ready.execution.kernels
    assert isinstance(usable_kernels()[-1], InFP32)
    for other in found[:-1]:
        torch.testing.assert_close(other, found[-1], rtol=1e-5, atol=1e-5)


def test_it_names_its_kernel_and_the_processor() -> None:
    said = BACKENDS.pick("int8").describe()
    assert any(kernel.title in said for kernel in KERNELS)
    assert processor.name() in said


@pytest.mark.usefixtures("everything_is_large")
def test_a_trunk_that_computes_in_bfloat16_runs_as_well(vggt: VGGT) -> None:
    formats = uniform_assignment(find_layers(vggt), "int4_two_level_16")
    with prepared(vggt, formats) as ready, subject_of(vggt).computing_in(torch.bfloat16):
        reference = outputs(vggt)
        with ready.running():
            found = outputs(vggt)
    assert nmse(reference["depth"], found["depth"]) < 1e-2


def test_a_model_elsewhere_falls_back() -> None:
    model = nn.Sequential(nn.Linear(8, 4, device="meta"))
    ready = BACKENDS.pick("int8").prepare(ModuleSubject(model))
    assert ready.execution.fell_back == {"0": "the model is on meta, not on cpu"}


def test_what_each_backend_runs() -> None:
    runs = {key: backend.runs("int4_group_32", "linear") for key, backend in BACKENDS.items()}
    assert runs == {"reference": True, "int8": False, "cuda": False, "onnxruntime": True, "openvino": True}
    assert not BACKENDS["int8"].runs("int8_per_channel_sym", "attention_in")
    assert BACKENDS["int8"].runs("int3_two_level_16", "linear")


def test_the_reference_is_what_packed_layers_do_by_themselves() -> None:
    model = nn.Sequential(nn.Linear(8, 4))
    with torch.no_grad(), packed(model, {"0": "int4_group_32"}):
        ready = BACKENDS.pick("reference").prepare(ModuleSubject(model))
        exact = model(torch.ones(1, 8))
        with ready.running():
            assert model(torch.ones(1, 8)).equal(exact)
        assert isinstance(model[0].packed, PackedWeight)
        assert ready.execution.weight_bytes == model[0].packed.quantized.nbytes
    assert "exact" in ready.execution.kernels


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean int8"):
        BACKENDS.pick("int9")
    with pytest.raises(InputError, match="packed or int8"):
        Options("int4")


def test_layers_run_as_they_are_told(vggt: VGGT) -> None:
    """Small layers too; what a layer has no kernel for runs in floating point."""
    names = [layer.name for layer in find_layers(vggt) if layer.kind == "linear"]
    told = {name: EXECUTIONS[number % len(EXECUTIONS)] for number, name in enumerate(names)}
    formats = uniform_assignment(find_layers(vggt), "int4_two_level_16") | {names[2]: "fp16"}
    with prepared(vggt, formats, Options(executions=told)) as ready:
        reference = outputs(vggt)
        with ready.running():
            found = outputs(vggt)
    assert isinstance(ready, int8._Int8Prepared)
    for number, name in enumerate(names):
        runner = ready.runners[name]
        whole = told[name].startswith("int8") and number != 2
        assert isinstance(runner, Int8Runner) == whole
        if isinstance(runner, Int8Runner):
            assert (runner.loaded is not None) == (told[name] == "int8_resident")
        else:
            assert "the plan keeps it in" in ready.execution.fell_back[name]
    assert nmse(reference["depth"], found["depth"]) < 1e-2


def test_a_layer_that_is_told_to_stay_in_floating_point_may_have_any_format() -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 16))
    formats = {"0": "int4_two_level_64", "1": "int4_group_32"}
    with prepared(model, formats, Options(executions={"1": "fp32"})) as ready:
        assert ready.execution.fell_back["1"] == "the plan keeps it in fp32"


def test_what_a_checkpoint_says_of_a_layer_holds_unless_the_options_say_otherwise() -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 16))
    for name, layer in model.named_children():
        pack_layer(layer, quantize_layer(layer, "int4_two_level_16", name), execution="fp32")
    ready = BACKENDS["int8"].prepare(ModuleSubject(model.eval()), Options(executions={"1": "int8"}))
    assert ready.execution.layers == {"FP32": 1, "int8": 1}
    assert ready.execution.fell_back == {"0": "the plan keeps it in fp32"}


def test_an_unknown_execution_is_refused_by_its_layer() -> None:
    with pytest.raises(InputError, match="fc: int9 is no execution; use one of fp32, bfloat16, int8, int8_resident"):
        Options(executions={"fc": "int9"})
