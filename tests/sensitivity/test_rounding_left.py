"""What a rounding leaves of every layer's damage, against gradients by autograd."""

import pytest
import torch

from sensitivity.rounding_left import damage_left
from tests.sensitivity.conftest import build_scene
from tests.sensitivity.test_output_factors import PROBES, SEED, Some, by_autograd
from vggtkit.core.errors import InputError
from vggtkit.quant import dequantize, out_first, quantize, weight_of
from vggtkit.subject import subject_of

KEY = "int3_group_32"
SHARES = {"one": 0.75, "other": 0.25}


def test_it_is_the_mean_square_of_what_the_errors_change_along_gradients() -> None:
    subject, scenes = subject_of(Some().eval()), [build_scene(seed) for seed in (0, 1)]
    exact = {layer.name: out_first(weight_of(subject.model, layer), layer.kind).detach() for layer in subject.layers}
    rounded = {name: quantize(weight, KEY) for name, weight in exact.items()}
    left = damage_left(subject, subject.layers, scenes, rounded, SHARES, probes=PROBES, seed=SEED)
    gradients = by_autograd(subject, scenes, SHARES)
    assert sorted(left) == sorted(name for name, own in gradients.items() if own)
    for name, damage in left.items():
        error = (dequantize(rounded[name]) - exact[name]).flatten(1).double()
        along = [float((gradient * error).sum()) for gradient in gradients[name]]
        assert len(along) == PROBES * len(scenes)
        assert damage == pytest.approx(sum(value**2 for value in along) / len(along), rel=1e-4)


def test_only_what_was_rounded_is_asked_for_and_the_model_stays() -> None:
    subject = subject_of(Some().eval())
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    some = {"twice": quantize(subject.model.get_submodule("twice").weight.detach(), KEY)}
    assert list(damage_left(subject, subject.layers, [build_scene(0)], some, SHARES)) == ["twice"]
    assert all(torch.equal(value, before[name]) for name, value in subject.model.state_dict().items())


def test_gradients_that_do_not_fit_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of(Some().eval())
    rounded = {"twice": quantize(subject.model.get_submodule("twice").weight.detach(), KEY)}
    monkeypatch.setattr("sensitivity.output_factors.free_bytes", lambda _device: 1000)
    with pytest.raises(InputError, match="output_descent"):
        damage_left(subject, subject.layers, [build_scene(0)], rounded, SHARES)
