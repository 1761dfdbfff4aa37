"""Formats chosen jointly: the errors of layers have signs, so what they do together is not the sum of what each does.

To first order a plan changes an output, by its norm, along a random vector by the sum of its layers' changes x_l
(`sensitivity.jacobian_sketch`), and its damage is

    E[(sum_l x_l)^2] = sum_l E[x_l^2] + sum_(l != m) E[x_l x_m].

`solver` minimises the first sum. The terms between layers are many and known from few scenes and probes: a search that
trusted them would find errors that cancel in these samples alone. So they are shrunk,

    damage = sum_l E[x_l^2] + c sum_(l != m) E[x_l x_m] = (1 - c) sum_l E[x_l^2] + c E[(sum_l x_l)^2],

by the factor c that makes them right in the mean square, estimated from how much they differ between scenes
(`coupling_of`). That is a convex quadratic function of the choices, minimised in two steps. Its least value over all
mixtures of plans is a lower bound for every plan; it is approached by whole plans, each the best for the slopes at the
best mixture of those before. The best of these plans are then improved by changing one layer or two at a time.

Sources: Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of
Multivariate Analysis 88(2), 2004, and Schaefer and Strimmer, "A shrinkage approach to large-scale covariance matrix
estimation", Statistical Applications in Genetics and Molecular Biology 4(1), 2005 (shrinking to the diagonal); von
Hohenbalken, "Simplicial decomposition in nonlinear programming algorithms", Mathematical Programming 13, 1977.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy

from mixedprec.limits import CostTable, Limit, best_prices
from mixedprec.solver import Choice, Solution, bytes_limit, solve
from vggtkit.core.arrays import Array, Ints

ROUNDS = 40
GAP = 2e-3
"""The lower bound is good enough at this distance from the least value of any mixture, relative to it."""
BISECTIONS = 40
PLANES = 40
"""Cutting planes for the prices of several limits, in each of the rounds."""
STARTS = 4
"""Plans that are improved, the best first."""
MOVES = 1000
CONSIDERED = 300
"""Of all changes of one layer, the most promising that are combined into pairs."""
_ROUNDING = 1e-9


def solve_jointly(
    groups: Sequence[Sequence[Choice]], changes: Sequence[Array], budget_bytes: int, limits: Sequence[Limit] = ()
) -> Solution:
    """Pick one choice per group within the budget, with the least damage of all together.

    Args:
        groups: the choices of every group, in any order.
        changes: of every group, ``[choices, scenes, samples]``: what each choice does along random vectors, with its
            sign, scaled so that the sum of the squares of all samples is its damage.
        budget_bytes: bytes for these groups alone.
        limits: of further resources.

    Returns:
        The plan, its damage with the terms between groups, a proven ``bound`` of any plan's, and the ``coupling`` that
        both are for. Where the scenes say nothing about those terms, as one scene does, it is what `solve` returns.

    Raises:
        Infeasible, OverLimit: no plan keeps the budget and the limits.
        InputError: as `solve`.

    >>> up = np.array([[[0.0], [0.0]], [[1.0], [1.0]]])
    >>> groups = [[Choice("int8", 2, 0.0), Choice("int4", 1, damage)] for damage in (2.0, 2.42, 0.5)]
    >>> solve(groups, budget_bytes=4).picks
    (1, 0, 1)
    >>> solve_jointly(groups, [up, -1.1 * up, 0.5 * up], budget_bytes=4).picks  # the first two cancel
    (1, 1, 0)
    """
    alone = solve(groups, budget_bytes, limits)
    coupling = coupling_of(np.stack([change[pick] for change, pick in zip(changes, alone.picks, strict=True)]))
    if coupling == 0:
        return alone
    joint = _Joint(groups, changes, [bytes_limit(groups, budget_bytes), *limits], coupling, alone)
    plans, bound = joint.relaxed()
    picks = min(
        (joint.improved(plan) for plan in sorted(filter(joint.table.fits, plans), key=joint.damage)[:STARTS]),
        key=joint.damage,
    )
    damage = joint.damage(picks)
    is_best = bound >= damage * (1 - _ROUNDING)
    return Solution(joint.table.picked(picks), joint.size(picks), damage, min(bound, damage), is_best, coupling)


def coupling_of(changes: Array) -> float:
    """How far to trust the terms between groups, from 0 (not at all) to 1.

    1 minus their summed squared standard errors over their summed squares, from the differences between scenes.

    Args:
        changes: of the chosen formats, ``[groups, scenes, samples]``.

    >>> alike, opposed = np.array([[[1.0], [1.0]], [[2.0], [2.0]]]), np.array([[[1.0], [1.0]], [[2.0], [-2.0]]])
    >>> coupling_of(alike), coupling_of(opposed)
    (1.0, 0.0)
    """
    scenes = changes.shape[1]
    if scenes < 2:
        return 0.0
    total = np.zeros((len(changes), len(changes)))
    squares = np.zeros_like(total)
    for scene in range(scenes):
        # One scene's part of a term, times the scenes, estimates the whole term; so their mean is the term itself, and
        # their spread says how well it is known. What a layer does alone is no term between layers.
        products = scenes * changes[:, scene] @ changes[:, scene].T
        np.fill_diagonal(products, 0.0)
        total += products
        squares += products**2
    mean = total / scenes
    errors = (squares / scenes - mean**2) / (scenes - 1)
    size = float((mean**2).sum())
    return float(np.clip(1 - errors.sum() / size, 0, 1)) if size > 0 else 0.0


def damage_together(changes: Array, coupling: float) -> float:
    """Damage of one output by layers that are all quantised; without coupling the sum of what each does alone.

    Args:
        changes: of the output by every layer as it is chosen, ``[layers, scenes, probes]``.
        coupling: how far the terms between layers count.

    >>> changes = np.array([[[1.0]], [[2.0]]])
    >>> damage_together(changes, 0.0), damage_together(changes, 1.0)
    (5.0, 9.0)
    """
    alone, together = np.square(changes).mean((1, 2)).sum(), np.square(changes.sum(0)).mean()
    return float((1 - coupling) * alone + coupling * together)


class _Joint:
    """The problem in arrays; groups of fewer choices repeat their first one."""

    def __init__(
        self,
        groups: Sequence[Sequence[Choice]],
        changes: Sequence[Array],
        limits: Sequence[Limit],
        coupling: float,
        first: Solution,
    ) -> None:
        self.groups, self.coupling, self.first = groups, coupling, np.array(first.picks)
        self.table = CostTable([np.array([choice.damage for choice in group]) for group in groups], limits)
        self.prices = np.eye(len(limits))[0]  # of bytes alone, until there are better ones
        # All groups get one width, so that a plan is one index into an array.
        widest = max(map(len, groups))
        filled = [[*range(len(group)), *[0] * (widest - len(group))] for group in groups]
        self.rows = np.arange(len(groups))
        self.sizes, self.alone = self.table.costs[0], self.table.damages
        # What an execution does has no sign: it counts in full, whatever the coupling.
        self.input_damage = np.array([[g[i].input_damage for i in row] for g, row in zip(groups, filled, strict=True)])
        self.linear = (1 - coupling) * self.alone + coupling * self.input_damage
        self.changes = np.stack([c.reshape(len(c), -1)[row] for c, row in zip(changes, filled, strict=True)])
        self.energy = np.square(self.changes).sum(2)

    def size(self, picks: Ints) -> int:
        """Of a choice for every group, ``picks`` ``[groups]``, in bytes."""
        return int(self.sizes[self.rows, picks].sum())

    def damage(self, picks: Ints) -> float:
        """Of a choice for every group, ``[groups]``, with the terms between groups."""
        together = self.changes[self.rows, picks].sum(0)
        return float(self._value(self.linear[self.rows, picks].sum(), together))

    def _value(self, linear: float, together: Array) -> float:
        return linear + self.coupling * float(together @ together)

    def relaxed(self) -> tuple[list[Ints], float]:
        """The plans on the way to the least value over all mixtures, and that value's lower bound."""
        plans = [self.first]
        shares = np.ones(1)
        bound = 0.0
        for _ in range(ROUNDS):
            linear = np.array([self.linear[self.rows, plan].sum() for plan in plans])
            together = np.stack([self.changes[self.rows, plan].sum(0) for plan in plans])
            shares = self._mixed(linear, together, np.append(shares, np.zeros(len(plans) - len(shares))))
            mean, change = float(shares @ linear), shares @ together
            value = self._value(mean, change)
            slopes = self.linear + 2 * self.coupling * (self.changes @ change)
            steepest, least = self._steepest(slopes)
            # The function is convex: no plan is below its tangent at the mixture.
            at_mixture = mean + 2 * self.coupling * float(change @ change)
            bound = max(bound, value + least - at_mixture)
            plans.append(steepest)
            if value - bound <= GAP * value:
                break
        return plans, bound

    def _mixed(self, linear: Array, together: Array, start: Array) -> Array:
        """Shares of the plans in their best mixture."""
        # SLSQP stops at an absolute tolerance, and damages are small: the value is 1 at the start.
        scale = 1 / max(self._value(float(start @ linear), start @ together), np.finfo(float).tiny)

        def value(shares: Array) -> float:
            return scale * self._value(float(shares @ linear), shares @ together)

        def slope(shares: Array) -> Array:
            return scale * (linear + 2 * self.coupling * together @ (shares @ together))

        whole = {"type": "eq", "fun": lambda shares: shares.sum() - 1, "jac": np.ones_like}
        minimum = scipy.optimize.minimize(
            value, start, jac=slope, bounds=[(0, 1)] * len(start), constraints=[whole], method="SLSQP",
            options={"maxiter": 200, "ftol": 1e-9},
        )  # fmt: skip
        shares = np.clip(minimum.x, 0, 1)
        return np.asarray(shares / shares.sum())

    def _steepest(self, slopes: Array) -> tuple[Ints, float]:
        """A plan of few summed slopes, and a lower bound of any plan's: every byte at the least price that fits.

        At any price, the least sum of slopes and prices less the price of the whole budget is a bound (Lagrange).
        """
        if len(self.table.rooms) > 1:
            self.prices, bound, steepest = best_prices(self.table, slopes, self.first, PLANES, self.prices)
            return steepest, bound
        bound, budget_bytes = -np.inf, int(self.table.rooms[0])

        def plan(price: float) -> Ints | None:
            nonlocal bound
            priced = slopes + price * self.sizes
            picks = np.asarray(priced.argmin(1))
            bound = max(bound, float(priced[self.rows, picks].sum()) - price * budget_bytes)
            return picks if self.size(picks) <= budget_bytes else None

        if (picks := plan(0.0)) is not None:
            return picks, bound
        low, high = 0.0, max(float(np.ptp(slopes)) / budget_bytes, float(np.finfo(float).tiny))
        while (picks := plan(high)) is None:
            low, high = high, 4 * high
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            if (cheaper := plan(middle)) is None:
                low = middle
            else:
                picks, high = cheaper, middle
        return picks, bound

    def improved(self, picks: Ints) -> Ints:
        """Change one group or two of ``[groups]`` at a time, whatever lowers the damage most, until nothing does."""
        picks = picks.copy()
        for _ in range(MOVES):
            moves, gain = self._best_move(picks)
            if gain >= -_ROUNDING * self.damage(picks):
                break
            for group, pick in moves:
                picks[group] = pick
        return picks

    def _best_move(self, picks: Ints) -> tuple[list[tuple[int, int]], float]:
        """The change of one group or two that lowers the damage most within the bytes left, and by how much.

        Damage is (1 - c) sum_l a_l + c |s|^2 with s = sum_l x_l. Replacing x by y in one group changes |s|^2 by
        2 s.(y - x) + |y - x|^2; replacing in a second group too adds 2 (y - x).(y' - x'), as s has moved meanwhile.
        """
        now = self.changes[self.rows, picks]
        together = now.sum(0)
        # Per group and choice: s.(y - x), and |y - x|^2 from squares that are at hand, without forming y - x.
        own = self.energy[self.rows, picks][:, None]
        towards = self.changes @ together - (now @ together)[:, None]
        apart = self.energy + own - 2 * (self.changes @ now[:, :, None])[:, :, 0]
        linear = self.linear - self.linear[self.rows, picks][:, None]
        # From here on a move is one number, group * width + choice.
        gains = (linear + self.coupling * (2 * towards + apart)).ravel()
        costs = self.table.costs - self.table.costs[:, self.rows, picks][:, :, None]
        costs = costs.reshape(len(costs), -1)
        priced = self.prices @ costs
        room = (self.table.rooms - self.table.taken(picks))[:, None]
        width = self.sizes.shape[1]

        # A pair is a move that helps with one that pays for it: all pairs would be a million times the groups.
        better = np.argsort(gains, kind="stable")[:CONSIDERED]
        saving = np.flatnonzero(priced < 0)
        saving = saving[np.argsort(gains[saving] / -priced[saving], kind="stable")[:CONSIDERED]]
        first = self.changes.reshape(len(gains), -1)[better] - now[better // width]
        second = self.changes.reshape(len(gains), -1)[saving] - now[saving // width]
        pairs = gains[better][:, None] + gains[saving] + 2 * self.coupling * first @ second.T
        # Two moves of the same group are no pair: each is made from the same present choice.
        too_large = np.any(costs[:, better][:, :, None] + costs[:, saving][:, None] > room[:, :, None], axis=0)
        pairs[too_large | (better[:, None] // width == saving // width)] = np.inf

        fits = np.all(costs <= room, axis=0)
        single = next((move for move in better if fits[move]), None)
        moves = [] if single is None else [([single], float(gains[single]))]
        if pairs.size:
            one, other = np.unravel_index(np.argmin(pairs), pairs.shape)
            moves.append(([better[one], saving[other]], float(pairs[one, other])))
        best, gain = min(moves, key=lambda move: move[1], default=([], 0.0))
        return [divmod(int(move), width) for move in best], gain
