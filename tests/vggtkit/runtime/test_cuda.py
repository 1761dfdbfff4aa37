"""The backend ``cuda``: its arithmetic, which any device computes alike, and what it says where there is no GPU."""

import numpy as np
import pytest
import torch
from torch import nn

from cli import main
from mixedprec import packed
from vggtkit.core.errors import InputError
from vggtkit.runtime import cuda, int8
from vggtkit.runtime.backends import BACKENDS
from vggtkit.runtime.codes import Int8Weight
from vggtkit.runtime.cuda import Cuda, CudaIntMM
from vggtkit.subject import ModuleSubject

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch computes on")


@pytest.mark.parametrize("rows", [1, 16, 17, 40])
def test_products_are_numpys_whatever_the_number_of_rows(rows: int) -> None:
    """Powers of two, so that only the last sum is rounded; a GPU's product refuses fewer than 17 rows.

    Small enough for processors whose pairs of products stop at 16 bits.
    """
    generator = torch.Generator().manual_seed(rows)
    codes = torch.randint(-40, 41, (rows, 64), dtype=torch.int8, generator=generator)
    weight = torch.randint(-40, 41, (24, 64), dtype=torch.int8, generator=generator)
    scales, steps = 2.0 ** torch.arange(-12, 12), 2.0 ** torch.arange(rows)[:, None].remainder(5)
    bias = torch.randn(24, generator=generator)
    kernel = CudaIntMM()
    y = kernel.multiply(codes, steps, kernel.load(Int8Weight(weight, scales)), bias, torch.float32)
    whole = codes.numpy().astype(np.int64) @ weight.numpy().astype(np.int64).T
    exact = whole * scales.numpy().astype(np.float64) * steps.numpy() + bias.numpy()
    np.testing.assert_allclose(y.numpy(), exact, rtol=1e-6, atol=1e-6)


def test_layers_whose_sides_do_not_fit_are_computed_in_floating_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen as on a GPU, computed here."""
    for name in ("LARGE_WEIGHTS", "SMALL_MODEL"):
        monkeypatch.setattr(int8, name, 0)
    monkeypatch.setattr(Cuda, "device_type", "cpu")
    monkeypatch.setattr(Cuda, "kernels", (CudaIntMM(),))
    monkeypatch.setattr(Cuda, "missing", "")
    monkeypatch.setattr(Cuda, "machine", lambda _: "a stand-in")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 24), nn.Linear(24, 20)).eval()
    x = torch.randn(40, 64)
    with torch.no_grad(), packed(model, {"0": "int4_two_level_16", "1": "int8_per_channel_sym"}):
        exact = model(x)
        ready = Cuda().prepare(ModuleSubject(model))
        with ready.running():
            computed = model(x)
    assert ready.execution.layers["int8"] == 1
    assert list(ready.execution.fell_back) == ["1"]
    assert "cuBLASLt" in ready.execution.kernels
    assert "a stand-in" in ready.execution.kernels
    assert 0 < float((computed - exact).norm() / exact.norm()) < 0.02


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_refused_before_anything_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    backend = BACKENDS.pick("cuda")
    with pytest.raises(InputError, match="this machine lacks an NVIDIA GPU"):
        backend.check(ModuleSubject(nn.Sequential(nn.Linear(8, 8))))
    assert "lacks an NVIDIA GPU" in backend.describe()
    assert main(["evaluate", "--execute", "gpu"]) == 2
    assert "cuda" in capsys.readouterr().err


def test_a_model_on_the_processor_is_refused_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cuda, "missing", "")
    with pytest.raises(InputError, match="the model is on cpu"):
        Cuda().check(ModuleSubject(nn.Sequential(nn.Linear(8, 8))))


@needs_gpu
def test_on_a_gpu_a_layer_errs_by_what_rounding_its_input_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LARGE_WEIGHTS", "SMALL_MODEL"):
        monkeypatch.setattr(int8, name, 0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 512)).cuda().eval()
    x = torch.randn(300, 256, device="cuda")
    with torch.no_grad(), packed(model, {"0": "int8_per_channel_sym"}):
        exact, weight = model(x), model[0].packed()
        ready = cuda.Cuda().prepare(ModuleSubject(model))
        with ready.running():
            computed = model(x)
    bound = x.abs().amax(-1, keepdim=True) / 127 / 2 * weight.abs().sum(1)
    assert ready.execution.layers == {"int8": 1}
    assert bool(((computed - exact).abs() <= bound + 1e-4 * exact.abs().amax()).all())
