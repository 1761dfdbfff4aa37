"""What backward passes compute in: bfloat16 where that was measured to be faster and the model runs in it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sensitivity import gradient_precision
from sensitivity.gradient_precision import gradient_dtype
from tests.sensitivity.profiling import profiled
from vggtkit.scenes import Scene

CPU, LARGE = torch.device("cpu"), 10**9


class Turned(nn.Module):
    """Rotations and how far they turn: torch has no determinants in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 4 * 4, 18)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures ``[S, 3, 4, 4]`` to ``[S, 2]``."""
        return torch.linalg.det(self.layer(images.flatten(1)).view(-1, 2, 3, 3))


@pytest.mark.parametrize(("gain", "expected"), [(2.3, torch.bfloat16), (1.1, torch.float32), (0.0, torch.float32)])
def test_large_networks_take_bfloat16_where_it_was_measured_to_gain(
    monkeypatch: pytest.MonkeyPatch, gain: float, expected: torch.dtype
) -> None:
    monkeypatch.setattr(gradient_precision, "bfloat16_gain", lambda _threads: gain)
    assert gradient_dtype(torch.float32, CPU, LARGE) == expected


def test_others_stay_as_they_are_and_half_precision_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_precision, "bfloat16_gain", lambda _threads: 9.0)
    assert gradient_dtype(torch.float32, CPU, 10**6) == torch.float32
    assert gradient_dtype(torch.bfloat16, torch.device("cuda"), LARGE) == torch.bfloat16
    assert gradient_dtype(torch.float16, torch.device("cuda"), LARGE) == torch.float32


def test_a_model_that_does_not_run_in_bfloat16_has_its_gradients_in_fp32(tmp_path: Path) -> None:
    torch.manual_seed(0)
    scene, model, said = Scene("one", torch.rand(5, 3, 4, 4), torch.zeros(1, 2)), Turned().eval(), []
    tried = profiled(model, [scene], tmp_path / "a.h5", gradient_dtype=torch.bfloat16, say=said.append)
    plain = profiled(model, [scene], tmp_path / "b.h5")
    assert tried.facts["gradient_dtype"] == plain.facts["gradient_dtype"] == "torch.float32"
    assert [line for line in said if "not run in torch.bfloat16" in line]
    for name, values in plain.changes.items():
        np.testing.assert_array_equal(tried.changes[name], values)
