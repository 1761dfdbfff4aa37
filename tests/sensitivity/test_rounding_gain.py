"""What calibrated rounding leaves of the layers' errors, and how a profile holds it."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sensitivity import open_profile, profile
from sensitivity.hdf5 import DIGEST, content_digest
from sensitivity.moments import input_moments
from sensitivity.rounding_gain import rounding_gain
from tests.sensitivity.conftest import FACTS, MakeScene
from vggtkit.core.errors import InputError
from vggtkit.quant import dequantize, quantize
from vggtkit.quant.rounding import ROUNDINGS
from vggtkit.quant.rounding.error_ratio import error_ratios
from vggtkit.subject import subject_of

KEYS = ("int4_group_32", "fp16")


class Three(nn.Module):
    """A layer, one whose inputs are zeros, and one that is not seen when it runs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.seen, self.dead = nn.Linear(12, 8), nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, images: Tensor, _query: Tensor) -> dict[str, Tensor]:
        x = self.seen(images.flatten(1).unfold(1, 12, 12))
        return {"out": self.attention(x, x, x)[0] + self.dead(torch.zeros_like(x))}


def test_layers_that_cannot_be_calibrated_have_none(make_scene: MakeScene) -> None:
    subject, scenes = subject_of(Three().eval()), [make_scene(0)]
    gain = rounding_gain(subject, subject.layers, scenes, KEYS)["gptq"]
    names = [layer.name for layer in subject.layers]
    assert names == ["seen", "dead", "attention", "attention.out_proj"]
    moments = input_moments(subject, subject.layers, scenes).get("seen")
    assert moments is not None
    np.testing.assert_array_equal(gain[0], error_ratios(subject.model.seen.weight, KEYS, moments))  # type: ignore[arg-type,union-attr]
    assert gain[0, 0] < 0.9
    assert np.isnan(gain[1:, 0]).all()
    np.testing.assert_array_equal(gain[:, 1], 1.0)


def test_codes_are_judged_on_scenes_that_they_were_not_chosen_by(make_scene: MakeScene) -> None:
    """Of three scenes by the first and the last, on the second, as GPTQ on the whole weight and numpy have it."""
    subject, scenes = subject_of(Three().eval()), [make_scene(number) for number in range(3)]
    gain = rounding_gain(subject, subject.layers, scenes, KEYS)["gptq"]
    rows = [scene.images.flatten(1).unfold(1, 12, 12).flatten(0, 1).double().numpy() for scene in scenes]
    weight = subject.model.seen.weight.detach()  # type: ignore[union-attr]
    moments = torch.from_numpy(rows[0].T @ rows[0] + rows[2].T @ rows[2]).float()[None]
    left, nearest = (
        np.square(rows[1] @ (dequantize(q) - weight).double().numpy().T).sum()
        for q in (ROUNDINGS["gptq"].round(weight, KEYS[0], moments), quantize(weight, KEYS[0]))  # type: ignore[arg-type]
    )
    assert gain[0, 0] == pytest.approx(left / nearest, rel=1e-3)
    by_itself = rounding_gain(subject, subject.layers, scenes[:1], KEYS)["gptq"]
    assert by_itself[0, 0] < gain[0, 0]


def test_without_memory_for_it_there_is_none_and_that_is_said(
    make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    subject, said = subject_of(Three().eval()), list[str]()
    monkeypatch.setattr("sensitivity.moments.free_bytes", lambda _: 10)
    made = profile(
        subject, [make_scene(0)], tmp_path / "profile.h5", facts=FACTS, schemes=["int8_per_channel_sym"],
        candidates=KEYS, probes=1, activation_bytes=10_000, calibrates=True, say=said.append,
    )  # fmt: skip
    assert made.roundings == {}
    assert any("not scored" in line for line in said)


def test_a_profile_keeps_it_and_one_without_is_still_read(make_scene: MakeScene, tmp_path: Path) -> None:
    subject, scenes, path = subject_of(Three().eval()), [make_scene(0)], tmp_path / "profile.h5"
    steps: list[str] = []
    made = profile(
        subject, scenes, path, facts=FACTS, schemes=["int8_per_channel_sym"], candidates=KEYS, probes=1,
        activation_bytes=10_000, calibrates=True, progress=lambda stage, *_: steps.append(stage),
    )  # fmt: skip
    expected = rounding_gain(subject, subject.layers, scenes, KEYS)["gptq"]
    np.testing.assert_array_equal(made.roundings["gptq"], expected)
    assert "what calibrated rounding leaves of every layer's error" in steps
    with h5py.File(path, "a") as file:
        file["roundings/gptq"][0, 0] = -1
        file.attrs[DIGEST] = content_digest(file)
    with pytest.raises(InputError, match="negative"):
        open_profile(path)
    with h5py.File(path, "a") as file:
        del file["roundings"]
        file.attrs[DIGEST] = content_digest(file)
    assert open_profile(path).roundings == {}
