"""Relatives of VGGT by their descriptions: called as published, outputs by name, cameras as ours; on look-alikes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sensitivity import profile
from tests.vggtkit.subject.family import lookalikes
from tests.vggtkit.subject.family.lookalikes import SIDE, DepthAnything3Net, Pi3, StreamVGGT
from vggtkit.core.errors import InputError
from vggtkit.scenes import Scene, synthetic_scenes
from vggtkit.subject import ModuleSubject, subject_of
from vggtkit.subject.family import MemberSubject, described, descriptions


@pytest.fixture(scope="module")
def scene() -> Scene:
    return synthetic_scenes(1, 3, (SIDE, SIDE), seed=0, split="evaluation")[0]


@pytest.fixture
def models(scene: Scene) -> dict[str, nn.Module]:
    """By the keys of their descriptions; cameras and depth of the first two are the scene's own."""
    torch.manual_seed(0)
    truth = scene.truth
    assert truth is not None
    whole = torch.cat([truth.extrinsics, torch.tensor([0, 0, 0, 1.0]).expand(3, 1, 4)], 1)
    made: dict[str, nn.Module] = {
        "pi3": Pi3(torch.linalg.inv(whole)),
        "depth_anything_3": DepthAnything3Net(whole, truth.intrinsics, truth.depth),
        "vggt_omega": lookalikes.VGGTOmega(),
        "fastvggt": lookalikes.VGGT(),
        "streamvggt": StreamVGGT(),
    }
    return {key: model.eval() for key, model in made.items()}


def test_every_description_knows_its_network(models: dict[str, nn.Module]) -> None:
    assert {key: getattr(described(model), "key", None) for key, model in models.items()} == {
        key: key for key in models
    }
    assert sorted(models) == sorted(each.key for each in descriptions())
    assert all(isinstance(subject_of(model), MemberSubject) for model in models.values())


def test_a_class_of_the_same_name_elsewhere_is_any_module() -> None:
    class Pi3(nn.Linear):
        pass

    assert type(subject_of(Pi3(2, 2))) is ModuleSubject


PUBLISHED = {
    "pose_enc": (1, 3, 9), "depth": (1, 3, SIDE, SIDE, 1), "depth_conf": (1, 3, SIDE, SIDE),
    "world_points": (1, 3, SIDE, SIDE, 3), "world_points_conf": (1, 3, SIDE, SIDE),
}  # fmt: skip
OMEGA = {name: PUBLISHED[name] for name in ("pose_enc", "depth", "depth_conf")}
SHAPES = {
    "fastvggt": PUBLISHED,
    "streamvggt": PUBLISHED,
    "vggt_omega": OMEGA,
    "pi3": {
        "world_points": (1, 3, SIDE, SIDE, 3), "local_points": (1, 3, SIDE, SIDE, 3),
        "points_conf": (1, 3, SIDE, SIDE, 1), "camera_poses": (1, 3, 4, 4),
    },
    "depth_anything_3": {
        "depth": (1, 3, SIDE, SIDE, 1), "depth_conf": (1, 3, SIDE, SIDE), "extrinsics": (1, 3, 4, 4),
        "intrinsics": (1, 3, 3, 3),
    },
}  # fmt: skip


@pytest.mark.parametrize("key", SHAPES)
def test_outputs_have_our_names_and_the_published_shapes(key: str, models: dict[str, nn.Module], scene: Scene) -> None:
    outputs = subject_of(models[key]).run(scene)
    assert {name: tuple(value.shape) for name, value in outputs.items()} == SHAPES[key]


@pytest.mark.parametrize("key", ["pi3", "depth_anything_3"])
def test_true_cameras_are_found_right(key: str, models: dict[str, nn.Module], scene: Scene) -> None:
    """Camera to world and world to camera; a camera that is turned costs."""
    subject, model = subject_of(models[key]), models[key]
    figures = subject.figures(subject.predict(scene), scene)
    assert figures["auc30"] == pytest.approx(1.0)
    assert "agreement" not in figures
    if key == "depth_anything_3":
        assert figures["abs_rel"] < 1e-4
    cameras = model.cameras if key == "pi3" else model.extrinsics
    cameras[1, :3, :3] = cameras[1, :3, :3] @ torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert subject.figures(subject.predict(scene), scene)["auc30"] < 0.5


def test_views_are_put_back_together(models: dict[str, nn.Module], scene: Scene) -> None:
    """What a list of views gives is what the same weights give of a batch."""
    stream, whole = models["streamvggt"], models["fastvggt"]
    whole.load_state_dict(stream.state_dict())
    first, second = (subject_of(model).predict(scene) for model in (stream, whole))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name])


def test_pictures_are_normalised_where_the_network_does_not(models: dict[str, nn.Module], scene: Scene) -> None:
    seen: list[torch.Tensor] = []
    models["depth_anything_3"].register_forward_pre_hook(lambda _module, arguments: seen.append(arguments[0]))
    subject_of(models["depth_anything_3"]).predict(scene)
    mean, deviation = (np.array(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    np.testing.assert_allclose(seen[0][0].numpy(), (scene.images.numpy() - mean) / deviation, rtol=1e-5, atol=1e-5)


def test_roles_and_blocks_are_those_of_the_description(models: dict[str, nn.Module]) -> None:
    def roles(key: str) -> dict[str, str]:
        return {layer.name: layer.role for layer in subject_of(models[key]).layers}

    assert roles("pi3")["point_head.out"] == "point_head"
    assert roles("pi3")["conf_head.out"] == "conf_head"
    assert roles("pi3")["camera_head"] == "head"  # one of a name without parts
    assert roles("depth_anything_3")["head.out"] == "depth_head"
    blocks = {layer.name: layer.block for layer in subject_of(models["vggt_omega"]).layers}
    assert blocks["aggregator.inter_frame_blocks.1"] == "aggregator"
    assert subject_of(models["vggt_omega"]).picture_sizes == (512, 16)


def test_a_network_that_answers_otherwise_is_refused(models: dict[str, nn.Module], scene: Scene) -> None:
    model = models["pi3"]
    model.forward = lambda imgs: {"pts": imgs}  # type: ignore[method-assign, assignment]
    with pytest.raises(InputError, match=r"none of points, .* is among what it returns \(pts\)"):
        subject_of(model).run(scene)


@pytest.mark.parametrize("key", ["pi3", "streamvggt"])
def test_it_can_be_profiled(key: str, models: dict[str, nn.Module], scene: Scene, tmp_path: Path) -> None:
    schemes = ("int8_per_channel_sym", "int4_group_32")
    facts = {"model": key, "weights": "random", "scene_fingerprint": "0" * 16, "seed": 0}
    found = profile(
        models[key], [scene], tmp_path / "profile.h5", facts=facts, schemes=schemes, candidates=schemes, probes=2
    )
    assert set(found.damage) == set(SHAPES[key])
    assert (found.total_damage[:, 1] >= found.total_damage[:, 0]).mean() > 0.8
