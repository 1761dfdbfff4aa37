"""The backend ``openvino``: passes that OpenVINO computes in the place of the model's own."""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from mixedprec import packed, uniform_assignment
from tests.random_vggt import random_vggt
from vggtkit.core.errors import InputError
from vggtkit.metrics.tensors import nmse
from vggtkit.model import VGGT
from vggtkit.model.config import VGGTConfig
from vggtkit.quant import find_layers
from vggtkit.runtime.backend import Options, Prepared
from vggtkit.runtime.backends import BACKENDS
from vggtkit.runtime.openvino.compiled import floats
from vggtkit.runtime.processor import missing_for_int8
from vggtkit.subject import ModuleSubject, subject_of

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
needs_integers = pytest.mark.skipif(bool(missing_for_int8()), reason=f"this processor has no {missing_for_int8()}")
FEW_OUTPUTS = "its outputs are too few to gain from INT8"


class Run(NamedTuple):
    """A packed model, prepared, and its passes: in torch, by OpenVINO, once more, and in torch again."""

    model: VGGT
    images: Tensor
    prepared: Prepared
    passes: tuple[dict[str, Tensor], ...]


@pytest.fixture(scope="module")
def run(tiniest_config: VGGTConfig) -> Iterator[Run]:
    """Cameras alone, which takes seconds; the first layer is in a format that is not INT8 per channel."""
    model = random_vggt(tiniest_config).with_heads(["camera"])
    names = [layer.name for layer in find_layers(model)]
    formats = uniform_assignment(find_layers(model), "int4_two_level_16") | {names[1]: "int4_group_32"}
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), packed(model, formats):
        prepared = BACKENDS.pick("openvino").prepare(subject_of(model), Options(executions={names[2]: "bfloat16"}))
        expected = model(images)
        with prepared.running():
            found, again = model(images), model(images)
        yield Run(model, images, prepared, (expected, found, again, model(images)))


@needs_openvino
def test_a_plan_runs_as_openvino_computes_it(run: Run) -> None:
    expected, found, again, after = (each["pose_enc"] for each in run.passes)
    assert found.shape == expected.shape
    assert 0 < nmse(expected, found) < 1e-2
    assert found.equal(again)
    assert after.equal(expected)
    assert not run.prepared.has_stages
    assert run.prepared.writes_files


@needs_openvino
@needs_integers
def test_what_does_not_run_in_whole_numbers_is_named(run: Run) -> None:
    layers, execution = find_layers(run.model), run.prepared.execution
    others = {
        layers[1].name: "int4_group_32 is not INT8 per channel", layers[2].name: "the plan keeps it in bfloat16",
    } | {layer.name: FEW_OUTPUTS for layer in layers if layer.shape[0] < 16}  # fmt: skip
    assert execution.fell_back == others
    assert execution.layers == {"INT8": len(layers) - len(others), floats(): len(others)}
    # weights in two levels of scales stay in 8 bits whatever they are multiplied with
    width = {"bfloat16": 2, "FP32": 4}[floats()]
    sizes = [la.weights * width if la is layers[1] else la.weights + 4 * la.shape[0] for la in layers]
    assert execution.weight_bytes == sum(sizes)
    assert "OpenVINO" in execution.kernels


@pytest.mark.slow
@needs_openvino
@needs_integers
def test_scales_of_activations_are_of_the_first_pictures(run: Run) -> None:
    with torch.no_grad(), BACKENDS.pick("openvino").prepare(subject_of(run.model)).running():
        run.model(run.images / 2)
        found = run.model(run.images)["pose_enc"]
    assert not found.equal(run.passes[1]["pose_enc"])


@needs_openvino
def test_without_integer_products_all_layers_are_in_floating_point(
    tiniest_config: VGGTConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("backend", "weights"):
        monkeypatch.setattr(f"vggtkit.runtime.openvino.{module}.missing_for_int8", lambda: "AVX512-VNNI or AMX")
    model = random_vggt(tiniest_config).with_heads(["camera"])
    with torch.no_grad(), packed(model, uniform_assignment(find_layers(model), "int8_per_channel_sym")):
        execution = BACKENDS.pick("openvino").prepare(subject_of(model)).execution
    assert execution.layers == {floats(): len(find_layers(model))}
    assert set(execution.fell_back.values()) == {"this processor has no AVX512-VNNI or AMX"}
    assert "INT8" not in execution.kernels
    assert f"everything in {floats()}" in execution.kernels


@pytest.mark.usefixtures("spoken_in_options")
def test_what_it_cannot_run_is_refused_in_one_line(tiniest_config: VGGTConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = BACKENDS.pick("openvino")
    if find_spec("openvino") is not None:
        other = ModuleSubject(torch.nn.Sequential(torch.nn.Linear(2, 2)).eval())
        with pytest.raises(InputError, match="--execute openvino: only a VGGT"):
            backend.check(other)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert backend.missing == "openvino"
    with pytest.raises(InputError, match=r"openvino is not installed: .*\[openvino\]"):
        backend.prepare(subject_of(random_vggt(tiniest_config)))
