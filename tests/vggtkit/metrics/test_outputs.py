"""`compare_outputs`, `average` and the ratings against numpy, scikit-image and the design's table."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from vggtkit.metrics.outputs import OUTPUTS, OutputMetrics, average, compare_outputs
from vggtkit.metrics.ratings import LEVELS, THRESHOLDS, rate

B, S, H, W, N = 1, 2, 14, 18, 5
SHAPES = {
    "pose_enc": (B, S, 9),
    "depth": (B, S, H, W, 1),
    "depth_conf": (B, S, H, W),
    "world_points": (B, S, H, W, 3),
    "world_points_conf": (B, S, H, W),
    "track": (B, S, N, 2),
    "vis": (B, S, N),
    "conf": (B, S, N),
}
IMAGES = ("depth", "depth_conf", "world_points", "world_points_conf")


def outputs(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: 1 + torch.rand(shape, generator=generator) for name, shape in SHAPES.items()}


def disturbed(reference: dict[str, Tensor], noise: float) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(99)
    return {name: x + noise * torch.randn(x.shape, generator=generator) for name, x in reference.items()}


def kl(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Mean KL over rows ``[rows, n]`` of logits."""
    t, p = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (reference, candidate))
    return float(np.mean((t * np.log(t / p)).sum(1)))


def rows_of(name: str, x: np.ndarray) -> np.ndarray:
    """The documented softmax axes, written out frame by frame."""
    frames = x.reshape(B * S, *x.shape[2:])
    if name in ("world_points", "track"):
        return np.stack([frame[..., axis].ravel() for frame in frames for axis in range(frame.shape[-1])])
    return np.stack([frame.ravel() for frame in frames])


def test_every_published_output_is_compared_in_order() -> None:
    reference = outputs()
    extra = {"images": torch.rand(B, S, 3, H, W), "pose_enc_list": [torch.zeros(B, S, 9)], "note": "x"}
    compared = compare_outputs({**extra, **reference}, disturbed(reference, 0.01))
    assert tuple(compared) == OUTPUTS == tuple(SHAPES)
    assert [name for name, metrics in compared.items() if metrics.ssim is not None] == list(IMAGES)


@pytest.mark.parametrize("name", SHAPES)
def test_metrics_equal_numpy(name: str) -> None:
    reference = outputs()
    candidate = disturbed(reference, 0.1)
    got = compare_outputs(reference, candidate)[name]
    r, c = reference[name].double().numpy(), candidate[name].double().numpy()
    mse, nmse = np.mean((r - c) ** 2), np.sum((r - c) ** 2) / np.sum(r**2)
    expected = {
        "mae": np.mean(np.abs(r - c)),
        "mse": mse,
        "rmse": np.sqrt(mse),
        "psnr_db": 10 * np.log10(np.max(np.abs(r)) ** 2 / mse),
        "ce_excess": kl(rows_of(name, r), rows_of(name, c)),
        "cosine": np.sum(r * c) / np.sqrt(np.sum(r * r) * np.sum(c * c)),
        "relative_error": np.mean(np.abs(c - r) / (np.abs(r) + 1e-6)),
        "nmse": nmse,
        "sqnr_db": -10 * np.log10(nmse),
    }
    for metric, value in expected.items():
        np.testing.assert_allclose(getattr(got, metric), value, rtol=1e-7, err_msg=metric)
    assert got.ce > got.ce_excess


@pytest.mark.parametrize("name", IMAGES)
def test_ssim_is_the_mean_over_frames_and_coordinates_each_with_its_range(name: str) -> None:
    reference = outputs()
    reference[name] = reference[name] * torch.arange(1.0, S + 1).reshape(B, S, *[1] * (len(SHAPES[name]) - 2))
    candidate = disturbed(reference, 0.1)
    r, c = (x[name].double().numpy().reshape(S, H, W, -1) for x in (reference, candidate))
    maps = [(r[s, ..., k], c[s, ..., k]) for s in range(S) for k in range(r.shape[-1])]
    expected = [
        structural_similarity(
            x,
            y,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=x.max() - x.min(),
        )
        for x, y in maps
    ]
    np.testing.assert_allclose(compare_outputs(reference, candidate)[name].ssim, np.mean(expected), atol=1e-5)


def test_numpy_arrays_give_the_same_as_tensors() -> None:
    reference = outputs()
    candidate = disturbed(reference, 0.1)
    arrays = [{name: x.numpy() for name, x in side.items()} for side in (reference, candidate)]
    assert compare_outputs(*arrays) == compare_outputs(reference, candidate)


def test_identical_outputs_are_excellent_in_every_metric() -> None:
    reference = outputs()
    for metrics in compare_outputs(reference, reference).values():
        levels = {rate(metric, getattr(metrics, metric)) for metric in THRESHOLDS}
        assert levels <= {"excellent", "n/a"}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_output_not_finite_is_nan_and_poor(bad: float) -> None:
    reference = outputs()
    candidate = disturbed(reference, 0.01)
    for x in candidate.values():
        x.view(-1)[3] = bad
    for name, metrics in compare_outputs(reference, candidate).items():
        numbers = asdict(metrics)
        assert numbers.pop("extra") == {}
        for metric, value in numbers.items():
            assert value is None or math.isnan(value), (name, metric)
            if metric in THRESHOLDS:
                assert rate(metric, value) in ("poor", "n/a")


def test_maps_too_small_for_a_window_have_no_ssim() -> None:
    depth = torch.ones(1, 1, 2, 9, 1)
    assert compare_outputs({"depth": depth}, {"depth": depth})["depth"].ssim is None


@pytest.mark.parametrize(
    ("reference", "candidate", "message"),
    [
        (
            {"depth": (1, 2, 4, 4, 1), "vis": (1, 2, 3)},
            {"depth": (1, 2, 4, 4, 1)},
            "depth, vis.*candidate depth",
        ),
        ({"vis": (1, 2, 3)}, {"vis": (1, 2, 4)}, r"vis.*\(1, 2, 3\).*\(1, 2, 4\)"),
        ({"pose_enc": (1, 2, 8)}, {"pose_enc": (1, 2, 8)}, r"pose_enc.*\[B, S, 9\].*\(1, 2, 8\)"),
        ({"depth": (1, 2, 4, 4)}, {"depth": (1, 2, 4, 4)}, r"depth.*\[B, S, H, W, 1\].*\(1, 2, 4, 4\)"),
        ({"images": (1, 2, 3, 4, 4)}, {"images": (1, 2, 3, 4, 4)}, "nothing to compare"),
    ],
    ids=["keys", "shapes", "not 9 numbers", "axis missing", "nothing"],
)
def test_mismatch_is_refused_by_name(reference: dict, candidate: dict, message: str) -> None:
    sides = [{name: torch.ones(shape) for name, shape in side.items()} for side in (reference, candidate)]
    with pytest.raises(ValueError, match=message):
        compare_outputs(*sides)


def metrics_with(**values: float | None) -> dict[str, OutputMetrics]:
    base = dict.fromkeys(OutputMetrics.__dataclass_fields__, 1.0) | {"extra": {}}
    return {"depth": OutputMetrics(**{**base, **values})}


def test_average_is_the_mean_per_metric() -> None:
    scenes = [
        metrics_with(mae=1.0, psnr_db=20.0, ssim=0.5, mse=math.nan, sqnr_db=math.inf),
        metrics_with(mae=3.0, psnr_db=30.0, ssim=None, mse=1.0, sqnr_db=5.0),
    ]
    mean = average(scenes)["depth"]
    assert (mean.mae, mean.psnr_db, mean.ssim, mean.sqnr_db) == (2.0, 25.0, 0.5, math.inf)
    assert math.isnan(mean.mse)
    assert average([metrics_with(ssim=None)])["depth"].ssim is None


def test_average_refuses_no_scenes_and_different_outputs() -> None:
    with pytest.raises(ValueError, match="no scenes"):
        average([])
    with pytest.raises(ValueError, match=r"depth.*no output"):
        average([metrics_with(), {}])


# The design's table, once more and by hand: metric, (excellent, good, acceptable), does more mean better?
@pytest.mark.parametrize(
    ("metric", "limits", "higher"),
    [
        ("mae", (0.001, 0.01, 0.1), False),
        ("mse", (0.0001, 0.001, 0.01), False),
        ("rmse", (0.01, 0.03, 0.1), False),
        ("psnr_db", (40, 30, 20), True),
        ("cosine", (0.99, 0.95, 0.90), True),
        ("relative_error", (0.05, 0.10, 0.20), False),
        ("ssim", (0.95, 0.90, 0.80), True),
        ("ce_excess", (0.1, 0.5, 1.0), False),
    ],
)
def test_levels_just_inside_and_on_each_limit(metric: str, limits: tuple[float, ...], higher: bool) -> None:
    for position, limit in enumerate(limits):
        inside = limit * (1.001 if higher else 0.999)
        assert rate(metric, inside) == LEVELS[position]
        assert rate(metric, limit) == LEVELS[position + 1]
    assert rate(metric, None) == "n/a"
    assert rate(metric, math.nan) == "poor"


@pytest.mark.parametrize("metric", ["ce", "nmse", "PSNR"])
def test_metric_without_thresholds_is_refused(metric: str) -> None:
    with pytest.raises(ValueError, match=f"'{metric}'.*psnr_db"):
        rate(metric, 1.0)


def test_every_rated_metric_is_a_field() -> None:
    assert set(THRESHOLDS) <= set(OutputMetrics.__dataclass_fields__)
