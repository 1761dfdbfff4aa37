"""Rounding beside Gaussian noise of the same norm, on layers of which the answer is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from analysis.audit.rounding_or_bits import LayerNoise, attribution, beside_noise, rounding_or_bits_table
from analysis.inspection.layer import look_at
from analysis.inspection.report import inspection_tables
from sensitivity import Profile, profile
from sensitivity.input_rounding import InputErrors
from sensitivity.jacobian_sketch import sketch_changes
from sensitivity.jacobian_sketch import sketch_errors as sketch_all
from sensitivity.weight_errors import NOISE_DRAWS, WeightErrors
from tests.sensitivity.conftest import FACTS, build_scene
from vggtkit.subject import subject_of

KEY, DRAWS = "int4_group_128", 64


class Two(nn.Module):
    """Errors of one layer all have the same sign and meet inputs that are all alike; those of the other do not."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.coherent, self.plain = nn.Linear(64, 4, bias=False), nn.Linear(64, 64, bias=False)
        with torch.no_grad():
            self.coherent.weight.fill_(1.4)  # of a scale of 1: every error is -0.4
            self.coherent.weight[:, 0] = 7.0
            self.plain.weight.copy_(torch.randn(64, 64, generator=generator))

    def forward(self, images: Tensor, _query: Tensor) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1)
        alike = torch.ones(1, 5, 64)
        unlike = torch.randn(1, 200, 64, generator=generator)
        return {"alike": self.coherent(alike + 0 * images.mean()), "unlike": self.plain(unlike)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    path = Path(tmp_path_factory.mktemp("noise")) / "profile.h5"
    with pytest.MonkeyPatch.context() as patch:
        for module in ("weight_errors", "jacobian_sketch"):
            patch.setattr(f"sensitivity.{module}.NOISE_DRAWS", DRAWS)
        return profile(
            Two().eval(), [build_scene(seed) for seed in (0, 1)], path, facts=FACTS, schemes=["int8_per_channel_sym"],
            candidates=(KEY, "int8_per_channel_sym"), probes=128, activation_bytes=10_000, calibrates=True,
        )  # fmt: skip


def test_errors_that_point_where_it_hurts_do_more_than_noise(made: Profile) -> None:
    """All 63 errors of a row add up: 63 times what as large errors of chance signs do."""
    coherent, plain = beside_noise(made, KEY)
    assert coherent.damage / coherent.noise == pytest.approx(63, rel=0.25)  # the draws scatter by 9 %
    assert plain.damage / plain.noise == pytest.approx(1, rel=0.2)
    assert (coherent.it_is, plain.it_is) == ("rounding", "bits")
    assert coherent.left is not None
    assert coherent.left < 0.1
    assert plain.left is not None
    assert plain.left > 0.7


def test_noise_does_what_its_norm_and_the_gradients_say() -> None:
    """Against the closed form: the mean of (g . n)^2 over noise n of norm e is e^2 |g|^2 / weights."""
    subject, scene = subject_of(Two().eval()), build_scene(0)
    errors = WeightErrors(subject.model, subject.layers, [KEY, "fp16"])
    found = sketch_all(
        subject, subject.layers, errors, InputErrors(subject.model, subject.layers, ()), scene, probes=200
    )
    unlike = torch.randn(1, 200, 64, generator=torch.Generator().manual_seed(1))[0].double()
    weight = subject.model.get_submodule("plain").weight.detach().double()
    energy = float((unlike @ weight.T).square().sum())
    square = float(errors(subject.layers[1])[0].double().square().sum())
    # over probes, |g|^2 is 64 outputs x the squares of the inputs, over the output's energy
    expected = square / weight.numel() * 64 * float(unlike.square().sum()) / energy
    assert float(found.noise["unlike"][1, 0]) == pytest.approx(expected, rel=0.2)
    assert float(found.noise["alike"][1, 0]) == 0
    assert NOISE_DRAWS > 1
    again = sketch_changes(subject, subject.layers, errors, scene, probes=200)
    torch.testing.assert_close(again["unlike"], found.weights["unlike"])


def test_it_is_shown_for_a_layer_and_by_role(made: Profile) -> None:
    shown = inspection_tables(look_at(Two(), made, "coherent", KEY))
    table = next(table for table in shown if table.title == "Is it the rounding or the bits?")
    assert [row[-1] for row in table.rows] == ["rounding", "rounding"]
    rows = rounding_or_bits_table(beside_noise(made, KEY), KEY).rows
    assert [(row[1], row[-2], row[-1]) for row in rows] == [("2", "1", "1")]


def test_profiles_without_it_show_nothing(made: Profile) -> None:
    before = replace(made, noise={}, roundings={})
    assert beside_noise(before, KEY) == []
    assert beside_noise(made, "int2_group_32") == []
    titles = [table.title for table in inspection_tables(look_at(Two(), before, "plain", KEY))]
    assert "Is it the rounding or the bits?" not in titles
    without = rounding_or_bits_table([LayerNoise("a", "mlp", 0.0, 0.0, None, attribution(0.0, 0.0, None))], KEY)
    assert without.rows[0][2:] == ("n/a", "n/a", "n/a", "n/a", "0", "0")
    assert np.isfinite(made.total_damage).all()
