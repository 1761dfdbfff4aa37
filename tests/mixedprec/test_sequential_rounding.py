"""Rounding for what the quantised layers before leave of the inputs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mixedprec.rounding import rounded_weights
from mixedprec.rounding_in_sequence import sequentially_rounded
from sensitivity.moments import UNREACHED, UNSEEN, ZEROS_OR_NOT_FINITE, input_moments
from sensitivity.paired_moments import Calls
from tests.sensitivity.conftest import build_scene
from vggtkit.core.journal import Parts
from vggtkit.quant import dequantize, dequantize_layer, find_layers, replaced_weights
from vggtkit.quant.rounding import ROUNDINGS, aimed_at_exact_outputs
from vggtkit.scenes import Scene
from vggtkit.subject import subject_of

KEY = "int3_group_32"


class Deep(nn.Module):
    """Four layers one behind the other, the third called twice, one that never runs, and one that is not seen."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(24, 24) for _ in range(4)])
        self.idle, self.attention = nn.Linear(24, 24), nn.MultiheadAttention(24, 2, batch_first=True)

    def forward(self, images: Tensor, _query: Tensor) -> dict[str, Tensor]:
        x = images.flatten(1).unfold(1, 24, 24)
        x = self.layers[1](torch.relu(self.layers[0](x)))
        x = self.layers[3](torch.relu(self.layers[2](torch.relu(self.layers[2](x)))))
        return {"out": x + self.attention(x, x, x)[0]}


def the_scenes(*seeds: int) -> list[Scene]:
    return [build_scene(seed) for seed in seeds]


def test_the_aim_is_the_ridge_solution_of_plain_numpy() -> None:
    generator = np.random.default_rng(0)
    x, weight = generator.standard_normal((50, 7)), generator.standard_normal((3, 7))
    y = x + 0.3 * generator.standard_normal((50, 7))
    own, cross = y.T @ y, x.T @ y
    ridge = 0.05 * np.mean(np.diag(own))
    # |x W^T - y V^T|^2 + ridge |V - W|^2 as one least-squares problem
    rows, wanted = np.vstack([y, np.sqrt(ridge) * np.eye(7)]), np.vstack([x @ weight.T, np.sqrt(ridge) * weight.T])
    expected = np.linalg.lstsq(rows, wanted, rcond=None)[0].T
    found = aimed_at_exact_outputs(*map(torch.from_numpy, (weight, own, cross)), damping=0.05)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    exact = aimed_at_exact_outputs(torch.from_numpy(weight), *[torch.from_numpy(x.T @ x)] * 2)
    np.testing.assert_allclose(exact, weight)  # the same inputs: nothing to make up for


def test_pairs_are_those_of_two_plain_passes() -> None:
    subject, scenes = subject_of(Deep().eval()), the_scenes(0, 1)
    calls = Calls(subject, subject.layers, scenes[0])
    assert calls.counts["layers.2"] == 2
    assert "idle" not in calls.counts
    other = {"layers.0": torch.zeros(24, 24)}
    own, cross = calls.moments(["layers.2"], scenes, other)["layers.2"]
    seen: list[Tensor] = []
    with subject.model.get_submodule("layers.2").register_forward_hook(lambda _m, args, _o: seen.append(args[0])):
        exact = [seen.pop(0) for scene in scenes for _ in subject.run(scene) for _ in range(2)]
        with replaced_weights(subject.model, other):
            given = [seen.pop(0) for scene in scenes for _ in subject.run(scene) for _ in range(2)]
    x, y = (torch.cat(rows).flatten(0, -2).double() for rows in (exact, given))
    torch.testing.assert_close(own[0].double(), y.T @ y, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(cross[0].double(), x.T @ y, rtol=1e-4, atol=1e-3)


def test_errors_of_layers_before_are_made_up_for() -> None:
    subject, calibration, others = subject_of(Deep().eval()), the_scenes(*range(6)), the_scenes(20, 21)
    formats = {layer.name: KEY for layer in subject.layers} | {"layers.1": "fp16"}
    done: list[int] = []
    sequential = sequentially_rounded(
        subject, formats, ROUNDINGS["sequential_gptq"], calibration, progress=lambda _s, number, _t: done.append(number)
    )
    assert done == list(range(1, len(formats) + 1))
    assert sequential.fell_back == {"idle": UNREACHED, "attention": UNSEEN, "attention.out_proj": UNSEEN}
    assert {name: q.format.key for name, q in sequential.weights.items()} == formats
    alone = rounded_weights(subject, formats, ROUNDINGS["gptq"], input_moments(subject, subject.layers, calibration))
    errors = []
    for rounded in (sequential, alone):
        weights = {
            name: dequantize_layer(q, subject.model.get_submodule(name))
            for name, q in rounded.weights.items()
            if name.startswith("layers")
        }
        exact = [subject.predict(scene)["out"] for scene in others]
        with replaced_weights(subject.model, weights):
            errors.append(
                sum(float((subject.predict(s)["out"] - e).square().sum()) for s, e in zip(others, exact, strict=True))
            )
    assert errors[0] < 0.9 * errors[1]
    first = sequential.weights["layers.0"], alone.weights["layers.0"]
    torch.testing.assert_close(dequantize(first[0]), dequantize(first[1]))  # nothing is quantised before it


class StoppedError(Exception):
    """Stands for a signal."""


@pytest.mark.parametrize("after", [2, 5])
def test_a_stopped_job_goes_on_with_the_next_layer_to_the_same_bits(after: int, tmp_path: Path) -> None:
    subject, scenes, path = subject_of(Deep().eval()), the_scenes(0, 1), tmp_path / "model-plan.safetensors"
    formats, rounding = {layer.name: KEY for layer in subject.layers}, ROUNDINGS["sequential_gptq"]
    expected = sequentially_rounded(subject, formats, rounding, scenes)

    def stop(_stage: str, done: int, _total: int) -> None:
        if done == after:
            raise StoppedError

    with pytest.raises(StoppedError):
        sequentially_rounded(subject, formats, rounding, scenes, parts=Parts(path, {}), progress=stop)
    parts, done = Parts(path, {}), list[int]()
    assert len(parts.done()) == after
    rounded = sequentially_rounded(
        subject, formats, rounding, scenes, parts=parts, progress=lambda _s, number, _t: done.append(number)
    )
    assert done == list(range(after + 1, len(formats) + 1))
    assert rounded.fell_back == expected.fell_back
    assert list(rounded.weights) == list(expected.weights)
    for name, q in expected.weights.items():
        assert all(tensor.equal(q.tensors()[part]) for part, tensor in rounded.weights[name].tensors().items())


def test_what_is_called_otherwise_once_quantised_is_rounded_to_the_nearest() -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.first, self.second = nn.Linear(24, 24), nn.Linear(24, 24)

        def forward(self, images: Tensor, _query: Tensor) -> dict[str, Tensor]:
            x = self.first(images.flatten(1).unfold(1, 24, 24))
            kept = x[:, x[0, :, 0] > x[0, :, 0].median()] if float(x.sum()) != self.exact else x
            return {"out": self.second(kept)}

    model, scene = Moody().eval(), build_scene(0)
    model.exact = 0.0
    with torch.no_grad():
        model.exact = float(model.first(scene.images.flatten(1).unfold(1, 24, 24)).sum())
    formats = {layer.name: KEY for layer in find_layers(model)}
    rounded = sequentially_rounded(model, formats, ROUNDINGS["sequential_gptq"], [scene])
    assert rounded.fell_back == {"second": ZEROS_OR_NOT_FINITE}
