"""The metrics against numpy, scikit-image, closed forms and brute force."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from vggtkit.metrics import tensors as metrics
from vggtkit.metrics.tensors import (
    SUM_METRICS,
    ErrorSums,
    SsimReference,
    error_sums,
    merge_sums,
    metrics_from_sums,
    ssim,
)

ONE_SHOT = {
    "mae": metrics.mae,
    "mse": metrics.mse,
    "rmse": metrics.rmse,
    "psnr_db": metrics.psnr_db,
    "cosine": metrics.cosine_similarity,
    "nmse": metrics.nmse,
    "sqnr_db": metrics.sqnr_db,
}
ALL = {
    **ONE_SHOT,
    "relative_error": metrics.relative_error,
    "ce": metrics.cross_entropy,
    "ce_excess": metrics.ce_excess,
    "ssim": ssim,
}


def noisy(*shape: int, noise: float = 0.05, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randn(*shape, generator=generator)
    return reference, reference + noise * torch.randn(*shape, generator=generator)


def numpy_metrics(reference: Tensor, candidate: Tensor) -> dict[str, float]:
    r, c = reference.double().numpy().ravel(), candidate.double().numpy().ravel()
    mse = np.mean((c - r) ** 2)
    nmse = np.sum((c - r) ** 2) / np.sum(r**2)
    return {
        "mae": np.mean(np.abs(c - r)),
        "mse": mse,
        "rmse": np.sqrt(mse),
        "psnr_db": 10 * np.log10(np.max(np.abs(r)) ** 2 / mse),
        "cosine": r @ c / (np.linalg.norm(r) * np.linalg.norm(c)),
        "nmse": nmse,
        "sqnr_db": -10 * np.log10(nmse),
    }


# The last one spans several chunks and ends in a partial one.
@pytest.mark.parametrize("shape", [(1,), (7, 13), (2, 3, 5, 8), (200_001,)], ids=str)
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_one_shot_equals_numpy(shape: tuple[int, ...], offset: float) -> None:
    reference, candidate = noisy(*shape)
    reference, candidate = reference + offset, candidate + offset
    expected = numpy_metrics(reference, candidate)
    for name, function in ONE_SHOT.items():
        np.testing.assert_allclose(function(reference, candidate), expected[name], rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_dtypes_lose_nothing(dtype: torch.dtype) -> None:
    reference, candidate = (x.to(dtype) for x in noisy(50, 40))
    expected = numpy_metrics(reference, candidate)
    for name, function in ONE_SHOT.items():
        np.testing.assert_allclose(function(reference, candidate), expected[name], rtol=1e-9, err_msg=name)


def test_streaming_equals_one_shot_on_the_concatenation() -> None:
    """Calls of different shapes, one of them empty, and the peak not in the last call."""
    calls = [noisy(5, 6, seed=1), noisy(0, seed=2), noisy(100, seed=3), noisy(2, 2, 2, seed=4)]
    calls[0][0][0, 0] = -9.0
    sums = ErrorSums()
    for reference, candidate in calls:
        sums.update(reference, candidate)
    whole = [torch.cat([pair[side].flatten() for pair in calls]) for side in (0, 1)]
    for name, function in ONE_SHOT.items():
        np.testing.assert_allclose(getattr(sums, name), function(*whole), rtol=1e-12, err_msg=name)
    assert sums.count == 138
    assert sums.reference_peak == 9.0


def test_many_candidates_equal_one_at_a_time() -> None:
    reference, _ = noisy(3, 4, 5)
    candidates = torch.stack([noisy(3, 4, 5, noise=noise)[1] for noise in (0.0, 0.1, 1.0)])
    many = metrics_from_sums(merge_sums(error_sums(reference, candidates), error_sums(reference, candidates)))
    for name in SUM_METRICS:
        alone = [ONE_SHOT[name](reference, candidate) for candidate in candidates]
        np.testing.assert_allclose(many[name].numpy(), alone, rtol=1e-12, err_msg=name)


def test_columns_of_a_slice_and_its_transpose_agree() -> None:
    """Memory that is not contiguous must be read in the tensor's order."""
    reference, candidate = noisy(30, 20)
    expected = error_sums(reference, candidate[None])
    torch.testing.assert_close(error_sums(reference.T, candidate.T[None]), expected)


@pytest.mark.parametrize(
    ("reference", "candidate", "expected"),
    [
        ([3.0, 4.0], [3.0, 4.0], {"nmse": 0.0, "sqnr_db": math.inf, "psnr_db": math.inf, "cosine": 1.0}),
        ([0.0, 0.0], [0.0, 0.0], {"nmse": 0.0, "sqnr_db": math.inf, "psnr_db": math.inf, "cosine": 1.0}),
        (
            [0.0, 0.0],
            [1.0, 1.0],
            {"nmse": math.inf, "sqnr_db": -math.inf, "psnr_db": -math.inf, "cosine": 0.0},
        ),
        ([3.0, 4.0], [0.0, 0.0], {"nmse": 1.0, "sqnr_db": 0.0, "cosine": 0.0, "mae": 3.5}),
        ([3.0, 4.0], [-3.0, -4.0], {"nmse": 4.0, "cosine": -1.0, "mse": 50.0}),
        ([], [], dict.fromkeys(SUM_METRICS, math.nan)),
    ],
    ids=["identical", "both zero", "reference zero", "candidate zero", "opposite", "empty"],
)
def test_limits(reference: list[float], candidate: list[float], expected: dict[str, float]) -> None:
    for name, value in expected.items():
        got = ONE_SHOT[name](torch.tensor(reference), torch.tensor(candidate))
        np.testing.assert_equal(got, value, err_msg=name)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ALL)
def test_candidate_not_finite_is_nan(name: str, bad: float) -> None:
    reference, candidate = noisy(2, 12, 12)
    candidate[1, 3, 4] = bad
    assert math.isnan(ALL[name](reference, candidate))


@pytest.mark.parametrize("name", ALL)
def test_other_shape_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"\(1?,? ?2, 12, 13\).*\(2, 12, 12\)"):
        ALL[name](torch.zeros(2, 12, 12), torch.zeros(2, 12, 13))


def test_relative_error_follows_its_formula() -> None:
    reference, candidate = noisy(40)
    reference[0] = 0.0
    r, c = reference.double().numpy(), candidate.double().numpy()
    expected = np.mean(np.abs(c - r) / (np.abs(r) + 1e-6))
    np.testing.assert_allclose(metrics.relative_error(reference, candidate), expected, rtol=1e-12)


def test_cross_entropy_equals_torch_and_its_excess_is_kl() -> None:
    reference, candidate = noisy(6, 5, 30, noise=1.0)
    r, c = reference.double().flatten(0, 1), candidate.double().flatten(0, 1)
    entropy = torch.nn.functional.cross_entropy(c, r.softmax(-1)).item()
    kl = torch.nn.functional.kl_div(c.log_softmax(-1), r.log_softmax(-1), reduction="batchmean", log_target=True)
    np.testing.assert_allclose(metrics.cross_entropy(reference, candidate), entropy, rtol=1e-9)
    np.testing.assert_allclose(metrics.ce_excess(reference, candidate), kl.item(), rtol=1e-8)


def test_ce_excess_is_zero_for_equal_distributions_and_finite_for_disjoint_ones() -> None:
    reference, _ = noisy(3, 50_000)
    assert metrics.ce_excess(reference, reference) == 0.0
    assert metrics.ce_excess(reference.double(), reference.double() + 7.0) < 1e-9
    disjoint = metrics.ce_excess(torch.tensor([1000.0, 0.0]), torch.tensor([0.0, 1000.0]))
    np.testing.assert_allclose(disjoint, -math.log(1e-12))


# --- SSIM


def image(*shape: int, seed: int = 0) -> Tensor:
    """Something smooth with an offset, as depth is."""
    generator = torch.Generator().manual_seed(seed)
    return 3 + torch.rand(*shape, generator=generator).cumsum(-1) / shape[-1]


def brute_force_ssim(reference: np.ndarray, candidate: np.ndarray, data_range: float, window: int) -> float:
    """The formulas of the paper at one window position after the other."""
    taps = np.arange(window) - window // 2
    line = np.exp(-(taps**2) / (2 * 1.5**2))
    weights = np.outer(line, line) / line.sum() ** 2
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for top in range(reference.shape[0] - window + 1):
        for left in range(reference.shape[1] - window + 1):
            x = reference[top : top + window, left : left + window]
            y = candidate[top : top + window, left : left + window]
            mx, my = (weights * x).sum(), (weights * y).sum()
            vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
            cov = (weights * (x - mx) * (y - my)).sum()
            values.append(
                (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)),
            )
    return float(np.mean(values))


@pytest.mark.parametrize("size", [(11, 11), (16, 16), (37, 52)], ids=str)
@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.1, 5.0])
def test_ssim_equals_scikit_image(size: tuple[int, int], noise: float) -> None:
    reference = image(4, *size)
    candidate = reference + noise * torch.randn(reference.shape, generator=torch.Generator().manual_seed(3))
    data_range = (reference.max() - reference.min()).item()
    expected = np.mean(
        [
            structural_similarity(
                r.double().numpy(),
                c.double().numpy(),
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=data_range,
            )
            for r, c in zip(reference, candidate, strict=True)
        ],
    )
    np.testing.assert_allclose(ssim(reference, candidate), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("size", "window"), [((8, 8), 7), ((10, 30), 9), ((3, 5), 3), ((12, 14), 11)])
def test_ssim_of_small_maps_equals_brute_force(size: tuple[int, int], window: int) -> None:
    reference = image(*size)
    candidate = reference + 0.2 * image(*size, seed=1).flip(0) - 0.6
    expected = brute_force_ssim(reference.double().numpy(), candidate.double().numpy(), 2.0, window)
    np.testing.assert_allclose(ssim(reference, candidate, data_range=2.0), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("offset", [10.0, 1e4])
def test_ssim_survives_errors_far_larger_than_the_range(offset: float) -> None:
    """A nearly flat wall predicted elsewhere: float32 variances about 0 would be noise."""
    reference = 1 + 1e-3 * image(20, 20)
    candidate = (1 + offset + 1e-3 * image(20, 20)).float()
    data_range = (reference.max() - reference.min()).item()
    expected = brute_force_ssim(reference.double().numpy(), candidate.double().numpy(), data_range, 11)
    np.testing.assert_allclose(ssim(reference, candidate), expected, atol=1e-3)


def test_ssim_resolves_tiny_losses() -> None:
    """Halving an error quarters the loss, also where 1 - SSIM is below float32's epsilon."""
    reference = image(1, 32, 32).double().float()
    error = torch.randn(reference.shape, generator=torch.Generator().manual_seed(0)).sign() * 2.0**-16
    losses = [1 - ssim(reference, reference + scale * error) for scale in (1.0, 0.5)]
    assert 0 < losses[1] < losses[0] < 1e-6
    np.testing.assert_allclose(losses[0] / losses[1], 4, rtol=0.02)


def test_ssim_many_candidates_and_ranges_equal_one_map_at_a_time() -> None:
    """More maps than fit one chunk, each with its own range."""
    reference = image(70, 64, 64) * torch.linspace(0.1, 10, 70)[:, None, None]
    candidates = torch.stack((reference, reference + 0.1, reference.flip(1)))
    ranges = reference.amax((1, 2)) - reference.amin((1, 2))
    together = SsimReference(reference, ranges).compare(candidates)
    alone = [np.mean([ssim(r, c) for r, c in zip(reference, candidate, strict=True)]) for candidate in candidates]
    np.testing.assert_allclose(together.numpy(), alone, atol=1e-6, rtol=0)
    assert together[0] == 1.0


def test_ssim_of_constant_maps_has_range_one() -> None:
    """Only the luminance term is left: (2 m (m + 1) + C1) / (m^2 + (m + 1)^2 + C1) at m = 1."""
    ones = torch.ones(2, 12, 12)
    np.testing.assert_allclose(ssim(ones, 2 * ones), (4 + 1e-4) / (5 + 1e-4), rtol=1e-6)
    assert ssim(ones, ones) == 1.0


@pytest.mark.parametrize("shape", [(2, 2, 40), (0, 16, 16)], ids=str)
def test_ssim_without_a_window_is_nan(shape: tuple[int, ...]) -> None:
    assert math.isnan(ssim(torch.ones(shape), torch.ones(shape)))


def test_ssim_of_one_broken_candidate_leaves_the_others_alone() -> None:
    reference = image(3, 16, 16)
    candidates = torch.stack((reference, torch.full_like(reference, math.nan), reference))
    assert SsimReference(reference).compare(candidates).isnan().tolist() == [False, True, False]


def test_ssim_refuses_what_is_not_a_stack_of_maps() -> None:
    with pytest.raises(ValueError, match=r"\[M, H, W\]"):
        SsimReference(torch.zeros(1, 1, 16, 16))
