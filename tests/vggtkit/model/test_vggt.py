"""The network against the published names, sizes and outputs, and against itself in other batches and chunks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.model import dpt_head
from vggtkit.model.config import VGGTConfig
from vggtkit.model.geometry import decode_pose, unproject
from vggtkit.model.loading import load_vggt
from vggtkit.model.vggt import VGGT

PARAMETERS = 1_256_537_516
OUTPUTS = (
    "pose_enc",
    "depth",
    "depth_conf",
    "world_points",
    "world_points_conf",
    "images",
    "track",
    "vis",
    "conf",
)
TRACKED = {"track", "vis", "conf"}


@pytest.fixture(scope="module")
def full_size() -> VGGT:
    """VGGT-1B in 0 bytes."""
    with torch.device("meta"):
        return VGGT(VGGTConfig())


def tensors_of(outputs: dict[str, Tensor | list[Tensor]]) -> dict[str, Tensor]:
    """The outputs as one flat dict, the lists of iterations included."""
    flat = {name: value for name, value in outputs.items() if isinstance(value, Tensor)}
    for name, value in outputs.items():
        if isinstance(value, list):
            flat |= {f"{name}.{i}": item for i, item in enumerate(value)}
    return flat


def random_input(batch: int, frames: int, points: int = 5, size: tuple[int, int] = (28, 42)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(batch, frames, 3, *size, generator=generator)
    return images, torch.rand(batch, points, 2, generator=generator) * torch.tensor([size[1] - 1, size[0] - 1])


def test_full_size_has_exactly_the_published_tensors(full_size: VGGT, shared_dir: Path) -> None:
    rows = (shared_dir / "fixtures/vggt_1b_tensors.tsv").read_text().splitlines()[1:]
    published = dict(row.split("\t", 1) for row in rows)
    ours = {name: ",".join(map(str, tensor.shape)) for name, tensor in full_size.state_dict().items()}
    assert len(published) == 1797
    assert ours == published


def test_full_size_has_the_published_number_of_parameters(full_size: VGGT) -> None:
    assert sum(parameter.numel() for parameter in full_size.parameters()) == PARAMETERS


def test_full_size_is_built_without_memory(full_size: VGGT) -> None:
    assert all(tensor.is_meta for tensor in [*full_size.parameters(), *full_size.buffers()])


def test_full_size_passes_the_published_resolution(full_size: VGGT) -> None:
    """Shapes only: on the meta device nothing is computed."""
    outputs = full_size(torch.empty(1, 2, 3, 350, 518, device="meta"), torch.empty(1, 3, 2, device="meta"))
    assert {name: tuple(outputs[name].shape) for name in OUTPUTS} == {
        "pose_enc": (1, 2, 9),
        "depth": (1, 2, 350, 518, 1),
        "depth_conf": (1, 2, 350, 518),
        "world_points": (1, 2, 350, 518, 3),
        "world_points_conf": (1, 2, 350, 518),
        "images": (1, 2, 3, 350, 518),
        "track": (1, 2, 3, 2),
        "vis": (1, 2, 3),
        "conf": (1, 2, 3),
    }


@pytest.fixture(scope="module")
def reference(shared_dir: Path) -> dict[str, Tensor]:
    """Inputs and outputs of the published implementation."""
    with np.load(shared_dir / "fixtures/vggt_small/reference.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.fixture(scope="module")
def reproduced(shared_dir: Path, reference: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same arrays by our code."""
    model = load_vggt(shared_dir / "fixtures/vggt_small")
    with torch.no_grad():
        found = tensors_of(model(reference["images"], reference["query_points"]))
    height, width = reference["images"].shape[-2:]
    extrinsics, intrinsics = decode_pose(found["pose_enc"], (height, width))
    points = unproject(found["depth"][0, ..., 0], extrinsics[0], intrinsics[0])
    return found | {"extrinsics": extrinsics, "intrinsics": intrinsics, "points_from_depth": points}


@pytest.mark.parametrize("name", sorted({*OUTPUTS, "extrinsics", "intrinsics", "points_from_depth"} - TRACKED))
def test_published_outputs_are_reproduced(
    name: str, reproduced: dict[str, Tensor], reference: dict[str, Tensor]
) -> None:
    found, published = reproduced[name], reference[name]
    assert found.shape == published.shape
    assert (found - published).abs().max() / published.abs().max() < 1e-4


@pytest.fixture(scope="module")
def rounded_otherwise(shared_dir: Path, reference: dict[str, Tensor]) -> dict[str, Tensor]:
    """What is tracked in four copies of the pictures that differ from them by roundings."""
    images = reference["images"].expand(4, -1, -1, -1, -1)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    model = load_vggt(shared_dir / "fixtures/vggt_small")
    with torch.no_grad():
        return tensors_of(model(images * (1 + 6e-8 * noise), reference["query_points"].expand(4, -1, -1)))


@pytest.mark.parametrize("name", sorted(TRACKED))
def test_published_tracks_are_reproduced_as_far_as_float32_tells_them(
    name: str, reproduced: dict[str, Tensor], reference: dict[str, Tensor], rounded_otherwise: dict[str, Tensor]
) -> None:
    """`test_track_head.py` says why a rounding matters, and compares the head itself to 1e-7."""
    found, published = reproduced[name], reference[name]
    assert found.shape == published.shape
    spread = (rounded_otherwise[name] - found).abs().max()
    assert (found - published).abs().max() < 2 * spread
    assert spread < 0.2 * published.abs().max()


def test_every_published_array_is_compared(reference: dict[str, Tensor]) -> None:
    compared = {*OUTPUTS, "extrinsics", "intrinsics", "points_from_depth", "query_points"}
    assert set(reference) == compared


def test_published_weights_survive_a_round_trip(shared_dir: Path) -> None:
    """The state dict of the loaded network is the file, name by name and bit by bit."""
    folder = shared_dir / "fixtures/vggt_small"
    ours, published = load_vggt(folder).state_dict(), load_file(folder / "model.safetensors")
    assert ours.keys() == published.keys()
    for name, tensor in published.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0)


@torch.no_grad()
def test_one_scene_needs_no_batch_axis(small_model: VGGT) -> None:
    images, points = random_input(1, 3)
    batched, single = tensors_of(small_model(images, points)), tensors_of(small_model(images[0], points[0]))
    assert batched.keys() == single.keys()
    for name, tensor in batched.items():
        torch.testing.assert_close(single[name], tensor, rtol=0, atol=0)


@torch.no_grad()
def test_scenes_of_a_batch_do_not_see_each_other(small_model: VGGT) -> None:
    images, points = random_input(2, 3)
    together = tensors_of(small_model(images, points))
    for index in range(2):
        alone = tensors_of(small_model(images[index], points[index]))
        for name, tensor in alone.items():
            torch.testing.assert_close(together[name][index], tensor[0], rtol=1e-4, atol=1e-5, msg=name)


@torch.no_grad()
@pytest.mark.parametrize("frames_at_once", [1, 3, 10])
def test_frames_in_chunks_equal_all_at_once(
    small_model: VGGT, monkeypatch: pytest.MonkeyPatch, frames_at_once: int
) -> None:
    """Ten frames are more than one chunk; the default, 8, leaves a ragged second one."""
    images, points = random_input(1, 10)
    default = tensors_of(small_model(images, points))
    monkeypatch.setattr(dpt_head, "FRAMES_AT_ONCE", frames_at_once)
    for name, tensor in tensors_of(small_model(images, points)).items():
        torch.testing.assert_close(tensor, default[name], rtol=1e-4, atol=1e-5, msg=name)


@torch.no_grad()
def test_other_frames_change_places_with_their_outputs(small_model: VGGT) -> None:
    """All frames but the first are a set: nothing tells their order."""
    images, _ = random_input(1, 4)
    order = [0, 3, 1, 2]
    straight, shuffled = small_model(images), small_model(images[:, order])
    for name in ("pose_enc", "depth", "world_points"):
        torch.testing.assert_close(shuffled[name], straight[name][:, order], rtol=1e-4, atol=1e-5, msg=name)


@torch.no_grad()
def test_without_query_points_there_are_no_tracks(small_model: VGGT) -> None:
    images, points = random_input(1, 2)
    tracks = {"track", "track_list", "vis", "conf"}
    assert small_model(images, points).keys() - small_model(images).keys() == tracks


@torch.no_grad()
def test_query_points_stay_where_they_are_in_the_first_frame(small_model: VGGT) -> None:
    images, points = random_input(1, 3)
    torch.testing.assert_close(small_model(images, points)["track"][:, 0], points)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 28, 28), r"\[B, S, 3, H, W\] or \[S, 3, H, W\], found \[3, 28, 28\]"),
        ((1, 2, 4, 28, 28), r"found \[1, 2, 4, 28, 28\]"),
        ((2, 28, 28, 3), r"found \[1, 2, 28, 28, 3\]"),
        ((1, 1, 2, 3, 28, 28), r"found \[1, 1, 2, 3, 28, 28\]"),
        ((2, 3, 30, 28), r"30x28, which is no multiple of the patch size 14"),
        ((2, 3, 28, 27), r"28x27, which is no multiple of the patch size 14"),
    ],
    ids=["three-axes", "four-channels", "channels-last", "six-axes", "height", "width"],
)
def test_wrong_shapes_are_refused(small_model: VGGT, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small_model(torch.zeros(shape))


def test_pictures_too_small_for_the_tracker_are_refused(small_config: VGGTConfig) -> None:
    """Three levels on maps of half the size need 8 pixels a side, at which it still runs."""
    model = VGGT(replace(small_config, patch_size=2, img_size=8, track_corr_levels=3)).eval()
    query = torch.zeros(1, 2)
    with torch.no_grad():
        assert model(torch.rand(1, 3, 8, 10), query)["track"].shape == (1, 1, 1, 2)
        assert "track" not in model(torch.rand(1, 3, 6, 10))
        with pytest.raises(InputError, match=r"images are 6x10, the tracker needs 8 pixels a side.*--resolution"):
            model(torch.rand(1, 3, 6, 10), query)


class TestWithHeads:
    """Another model with some of the heads, which shares all that it has."""

    HEADS = ("camera", "track")

    def test_the_original_keeps_its_heads_and_outputs(self, small_model: VGGT) -> None:
        images, points = random_input(1, 2)
        with torch.no_grad():
            before, config = tensors_of(small_model(images, points)), small_model.config
            some = tensors_of(small_model.with_heads(self.HEADS)(images, points))
            after = tensors_of(small_model(images, points))
        assert small_model.config is config
        assert before.keys() == after.keys()
        assert some.keys() == {n for n in before if not n.startswith(("depth", "world_points"))}
        for name, value in before.items():
            assert value.equal(after[name])
            assert name not in some or value.equal(some[name])

    def test_what_it_has_is_shared_not_copied(self, small_model: VGGT) -> None:
        some = small_model.with_heads(self.HEADS)
        assert type(some) is VGGT
        assert some.config == replace(small_model.config, heads=self.HEADS)
        assert [name for name, _ in some.named_children()] == ["aggregator", "camera_head", "track_head"]
        theirs = dict(small_model.named_parameters()) | dict(small_model.named_buffers())
        for name, tensor in (*some.named_parameters(), *some.named_buffers()):
            assert tensor is theirs[name]
        assert some.with_heads(["camera"]).config.heads == ("camera",)

    def test_hooks_and_submodules_of_one_are_not_those_of_the_other(self, small_model: VGGT) -> None:
        some = small_model.with_heads(self.HEADS)
        calls: list[str] = []
        some.register_forward_hook(lambda *_: calls.append("hook"))
        some.extra = torch.nn.Identity()
        some.trunk_dtype = torch.bfloat16
        with torch.no_grad():
            small_model(random_input(1, 1)[0])
        assert calls == []
        assert not hasattr(small_model, "extra")
        assert small_model.trunk_dtype == torch.float32

    def test_heads_that_are_not_there_are_refused(self, small_model: VGGT) -> None:
        some = small_model.with_heads(self.HEADS)
        with pytest.raises(InputError, match="the model has no depth head, only camera, track"):
            some.with_heads(["depth"])
        with pytest.raises(InputError, match="'deph' is none of camera, depth, point, track"):
            small_model.with_heads(["deph"])
