"""The eight metrics of a tensor against its FP32 reference, and two normalised errors beside them.

One arithmetic for layers and for outputs. Sums over elements all come from `error_sums`, so a metric streamed
over calls and scenes (`ErrorSums`, `merge_sums`) equals the one-shot metric on the concatenation.

Inputs are tensors of any floating dtype; sums are float64. A candidate with a NaN or an infinity gives NaN,
never an exception: a broken scheme is a result. Different shapes are a caller's mistake: ``ValueError``.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vggtkit.metrics.ssim import SsimReference, ssim

__all__ = [
    "SUM_METRICS",
    "SUM_NAMES",
    "ErrorSums",
    "SsimReference",
    "ce_excess",
    "cosine_similarity",
    "cross_entropy",
    "error_sums",
    "mae",
    "merge_sums",
    "metrics_from_sums",
    "mse",
    "nmse",
    "psnr_db",
    "relative_error",
    "rmse",
    "sqnr_db",
    "ssim",
]

RELATIVE_ERROR_EPS = 1e-6
CROSS_ENTROPY_EPS = 1e-12

SUM_NAMES = (
    "count",  # elements
    "absolute_error",  # sum |c - r|
    "squared_error",  # sum (c - r)^2
    "dot",  # sum r * c
    "reference_energy",  # sum r^2
    "candidate_energy",  # sum c^2
    "reference_peak",  # max |r|; the one column that merges by maximum
)
SUM_METRICS = ("mae", "mse", "rmse", "psnr_db", "cosine", "nmse", "sqnr_db")

# Elements converted to float64 at a time. On one core 2-3 ns per element and candidate at 2^16 (three
# 512 kB arrays stay in the L2 cache), a fifth slower than float32 sums and exact; 2^14 and 2^18 are slower.
_CHUNK = 1 << 16


def error_sums(reference: Tensor, candidates: Tensor) -> Tensor:
    """Sums over all elements, for V candidates of one reference.

    Args:
        reference: FP32 values, any shape ``[...]``.
        candidates: ``[V, ...]``, one reference-shaped tensor per candidate (say, per scheme).

    Returns:
        float64 ``[V, 7]`` on the reference's device (CPU for Metal), columns as in `SUM_NAMES`.

    Raises:
        ValueError: ``candidates.shape[1:]`` is not the reference's shape.

    >>> error_sums(torch.tensor([3.0, -4.0]), torch.tensor([[3.0, -4.0], [3.0, -3.5]])).tolist()[1]
    [2.0, 0.5, 0.25, 23.0, 25.0, 21.25, 4.0]
    """
    if candidates.shape[1:] != reference.shape:
        shapes = f"candidates {tuple(candidates.shape)}, reference {tuple(reference.shape)}"
        msg = f"candidates must be [V, ...] for a reference [...]: {shapes}"
        raise ValueError(msg)
    flat_reference = reference.detach().reshape(-1)
    flat_candidates = candidates.detach().reshape(len(candidates), -1)
    totals = _float64(flat_reference.new_zeros(len(candidates), len(SUM_NAMES)))
    totals[:, 0] = flat_reference.numel()
    for start in range(0, flat_reference.numel(), _CHUNK):
        part = slice(start, start + _CHUNK)
        r = _float64(flat_reference[part])
        totals[:, 4] += r.dot(r)
        totals[:, 6] = torch.maximum(totals[:, 6], r.abs().amax())
        for row, candidate in zip(totals, flat_candidates, strict=True):
            c = _float64(candidate[part])
            d = c - r
            row[2] += d.dot(d)
            row[3] += c.dot(r)
            row[5] += c.dot(c)
            row[1] += d.abs_().sum()
    return totals


def _float64(values: Tensor) -> Tensor:
    # Metal has no float64.
    return (values.cpu() if values.device.type == "mps" else values).double()


def merge_sums(first: Tensor, second: Tensor) -> Tensor:
    """The sums over both parts of the data: columns add, the peak takes the maximum (NaN stays NaN).

    Args:
        first: ``[..., 7]`` from `error_sums`.
        second: the same shape, over other elements.

    >>> a = error_sums(torch.tensor([1.0]), torch.tensor([[2.0]]))
    >>> b = error_sums(torch.tensor([-5.0]), torch.tensor([[-5.0]]))
    >>> merge_sums(a, b).tolist()
    [[2.0, 1.0, 1.0, 27.0, 26.0, 29.0, 5.0]]
    """
    return torch.cat((first[..., :-1] + second[..., :-1], torch.maximum(first, second)[..., -1:]), dim=-1)


def metrics_from_sums(sums: Tensor) -> dict[str, Tensor]:
    """The metrics named in `SUM_METRICS`, from sums ``[..., 7]``; each value is float64 ``[...]``.

    Limits: no error is ``psnr_db = sqnr_db = inf`` and ``nmse = 0``; an error on an all-zero reference is
    ``nmse = inf`` and ``-inf`` dB; two zero vectors have cosine 1, a zero one and another 0. No elements at
    all, or a sum that is not finite, is NaN throughout.

    >>> sums = error_sums(torch.tensor([3.0, 4.0]), torch.tensor([[3.0, 4.5]]))
    >>> {name: round(value.item(), 2) for name, value in metrics_from_sums(sums).items()}
    {'mae': 0.25, 'mse': 0.12, 'rmse': 0.35, 'psnr_db': 21.07, 'cosine': 1.0, 'nmse': 0.01, 'sqnr_db': 20.0}
    """
    count, absolute, squared, dot, energy, candidate_energy, peak = sums.unbind(-1)
    broken = ~sums.isfinite().all(-1) | (count == 0)
    exact = squared == 0
    mse = squared / count
    values = {
        "mae": absolute / count,
        "mse": mse,
        "rmse": mse.sqrt(),
        "psnr_db": (10 * (peak.square() / mse).log10()).masked_fill(exact, torch.inf),
        "cosine": _cosine(dot, energy, candidate_energy),
        "nmse": (squared / energy).masked_fill(exact, 0.0),
        "sqnr_db": (10 * (energy / squared).log10()).masked_fill(exact, torch.inf),
    }
    return {name: value.masked_fill(broken, torch.nan) for name, value in values.items()}


def _cosine(dot: Tensor, energy: Tensor, candidate_energy: Tensor) -> Tensor:
    # Product of roots would round cos(x, x) away from 1; the roots apart would only be needed above 1e154.
    zeros = (energy == 0).to(torch.int8) + (candidate_energy == 0).to(torch.int8)
    cosine = (dot / (energy * candidate_energy).sqrt()).clamp(-1.0, 1.0)
    return cosine.masked_fill(zeros == 1, 0.0).masked_fill(zeros == 2, 1.0)


@dataclass
class ErrorSums:
    """Running sums of one candidate's error, say of one (layer, scheme) over calls and scenes.

    >>> sums = ErrorSums()
    >>> sums.update(torch.tensor([3.0]), torch.tensor([3.0]))
    >>> sums.update(torch.tensor([4.0]), torch.tensor([4.5]))
    >>> sums.mae, round(sums.sqnr_db, 9)
    (0.25, 20.0)
    """

    count: float = 0.0
    absolute_error: float = 0.0
    squared_error: float = 0.0
    dot: float = 0.0
    reference_energy: float = 0.0
    candidate_energy: float = 0.0
    reference_peak: float = 0.0

    def update(self, reference: Tensor, candidate: Tensor) -> None:
        """Add the elements of one call; both tensors have the same shape, which may differ between calls."""
        added = error_sums(reference, candidate.unsqueeze(0))[0].cpu()
        for name, value in zip(SUM_NAMES, merge_sums(self.as_tensor(), added).tolist(), strict=True):
            setattr(self, name, value)

    def as_tensor(self) -> Tensor:
        """The sums as float64 ``[7]``, columns as in `SUM_NAMES`."""
        return torch.tensor([getattr(self, name) for name in SUM_NAMES], dtype=torch.float64)

    def metrics(self) -> dict[str, float]:
        """All of `SUM_METRICS` at once."""
        return {name: value.item() for name, value in metrics_from_sums(self.as_tensor()).items()}

    @property
    def mae(self) -> float:
        """Mean absolute error."""
        return self.metrics()["mae"]

    @property
    def mse(self) -> float:
        """Mean squared error."""
        return self.metrics()["mse"]

    @property
    def rmse(self) -> float:
        """Root mean squared error."""
        return self.metrics()["rmse"]

    @property
    def psnr_db(self) -> float:
        """Peak signal-to-noise ratio in dB, the peak being the largest |reference| so far."""
        return self.metrics()["psnr_db"]

    @property
    def cosine(self) -> float:
        """Cosine similarity of the concatenated vectors."""
        return self.metrics()["cosine"]

    @property
    def nmse(self) -> float:
        """Squared error over the reference's energy."""
        return self.metrics()["nmse"]

    @property
    def sqnr_db(self) -> float:
        """``-10 * log10(nmse)``."""
        return self.metrics()["sqnr_db"]


def nmse_or_inf(reference: Tensor, candidate: Tensor) -> float:
    """As `nmse`, infinite where it is not a number: a broken output is as far off as can be.

    >>> [nmse_or_inf(torch.ones(1), torch.tensor([value])) for value in (1.5, torch.nan)]
    [0.25, inf]
    """
    value = nmse(reference, candidate)
    return value if math.isfinite(value) else math.inf


def _one_shot(reference: Tensor, candidate: Tensor, metric: str) -> float:
    return metrics_from_sums(error_sums(reference, candidate.unsqueeze(0)))[metric].item()


def mae(reference: Tensor, candidate: Tensor) -> float:
    """Mean absolute error, in the unit of the values; any shape.

    >>> mae(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
    0.5
    """
    return _one_shot(reference, candidate, "mae")


def mse(reference: Tensor, candidate: Tensor) -> float:
    """Mean squared error, in the unit squared; any shape.

    >>> mse(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
    2.0
    """
    return _one_shot(reference, candidate, "mse")


def rmse(reference: Tensor, candidate: Tensor) -> float:
    """Root of the mean squared error, in the unit of the values; any shape.

    >>> rmse(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    2.0
    """
    return _one_shot(reference, candidate, "rmse")


def psnr_db(reference: Tensor, candidate: Tensor) -> float:
    """Peak signal-to-noise ratio ``10 * log10(MAX^2 / MSE)`` in dB with ``MAX = max|reference|``; any shape.

    ``inf`` where the two are identical, ``-inf`` where only the reference is all zeros.

    >>> round(psnr_db(torch.tensor([10.0, 0.0]), torch.tensor([10.0, 2.0 ** 0.5])), 5)
    20.0
    """
    return _one_shot(reference, candidate, "psnr_db")


def cosine_similarity(reference: Tensor, candidate: Tensor) -> float:
    """Cosine of the angle between the two, each of any shape and flattened; 1 if both are zero, 0 if one is.

    >>> round(cosine_similarity(torch.tensor([1.0, 0.0]), torch.tensor([3.0, 4.0])), 6)
    0.6
    """
    return _one_shot(reference, candidate, "cosine")


def nmse(reference: Tensor, candidate: Tensor) -> float:
    """Normalised error ``sum((c - r)^2) / sum(r^2)``, without unit, any shape; 0.01 is 20 dB of `sqnr_db`.

    >>> nmse(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5]))
    0.01
    """
    return _one_shot(reference, candidate, "nmse")


def sqnr_db(reference: Tensor, candidate: Tensor) -> float:
    """Signal-to-quantisation-noise ratio ``10 * log10(sum(r^2) / sum((c - r)^2))`` in dB; any shape.

    One more bit of a uniform quantiser adds about 6.02 dB. ``inf`` where the two are identical.

    Source: Bennett, "Spectra of Quantized Signals", BSTJ 27(3), 1948.

    >>> sqnr_db(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 4.5]]))
    20.0
    """
    return _one_shot(reference, candidate, "sqnr_db")


def relative_error(reference: Tensor, candidate: Tensor) -> float:
    """``mean(|c - r| / (|r| + 1e-6))``: a fraction, 0.05 is 5 %; any shape.

    Every element counts alike, so references near zero dominate (a confidence of 1e-4, the x of a point
    straight ahead): read it beside `nmse`.

    >>> round(relative_error(torch.tensor([1.0, -2.0]), torch.tensor([1.1, -2.0])), 6)
    0.05
    """
    _require_same_shape(reference, candidate)
    r, c = _float64(reference.detach()), _float64(candidate.detach())
    return _nan_unless_finite(((c - r).abs() / (r.abs() + RELATIVE_ERROR_EPS)).mean())


def cross_entropy(reference: Tensor, candidate: Tensor) -> float:
    """``-sum(t * log(p + 1e-12))`` in nats, ``t`` and ``p`` the softmax of reference and candidate.

    Args:
        reference: ``[..., n]``; the softmax runs over the last axis, the mean over the others.
        candidate: the same shape.

    Its floor is the entropy of ``t`` (at most ``log(n)``), so judge `ce_excess`, not this.

    >>> round(cross_entropy(torch.zeros(4), torch.zeros(4)), 6)  # log(4)
    1.386294
    """
    return _nan_unless_finite(_softmax_entropy(reference, candidate))


def ce_excess(reference: Tensor, candidate: Tensor) -> float:
    """Cross-entropy above its floor, in nats: the Kullback-Leibler divergence of ``softmax(candidate)``.

    ``cross_entropy(r, c) - cross_entropy(r, r)``, both with the same epsilon, so it is 0 for a candidate that
    equals the reference (or differs by a constant along the last axis, which a softmax does not see).

    Args:
        reference: ``[..., n]`` logits, as in `cross_entropy`.
        candidate: the same shape.

    Source: Kullback and Leibler, "On Information and Sufficiency", Ann. Math. Statist. 22(1), 1951.

    >>> r = torch.tensor([0.75, 0.25]).log()
    >>> round(ce_excess(r, torch.zeros(2)), 6)  # 0.75 log(1.5) + 0.25 log(0.5)
    0.130812
    """
    excess = _softmax_entropy(reference, candidate) - _softmax_entropy(reference, reference)
    return _nan_unless_finite(excess.clamp(min=0.0))


def _softmax_entropy(reference: Tensor, candidate: Tensor) -> Tensor:
    _require_same_shape(reference, candidate)
    target = _float64(reference.detach()).softmax(-1)
    logits = _float64(candidate.detach())
    # A softmax would turn -inf into a harmless zero; the difference is NaN where the logit is not finite.
    predicted = (logits + (logits - logits)).softmax(-1)
    return -(target * (predicted + CROSS_ENTROPY_EPS).log()).sum(-1).mean()


def _require_same_shape(reference: Tensor, candidate: Tensor) -> None:
    if reference.shape != candidate.shape:
        msg = f"the candidate has shape {tuple(candidate.shape)}, the reference {tuple(reference.shape)}"
        raise ValueError(msg)


def _nan_unless_finite(value: Tensor) -> float:
    return value.item() if bool(value.isfinite()) else torch.nan
