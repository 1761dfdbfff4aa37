"""The whole profile against plain runs of the model, one scheme at a time."""

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torch import Tensor

from sensitivity import Profile
from sensitivity.jacobian_sketch import RecordedForward, Sketch
from sensitivity.recorder import TOKENS_PER_LAYER, SceneRecorder, as_maps, choose_channels, plan_sampling
from sensitivity.survey import LayerVolume, as_tokens
from tests.sensitivity.profiling import SCHEMES, profiled
from vggtkit.core.errors import InputError
from vggtkit.model import VGGT
from vggtkit.quant import (
    UNIFORM_SCHEMES,
    Layer,
    candidates,
    dequantize_layer,
    find_layers,
    quantize_layer,
    replaced_weights,
)
from vggtkit.scenes import Scene
from vggtkit.subject import TokenGrid, subject_of

MakeScene = Callable[..., Scene]
# Not the tracker's: its sines of 1000 times a coordinate make float32 rounding visible.
WATCHED = (
    "aggregator.patch_embed.patch_embed.proj",
    "aggregator.frame_blocks.1.attn.qkv",
    "aggregator.global_blocks.1.mlp.fc2",
    "camera_head.embed_pose",
    "camera_head.pose_branch.fc1",
    "depth_head.resize_layers.0",
    "depth_head.scratch.output_conv2.2",
    "track_head.feature_extractor.scratch.refinenet1.out_conv",
)


def weights_under(model: VGGT, scheme: str) -> dict[str, Tensor]:
    modules = {layer.name: model.get_submodule(layer.name) for layer in find_layers(model)}
    return {name: dequantize_layer(quantize_layer(module, scheme), module) for name, module in modules.items()}


@torch.no_grad()
def plain_run(model: VGGT, scene: Scene, scheme: str | None) -> tuple[dict[str, list[Any]], dict[str, Tensor]]:
    """Input and output of every call of the watched layers, and the outputs, of one ordinary run."""
    calls: dict[str, list[Any]] = {name: [] for name in WATCHED}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _module, inputs, output, into=into: into.append((inputs[0], output))
        )
        for name, into in calls.items()
    ]
    with replaced_weights(model, weights_under(model, scheme) if scheme else {}):
        outputs = subject_of(model).run(scene)
    for handle in handles:
        handle.remove()
    return calls, outputs


def concatenated(runs: list[dict[str, list[Any]]], name: str) -> NDArray[np.float64]:
    return np.concatenate([output.detach().double().numpy().ravel() for calls in runs for _, output in calls[name]])


@pytest.fixture(scope="module")
def layers(small_profile: Profile) -> dict[str, int]:
    return {layer.name: row for row, layer in enumerate(small_profile.layers)}


def assert_scores(found: Any, row: int, column: int, reference: Any, candidate: Any) -> None:
    error = candidate - reference
    norms = np.linalg.norm(reference) * np.linalg.norm(candidate)
    expected = {
        "mae": np.abs(error).mean(),
        "nmse": (error**2).sum() / (reference**2).sum(),
        "cosine": reference @ candidate / norms,
    }
    for metric, value in expected.items():
        np.testing.assert_allclose(found[metric][row, column], value, rtol=2e-3, err_msg=metric)


def test_accumulated_scores_equal_metrics_on_everything_together(
    small_model: VGGT, make_scene: MakeScene, small_profile: Profile, layers: dict[str, int]
) -> None:
    """All calls of both scenes concatenated, by numpy; and the damage of the outputs beside."""
    scenes = [make_scene(seed) for seed in (0, 1)]
    clean = [plain_run(small_model, scene, None) for scene in scenes]
    for column, scheme in enumerate(small_profile.schemes):
        if scheme not in SCHEMES:
            continue
        runs = [plain_run(small_model, scene, scheme) for scene in scenes]
        for name in WATCHED:
            reference, candidate = (concatenated([calls for calls, _ in each], name) for each in (clean, runs))
            assert_scores(small_profile.scores["accumulated"], layers[name], column, reference, candidate)
        for output in ("pose_enc", "depth", "world_points_conf"):
            errors = [
                ((found[output] - expected[output]).norm() / expected[output].norm()).square().item()
                for (_, found), (_, expected) in zip(runs, clean, strict=True)
            ]
            np.testing.assert_allclose(small_profile.uniform[output][column], np.mean(errors), rtol=2e-3)


def test_isolated_scores_come_from_clean_inputs(
    small_model: VGGT, make_scene: MakeScene, small_profile: Profile, layers: dict[str, int]
) -> None:
    clean = [plain_run(small_model, make_scene(seed), None)[0] for seed in (0, 1)]
    for scheme in SCHEMES:
        weights, column = weights_under(small_model, scheme), small_profile.schemes.index(scheme)
        for name in WATCHED[1:5]:
            bias = small_model.get_submodule(name).bias.detach()
            alone = [{name: [(x, F.linear(x, weights[name], bias)) for x, _ in calls[name]]} for calls in clean]
            reference, candidate = concatenated(clean, name), concatenated(alone, name)
            assert_scores(small_profile.scores["isolated"], layers[name], column, reference, candidate)
    assert any(
        not np.allclose(small_profile.scores["isolated"][metric], small_profile.scores["accumulated"][metric])
        for metric in ("mae", "cosine", "nmse")
    )


def test_ssim_is_the_mean_over_all_maps_of_all_scenes(
    small_model: VGGT, make_scene: MakeScene, small_profile: Profile, layers: dict[str, int]
) -> None:
    """scikit-image, map by map, each with its own range; the window of 11 fits the maps of 32 x 32."""
    name, scheme = "depth_head.scratch.output_conv2.2", "int4_group_32"
    values = []
    for seed in (0, 1):
        clean, under = (plain_run(small_model, make_scene(seed), key)[0][name] for key in (None, scheme))
        for (_, expected), (_, found) in zip(clean, under, strict=True):
            for r, c in zip(expected.flatten(0, 1).double().numpy(), found.flatten(0, 1).double().numpy(), strict=True):
                _, picture = structural_similarity(
                    r, c, data_range=np.ptp(r), gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
                )
                values.append(picture[5:-5, 5:-5].mean())
    found = small_profile.scores["accumulated"]["ssim"][layers[name], small_profile.schemes.index(scheme)]
    np.testing.assert_allclose(found, np.mean(values), atol=2e-4)
    for kind in ("accumulated", "isolated"):
        ssim = small_profile.scores[kind]["ssim"]
        for name, row in layers.items():
            pictured = name.startswith("aggregator") or small_profile.layers[row].kind.startswith("conv")
            # The coarsest maps of the heads are 2 x 2, too small for any window.
            assert np.isnan(ssim[row]).all() or pictured, name
        assert not np.isnan(ssim[layers["aggregator.global_blocks.1.mlp.fc2"]]).any()


def test_samples_are_the_same_tokens_in_every_scheme(
    small_model: VGGT, make_scene: MakeScene, small_profile: Profile, layers: dict[str, int]
) -> None:
    """Which tokens they are is found in a plain FP32 run; a plain run of the scheme must have the others there."""
    per_call = small_profile.facts["activation_tokens"]
    runs = {key: [plain_run(small_model, make_scene(seed), key)[0] for seed in (0, 1)] for key in (None, *SCHEMES)}
    for name in WATCHED:
        row = layers[name]
        kind, kept = small_profile.layers[row].kind, per_call[row]
        reference = small_profile.activations("fp32", name)
        calls = len(runs[None][0][name])
        assert reference.shape[:2] == (2, calls * kept)
        for scene in (0, 1):
            for call in range(calls):
                part = slice(call * kept, (call + 1) * kept)
                clean = as_tokens(runs[None][scene][name][call][1], kind)
                sample = torch.from_numpy(reference[scene, part])
                at = torch.cdist(sample.double(), clean.double()).argmin(1)
                torch.testing.assert_close(clean[at], sample, rtol=1e-3, atol=1e-4)
                assert len(at.unique()) == kept
                for scheme in SCHEMES:
                    found = torch.from_numpy(small_profile.activations(scheme, name)[scene, part])
                    expected = as_tokens(runs[scheme][scene][name][call][1], kind)[at]
                    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_the_file_holds_every_layer_and_scheme_within_its_limit(small_profile: Profile) -> None:
    with h5py.File(small_profile.path) as file:
        datasets: list[h5py.Dataset] = []
        file["activations"].visititems(lambda _, item: datasets.append(item) if hasattr(item, "nbytes") else None)
        assert len(datasets) == (1 + len(UNIFORM_SCHEMES)) * len(small_profile.layers)
        values = sum(dataset.nbytes for dataset in datasets)
        assert not any(np.isnan(dataset[:]).any() for dataset in datasets)
    assert 1_000_000 < values <= 2_000_000
    # What HDF5 adds: about a kilobyte a dataset.
    assert small_profile.path.stat().st_size < 2_000_000 + 2000 * len(datasets)


def test_sizes_and_damage_are_there_for_all_candidates(small_model: VGGT, small_profile: Profile) -> None:
    assert small_profile.candidates == candidates()
    for layer, sizes in zip(small_profile.layers, small_profile.size_bytes, strict=True):
        module = small_model.get_submodule(layer.name)
        assert sizes.tolist() == [quantize_layer(module, key).nbytes for key in candidates()]
    assert len(small_profile.damage) == len(small_profile.uniform) == 8
    assert (small_profile.total_damage >= 0).all()
    assert np.isfinite(small_profile.total_damage).all()


def test_the_seed_alone_decides(small_model: VGGT, make_scene: MakeScene, tmp_path: Path) -> None:
    """Weights, scores and samples the same; another seed samples other tokens and draws other probes."""
    before = {name: value.clone() for name, value in small_model.state_dict().items()}
    scenes = [make_scene(0, size=(16, 16))]
    first, again, other = (
        profiled(small_model, scenes, tmp_path / f"{number}.h5", seed=seed) for number, seed in enumerate((1, 1, 2))
    )
    assert all(value.equal(before[name]) for name, value in small_model.state_dict().items())
    for kind, metrics in first.scores.items():
        for metric, values in metrics.items():
            np.testing.assert_array_equal(again.scores[kind][metric], values)
            np.testing.assert_array_equal(other.scores[kind][metric], values)
    np.testing.assert_array_equal(again.total_damage, first.total_damage)
    assert not np.array_equal(other.total_damage, first.total_damage)
    name = "aggregator.global_blocks.1.mlp.fc2"
    np.testing.assert_array_equal(again.activations("int4_group_32", name), first.activations("int4_group_32", name))
    assert not np.array_equal(other.activations("fp32", name), first.activations("fp32", name))


def test_progress_ends_where_it_said(small_model: VGGT, make_scene: MakeScene, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    profiled(small_model, [make_scene(0, size=(16, 16))], tmp_path / "p.h5", progress=lambda *step: told.append(step))
    assert [step[1:] for step in told[1:]] == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_many_channels_are_sampled_and_few_are_not(
    small_model: VGGT, make_scene: MakeScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of a sample of channels is that of the same channels of the whole output, by numpy."""
    monkeypatch.setattr("sensitivity.recorder.VALUES_PER_CALL", 38 * 20)
    scene, name, scheme = make_scene(0), "aggregator.frame_blocks.1.attn.qkv", "int4_group_32"
    found = profiled(small_model, [scene], tmp_path / "p.h5", schemes=(scheme,), candidates=(scheme,))
    row = [layer.name for layer in found.layers].index(name)
    channels = choose_channels(LayerVolume(1, 2 * (3 + 16), 96), row)
    assert channels is not None
    assert len(channels.unique()) == 20
    clean, under = (plain_run(small_model, scene, key)[0][name] for key in (None, scheme))
    (x, reference), candidate = clean[0], under[0][1]
    bias = small_model.get_submodule(name).bias.detach()
    alone = F.linear(x, weights_under(small_model, scheme)[name], bias)
    for kind, values in (("accumulated", candidate), ("isolated", alone)):
        both = (v.detach()[..., channels].double().numpy().ravel() for v in (reference, values))
        assert_scores(found.scores[kind], row, 0, *both)


def test_a_vggt_is_run_in_fp32_once_and_its_parts_must_repeat_themselves(
    small_model: VGGT, make_scene: MakeScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors are seen in the pass that gradients go back through; what is computed once more must be the same."""
    scene, heard = make_scene(0, size=(16, 16)), list[bool]()
    outputs = subject_of(small_model).predict(scene)
    with monkeypatch.context() as patch:
        patch.setattr(small_model.depth_head, "forward", noted(small_model.depth_head.forward, heard))
        patch.setattr("sensitivity.survey.LARGE", 1)
        found = profiled(small_model, [scene], tmp_path / "p.h5", schemes=("int4_group_32",))
    assert found.facts["repeatability"] == dict.fromkeys(outputs, 0.0)
    assert heard == [False, False, True], "FP32, a scheme, and once more to go back through the first"
    noise = torch.Generator().manual_seed(0)
    small_model.aggregator.frame_blocks[0].mlp.register_forward_hook(
        lambda _module, _inputs, tokens: tokens * (1 + 0.1 * torch.randn(tokens.shape, generator=noise))
    )
    with pytest.raises(InputError, match=r"two FP32 passes over scene .* differ by an NMSE of .* in output"):
        profiled(small_model, [scene], tmp_path / "q.h5")


def noted(forward: Callable[..., Tensor], heard: list[bool]) -> Callable[..., Tensor]:
    """A module's forward that notes whether gradients are taken; the meta device does not count."""

    def noting(*arguments: Any) -> Tensor:
        result = forward(*arguments)
        if result.device.type != "meta":
            heard.append(torch.is_grad_enabled())
        return result

    return noting


def test_nothing_of_the_passes_is_remembered_while_gradients_are_taken(
    small_model: VGGT, make_scene: MakeScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs of all layers, half a gigabyte for VGGT-1B, would lie beside the graphs."""
    recorders: list[weakref.ref[SceneRecorder]] = []

    gone_back: list[int] = []
    sketch = RecordedForward.sketch

    def alive(*arguments: Any) -> Sketch:
        gone_back.append(len([recorder for recorder in recorders if recorder() is not None]))
        return sketch(*arguments)

    def made(*arguments: Any) -> SceneRecorder:
        recorder = SceneRecorder(*arguments)
        recorders.append(weakref.ref(recorder))
        return recorder

    monkeypatch.setattr("sensitivity.profile_steps.SceneRecorder", made)
    monkeypatch.setattr(RecordedForward, "sketch", alive)
    profiled(small_model, [make_scene(0, size=(16, 16))], tmp_path / "p.h5")
    assert (len(recorders), gone_back) == (1, [0])


def test_scenes_that_differ_in_size_are_refused(small_model: VGGT, make_scene: MakeScene, tmp_path: Path) -> None:
    for other in (make_scene(1, size=(32, 24)), make_scene(1, frames=3)):
        with pytest.raises(InputError, match=r"scenes must agree in size: scene-1 is .*, scene-0 is"):
            profiled(small_model, [make_scene(0), other], tmp_path / "p.h5")
    with pytest.raises(InputError, match="agree in number of query points"):
        profiled(small_model, [make_scene(0), make_scene(1, points=4)], tmp_path / "p.h5")
    with pytest.raises(InputError, match="no calibration scenes"):
        profiled(small_model, [], tmp_path / "p.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_model_leaves_no_file(small_model: VGGT, make_scene: MakeScene, tmp_path: Path) -> None:
    small_model.depth_head.norm.bias.data[0] = torch.nan
    with pytest.raises(InputError, match="NaN or Inf in depth"):
        profiled(small_model, [make_scene(0, size=(16, 16))], tmp_path / "p.h5")
    good = make_scene(0, size=(16, 16))
    bad = replace(make_scene(1), images=torch.full_like(good.images, torch.nan))
    with pytest.raises(InputError, match="scene scene-1: the FP32 model gives NaN or Inf"):
        model = VGGT(small_model.config).eval()
        profiled(model, [good, bad], tmp_path / "p.h5")
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.h5.parts"]  # what was sound is not lost


@pytest.mark.parametrize("limit", [2_000, 5_000, 64_000, 10**9])
def test_samples_fit_the_limit_and_one_token_more_would_not(limit: int) -> None:
    volumes = [LayerVolume(1, 400, 8), LayerVolume(4, 400, 2), LayerVolume(2, 11, 5), LayerVolume(0, 0, 7)]
    sampling = plan_sampling(volumes, variants=3, scenes=2, limit_bytes=limit)

    def size_bytes(per_call: tuple[int, ...]) -> int:
        return sum(4 * 3 * 2 * n * v.calls * v.channels for n, v in zip(per_call, volumes, strict=True))

    assert sampling.size_bytes == size_bytes(sampling.per_call) <= limit
    assert sampling.per_call[3] == 0
    everything = (TOKENS_PER_LAYER, TOKENS_PER_LAYER // 4, 5, 0)
    assert all(1 <= n <= most for n, most in zip(sampling.per_call[:3], everything, strict=False))
    if sampling.per_call != everything:
        tokens = sampling.per_call[0] + 1
        assert size_bytes((tokens, max(1, tokens // 4), min(max(1, tokens // 2), 5), 0)) > limit


def test_a_limit_below_one_token_is_refused() -> None:
    with pytest.raises(InputError, match=r"one token per layer already takes 0\.1 MB .*what tables leave is 0\.0 MB"):
        plan_sampling([LayerVolume(1, 10, 4000)], variants=8, scenes=1, limit_bytes=1000)


def test_tokens_are_laid_back_on_their_grid() -> None:
    """Rows and columns differ, and so do the frames: every value says where it belongs."""
    grid = TokenGrid(special=3, rows=2, columns=4)
    patches = torch.arange(2 * 5 * 2 * 4.0).reshape(2, 5, 2, 4)  # frame, channel, row, column
    tokens = torch.cat([torch.full((2, 3, 5), -1.0), patches.flatten(2).transpose(1, 2)], dim=1)
    layer = Layer("fc1", "linear", "mlp", "frame.0", (5, 2), 10)
    for shaped in (tokens, tokens.reshape(1, 22, 5)):
        torch.testing.assert_close(as_maps(shaped, layer, grid), patches.flatten(0, 1))
    assert as_maps(tokens[:, :10], layer, grid) is None
    assert as_maps(tokens, replace(layer, role="camera_head"), grid) is None
    assert as_maps(patches, replace(layer, role="track_head"), grid) is None  # [B, N, S, C] of the tracker
    torch.testing.assert_close(as_maps(patches, replace(layer, kind="conv2d"), grid), patches.flatten(0, 1))


@pytest.mark.slow
def test_in_mixed_precision_schemes_are_compared_with_the_same_precision(
    small_model: VGGT, make_scene: MakeScene, tmp_path: Path
) -> None:
    """The damage of INT4 is what it is in FP32: neither that of the rounding, nor none for a cached weight."""
    mixed, exact = (
        profiled(small_model, [make_scene(0)], tmp_path / f"{number}.h5", dtype=dtype)
        for number, dtype in enumerate((torch.bfloat16, torch.float32))
    )
    assert mixed.facts["dtype"] == "torch.bfloat16"
    assert mixed.uniform["depth"][1] == pytest.approx(exact.uniform["depth"][1], rel=0.3)
    assert mixed.uniform["depth"][1] != exact.uniform["depth"][1]
