"""What is folded lowers the damage that inputs of whole numbers do, as measured; and a sound network is left alone."""

import torch
from torch import nn

from sensitivity.input_rounding import rounded_inputs
from sensitivity.migration import choose_folding, input_peaks
from sensitivity.route import nmse_by_output
from tests.random_vggt import random_vggt
from vggtkit.model.config import VGGTConfig
from vggtkit.model.folding import fold, norm_linear_pairs, outlier_twin
from vggtkit.quant import replaced_weights, simulate
from vggtkit.scenes import Scene
from vggtkit.subject import ModuleSubject, Subject, subject_of

SEEN = ("pose_enc", "depth", "world_points")


def scene_of(seed: int) -> Scene:
    generator = torch.Generator().manual_seed(seed)
    return Scene(f"s{seed}", torch.rand(2, 3, 32, 32, generator=generator), 31 * torch.rand(3, 2, generator=generator))


def measured(subject: Subject, scene: Scene) -> float:
    """NMSE with 8-bit inputs and 4-bit weights of all layers behind norms, by running it."""
    names = [pair.linear for pair in norm_linear_pairs(subject.model)]
    weights = {name: simulate(subject.model.get_submodule(name).weight, "int4_two_level_64") for name in names}
    reference = subject.predict(scene)
    with rounded_inputs(subject.model, dict.fromkeys(names, "int8_token")), replaced_weights(subject.model, weights):
        errors = nmse_by_output(reference, subject.predict(scene))
    return sum(errors[name] for name in SEEN)


def test_outliers_are_folded_away(tiniest_config: VGGTConfig) -> None:
    """On a scene that did not decide it; the network itself stays what it was, bit for bit."""
    plain = subject_of(random_vggt(tiniest_config))
    twin = subject_of(outlier_twin(plain.model, share=16, factor=100.0))
    outliers = measured(twin, scene_of(9))
    assert outliers > 5 * measured(plain, scene_of(9))
    folding = choose_folding(twin, [scene_of(0), scene_of(1)], probes=4)
    assert folding.after < 0.5 * folding.before
    before = twin.predict(scene_of(9))
    fold(twin.model, folding.exponents)
    assert all(value.equal(before[name]) for name, value in twin.predict(scene_of(9)).items())
    assert measured(twin, scene_of(9)) < 0.4 * outliers


def test_peaks_are_the_largest_values_of_channels() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    scenes = [Scene(str(n), torch.zeros(0), torch.zeros(0), inputs=(torch.randn(2, 5, 3),)) for n in range(2)]
    found = input_peaks(ModuleSubject(model), ["0", "1"], scenes)
    x = torch.cat([scene.inputs[0] for scene in scenes])
    torch.testing.assert_close(found["0"], x.abs().amax((0, 1)))
    torch.testing.assert_close(found["1"], model[0](x).detach().abs().amax((0, 1)))


def test_a_model_without_such_norms_is_left_alone() -> None:
    subject = ModuleSubject(nn.Sequential(nn.Linear(3, 4)))
    scene = Scene("s", torch.zeros(0), torch.zeros(0), inputs=(torch.zeros(2, 3),))
    assert choose_folding(subject, [scene]).exponents == {}
