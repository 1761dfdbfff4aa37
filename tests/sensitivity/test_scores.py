"""Cheap scores against closed forms."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sensitivity import Profile
from sensitivity.damage import pair_damage
from sensitivity.jacobian_sketch import sketch_damage
from sensitivity.scores import SCORES, ScoringContext, register
from sensitivity.scores.fisher import DRAWS, SignedErrors
from sensitivity.weight_errors import WeightErrors
from vggtkit.model import VGGT
from vggtkit.quant import dequantize_layer, find_layers, quantize_layer
from vggtkit.scenes import Scene
from vggtkit.subject import subject_of

MakeScene = Callable[..., Scene]


@pytest.fixture
def context(small_profile: Profile, small_model: VGGT, make_scene: MakeScene) -> ScoringContext:
    return ScoringContext(small_profile, subject_of(small_model), [make_scene(0), make_scene(1)], probes=1, seed=0)


def test_every_score_is_given_for_all_outputs_layers_and_formats(context: ScoringContext) -> None:
    assert len(SCORES) == 12
    for key, score in SCORES.items():
        values = score.compute(context)
        assert values.keys() == context.sketched.keys(), key
        for found in values.values():
            assert found.shape == (len(context.layers), len(context.schemes)), key
            assert np.isfinite(found).any()
            assert np.nanmin(found) >= -1e-12
    assert SCORES["weight_error"].passes(context) == 0
    assert SCORES["isolated_mae"].passes(context) == 2 * 8
    assert SCORES["sketch"].passes(context) == 2 + 2 * (2 * 1 * 8)  # two scenes, one probe of eight outputs


def test_weight_error_is_that_of_the_weight(context: ScoringContext) -> None:
    found = SCORES["weight_error"].compute(context)["depth"]
    for row, layer in list(enumerate(context.layers))[::9]:
        module = context.subject.model.get_submodule(layer.name)
        weight = module.weight.detach().double().numpy()
        for column, scheme in enumerate(context.schemes):
            stored = dequantize_layer(quantize_layer(module, scheme), module).double().numpy()
            expected = ((stored - weight) ** 2).sum() / (weight**2).sum()
            assert found[row, column] == pytest.approx(expected, rel=1e-4)


def test_similarities_count_as_their_distance_from_one(context: ScoringContext) -> None:
    stored = context.profile.scores["isolated"]
    np.testing.assert_array_equal(SCORES["isolated_cosine"].compute(context)["vis"], 1 - stored["cosine"])
    np.testing.assert_array_equal(SCORES["isolated_mae"].compute(context)["vis"], stored["mae"])


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.last = nn.Linear(32, 8), nn.Linear(8, 6)

    def forward(self, images: Tensor, _query: Tensor) -> dict[str, Tensor]:
        return {"depth": self.last(self.first(images.to(self.first.weight).flatten(2, 3)).tanh())}


def test_fisher_is_the_diagonal_of_the_exact_jacobian(make_scene: MakeScene) -> None:
    """Relative deviation over P probes and D draws of signs is about sqrt(2 / P); 0.06 here."""
    model, scene, schemes = Toy().double(), make_scene(frames=1), ("int4_group_32", "int8_per_tensor_sym")
    layers = find_layers(model)
    errors = WeightErrors(model, layers, schemes)
    sketched = sketch_damage(subject_of(model), layers, SignedErrors(errors, seed=0), scene, probes=500)["depth"]
    found = sketched.unflatten(1, (DRAWS, -1)).mean(1)
    for row, layer in enumerate(layers):
        weight = model.get_submodule(layer.name).weight

        def outputs(changed: Tensor, name: str = layer.name) -> Tensor:
            arguments = (scene.images[None], scene.query_points)
            return torch.func.functional_call(model, {f"{name}.weight": changed}, arguments)["depth"]

        jacobian = torch.autograd.functional.jacobian(outputs, weight).flatten(0, -3).flatten(1)
        energy = outputs(weight).square().sum()
        for column in range(len(schemes)):
            expected = (jacobian.square() * errors(layer)[column].square()).sum() / energy
            assert found[row, column].item() == pytest.approx(expected.item(), rel=0.3)


def test_signs_do_not_depend_on_the_order_in_which_layers_are_met() -> None:
    model = Toy()
    first, last = find_layers(model)
    errors = WeightErrors(model, (first, last), ("int4_group_32",))
    one, other = SignedErrors(errors, seed=3), SignedErrors(errors, seed=3)
    forwards, backwards = [one(first), one(last), one(first)], [other(last), other(first), other(first)]
    assert forwards[0].equal(backwards[1])
    assert forwards[1].equal(backwards[0])
    assert forwards[2].equal(backwards[2])
    assert not forwards[0].equal(forwards[2])


def test_the_response_is_closer_to_the_truth_than_the_sketch(context: ScoringContext) -> None:
    pairs = [(context.layers[row], context.schemes[column]) for row in range(0, 60, 7) for column in (0, 4)]
    places = [(row, column) for row in range(0, 60, 7) for column in (0, 4)]
    true = pair_damage(context.subject, pairs, context.scenes[0])["depth"]
    reached = true > 0
    ratios = {}
    for key in ("sketch", "response"):
        values = SCORES[key].compute(context)["depth"]
        ratios[key] = np.array([values[place] for place in places])[reached] / true[reached]
    assert abs(np.log(np.median(ratios["response"]))) < 0.7
    assert np.median(np.abs(np.log(ratios["response"]))) <= np.median(np.abs(np.log(ratios["sketch"]))) + 0.1


def test_a_key_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'sketch' is registered already"):
        register(SCORES["sketch"])
