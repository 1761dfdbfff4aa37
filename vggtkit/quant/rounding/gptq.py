"""GPTQ: columns are rounded one after the other, and those still to come make up for what was done so far.

With E the error of a weight's row and H the second moments of its inputs, the squared error of the layer's output is
``E H E^T``. Given that column j must take the value q, the best change of the columns after it is
``-(w_j - q) / U_jj * U_j,>j`` with U the upper Cholesky factor of ``H^-1``; nothing else is needed, and all rows go
together. Columns of large second moments go first (act-order); groups keep the columns and the scales that they have in
the format, so files stay as they are.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vggtkit.quant.grid import Grid, grid_of, with_codes
from vggtkit.quant.quantizer import QuantizedTensor, quantize
from vggtkit.quant.rounding.base import DAMPING, ROUNDINGS, NeededData, Rounding
from vggtkit.quant.rounding.descent import SWEEPS, descended
from vggtkit.quant.rounding.together import descended_together

BLOCK = 128
"""Columns after which the change of the remaining ones is applied."""


class GPTQ(Rounding):
    """Codes as above, scales as in the format: those that clip by the weight's error were worse, at 3 bits as well.

    Args:
        key: see `Rounding`.
        title: likewise.
        needs: likewise.
        corrects_bias: likewise.
        sweeps: of coordinate descent on codes and scales afterwards.
    """

    def __init__(
        self, key: str, title: str, needs: NeededData, *, corrects_bias: bool = False, sweeps: int = 0
    ) -> None:
        self.key, self.title, self.needs, self.corrects_bias = key, title, needs, corrects_bias
        self.sweeps = sweeps

    def round(
        self, weight: Tensor, key: str, moments: Tensor | None = None, name: str = "", channels: Tensor | None = None
    ) -> QuantizedTensor:
        """As `Rounding.round`; without second moments to the nearest."""
        q = quantize(weight, key, name)
        if q.scales is None or moments is None:
            return q
        matrix, grid = weight.detach().float().reshape(q.shape[0], -1), grid_of(q)
        share = len(matrix) // len(moments)
        codes = torch.empty_like(matrix)
        for number, of_part in enumerate(moments):
            rows = slice(number * share, (number + 1) * share)
            codes[rows] = compensated(matrix[rows], grid.rows(rows), of_part)
        q = with_codes(q, codes)
        if self.sweeps:
            q = descended(weight, q, moments, self.sweeps)
        if self.needs == "factors" and channels is not None:
            q = descended_together(weight, q, moments, channels)
        return q


def compensated(weight: Tensor, grid: Grid, moments: Tensor, damping: float = DAMPING) -> Tensor:
    """Codes of a matrix, each column rounded with what the columns before it left to make up for.

    Args:
        weight: FP32 ``[out, in]``.
        grid: of the same shape.
        moments: symmetric, positive semidefinite, ``[in, in]``.
        damping: see `DAMPING`.

    Returns:
        Codes, FP32 ``[out, in]``. Columns whose inputs are always 0 are rounded to the nearest.

    >>> grid = Grid(torch.ones(1, 2), torch.zeros(1, 2), -8, 7)
    >>> compensated(torch.tensor([[0.4, 0.4]]), grid, torch.ones(2, 2))  # equal inputs: only the sum counts
    tensor([[0., 1.]])
    """
    diagonal = moments.diagonal()
    if not bool(diagonal.any()):
        return grid.codes(weight)
    low, high = (torch.as_tensor(edge, dtype=weight.dtype).flatten() for edge in (grid.low, grid.high))
    order = torch.argsort(diagonal, descending=True, stable=True)
    factor = _inverse_factor(moments[order][:, order], damping).float()
    # Columns as rows, which lie together in memory: they are worked on one at a time.
    left = weight.T[order].contiguous()
    steps, zeros = grid.steps.T[order].contiguous(), grid.zeros.T[order].contiguous()
    codes = torch.empty_like(left)
    for start in range(0, len(left), BLOCK):
        block = slice(start, start + BLOCK)
        ordered = Grid(steps[block], zeros[block], low, high)
        errors = _round_block(left[block], ordered, factor[block, block], codes[block])
        left[block.stop :] -= factor[block, block.stop :].T @ errors
    return codes[torch.argsort(order)].T


def _round_block(left: Tensor, grid: Grid, factor: Tensor, codes: Tensor) -> Tensor:
    """Writes the codes of some columns ``[columns, out]``; returns their errors, over entries of the diagonal."""
    errors, diagonal = torch.empty_like(left), factor.diagonal().unbind()
    rows = zip(left.unbind(), grid.steps.unbind(), grid.zeros.unbind(), codes.unbind(), errors.unbind(), strict=True)
    for column, (wanted, step, zero, code, error) in enumerate(rows):
        torch.div(wanted, step, out=code).add_(zero).round_().clamp_(grid.low, grid.high)  # type: ignore[arg-type]
        torch.addcmul(wanted, code - zero, step, value=-1, out=error).div_(diagonal[column])
        left[column + 1 :].addcmul_(factor[column, column + 1 :, None], error, value=-1)
    return errors


def aimed_at_exact_outputs(weight: Tensor, own: Tensor, cross: Tensor, damping: float = DAMPING) -> Tensor:
    """The weight whose outputs on the inputs that it will be given are nearest to the exact ones on the exact inputs.

    With x an exact row of inputs and y the one given in its place, ``sum |W x - V y|^2 + d |V - W|^2`` is least at
    ``V = W + W (C - H) (H + d)^-1``, ``H = sum y y^T`` and ``C = sum x y^T``; what remains is quadratic in the distance
    to V, with H. So V is what GPTQ rounds.

    Args:
        weight: W, FP32 ``[out, in]``.
        own: H, ``[in, in]``.
        cross: C, ``[in, in]``.
        damping: d, see `DAMPING`.

    Returns:
        V, FP32 ``[out, in]``.

    Sources: Arai and Ichikawa, "Quantization Error Propagation", 2025; Zhang et al., "Qronos", 2025.

    >>> aimed_at_exact_outputs(torch.tensor([[3.0]]), torch.tensor([[4.0]]), torch.tensor([[2.0]]), damping=0)
    tensor([[1.5000]])
    """
    upper = _inverse_factor(own, damping)
    wanted = weight.double() @ (cross.double() - own.double())
    return weight + (wanted @ upper.T @ upper).float()


def _inverse_factor(moments: Tensor, damping: float) -> Tensor:
    """The upper Cholesky factor of the inverse, ``H^-1 = U^T U``; more is added where that is not positive definite."""
    mean = moments.double().diagonal().mean()
    while True:
        damped = moments.to(torch.float64, copy=True)
        damped.diagonal().add_(damping * mean)
        lower, failed = torch.linalg.cholesky_ex(damped)
        del damped  # at 9,216 inputs each of these matrices takes 680 MB
        if not int(failed):
            inverse = torch.cholesky_inverse(lower)
            del lower
            upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
            if not int(failed):
                result: Tensor = upper
                return result
        damping *= 10


ROUNDINGS.register("gptq", GPTQ("gptq", "GPTQ on the layer's inputs", "inputs"))
ROUNDINGS.register(
    "gptq_bias",
    GPTQ("gptq_bias", "GPTQ on the layer's inputs, mean errors in the biases", "inputs", corrects_bias=True),
)
ROUNDINGS.register(
    "sequential_gptq",
    GPTQ("sequential_gptq", "GPTQ on what the quantised layers before leave, one by one", "sequence"),
)
ROUNDINGS.register("output_gptq", GPTQ("output_gptq", "GPTQ, tokens weighed by what reaches the outputs", "gradients"))
ROUNDINGS.register(
    "descent",
    GPTQ("descent", "GPTQ on the layer's inputs, then codes and scales one by one", "inputs", sweeps=SWEEPS),
)
ROUNDINGS.register(
    "output_descent",
    GPTQ("output_descent", "the same, tokens weighed by what reaches the outputs", "gradients", sweeps=SWEEPS),
)
ROUNDINGS.register(
    "joint_descent",
    GPTQ(
        "joint_descent", "descent, then codes of all channels by what they do to the outputs", "factors", sweeps=SWEEPS
    ),
)
