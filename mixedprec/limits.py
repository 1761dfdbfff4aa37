"""Multiple-choice knapsack within several limits at once: bytes of the file, time of a pass, memory.

One choice per group, least summed damage, and of every resource no more than its room. `solver` is exact and fast for
one limit; with more, its lists of undominated partial plans grow too long. Here prices decide: at prices p >= 0,

    sum over groups of min over choices (damage + p . costs)  -  p . rooms

is a lower bound for every plan (Lagrange). The best prices are found by cutting planes, a few dozen evaluations of that
minimum. Choices whose priced damage is further above their group's least than the gap between the bound and a plan at
hand cannot be in a better plan: few are left, and HiGHS (`scipy.optimize.milp`) decides among these. Its tolerances do
not touch what is promised: costs are whole numbers that are summed anew, and a plan over a limit is never returned.

Sources: Everett, "Generalized Lagrange Multiplier Method", Operations Research 11(3), 1963; Kelley, "The Cutting-Plane
Method for Solving Convex Programs", J. SIAM 8(4), 1960; fixing by reduced costs as in Pisinger, EJOR 83(2), 1995.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from vggtkit.core.arrays import Array, Ints
from vggtkit.core.errors import InputError

CUTS = 100
CLOSE = 1e-9
"""Bound and model of the cutting planes may differ by this, relative."""
SECONDS = 10.0
"""For the search among what prices leave; then the best plan found is returned with its gap."""
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Limit:
    """What a plan may take of one resource.

    Attributes:
        costs: of every group, what its choices take; whole numbers from 0.
        room: for all groups together.
    """

    costs: Sequence[Ints]
    room: int


class OverLimit(InputError):  # noqa: N818 - a fact about the limits
    """No plan keeps limit ``number`` within those before it; at least ``smallest`` is needed."""

    def __init__(self, number: int, smallest: int) -> None:
        """Both, for whoever knows what the limit is called."""
        self.number, self.smallest = number, smallest
        super().__init__(f"limit {number} is below {smallest}, the least within the limits before it")


@dataclass(frozen=True)
class Within:
    """One pick per group, the summed damage, and a proven lower bound of any plan's."""

    picks: tuple[int, ...]
    damage: float
    bound: float


class CostTable:
    """Damages ``[groups, width]`` and costs ``[limits, groups, width]``; a group of fewer choices repeats its first."""

    def __init__(self, damages: Sequence[Array], limits: Sequence[Limit]) -> None:
        width = max(map(len, damages))
        filled = [[*range(len(d)), *[0] * (width - len(d))] for d in damages]
        self.rows = np.arange(len(damages))
        self.damages = np.stack([np.asarray(d, dtype=np.float64)[f] for d, f in zip(damages, filled, strict=True)])
        costs = [[np.asarray(c)[f] for c, f in zip(limit.costs, filled, strict=True)] for limit in limits]
        self.costs = np.array(costs, dtype=np.int64)
        self.rooms = np.array([limit.room for limit in limits], dtype=np.int64)
        self.choices = [len(d) for d in damages]

    def taken(self, picks: Ints) -> Ints:
        """Of every resource ``[limits]``, by a choice for every group ``[groups]``."""
        return np.asarray(self.costs[:, self.rows, picks].sum(1))

    def fits(self, picks: Ints) -> bool:
        """Whether every limit is kept by a choice for every group ``[groups]``."""
        return bool((self.taken(picks) <= self.rooms).all())

    def picked(self, picks: Ints) -> tuple[int, ...]:
        """Of ``[groups]``, numbers of choices that there are: one that repeats the first is the first."""
        return tuple(int(pick) if pick < count else 0 for pick, count in zip(picks, self.choices, strict=True))

    def damage(self, picks: Ints) -> float:
        """Of a choice for every group ``[groups]``, summed."""
        return float(self.damages[self.rows, picks].sum())


def solve_within(damages: Sequence[Array], limits: Sequence[Limit]) -> Within:
    """Pick one choice per group with the least summed damage that keeps every limit.

    Args:
        damages: of every group, what its choices do; from 0.
        limits: at least one.

    Returns:
        The plan and a lower bound of any plan's damage; both are the same, but for rounding, unless `SECONDS` ran out.

    Raises:
        OverLimit: no plan keeps them all: the first limit that cannot be kept within those before it, and the least
            that it would have to be.

    >>> bytes_, seconds = [np.array([10, 5])] * 2, [np.array([1, 3]), np.array([1, 2])]
    >>> harm = [np.array([0.0, 1.0]), np.array([0.0, 0.25])]
    >>> solve_within(harm, [Limit(bytes_, 15)]).picks, solve_within(harm, [Limit(bytes_, 20), Limit(seconds, 2)]).picks
    ((0, 1), (0, 0))
    """
    start = _feasible(damages, limits)
    table = CostTable(damages, limits)
    prices, bound, picks = best_prices(table, table.damages, start)
    picks = improved(table, table.damages, picks, prices)
    damage = table.damage(picks)
    if bound < damage * (1 - _ROUNDING):
        picks, bound = _decided(table, prices, bound, picks)
        damage = table.damage(picks)
    return Within(table.picked(picks), damage, min(bound, damage))


def best_prices(
    table: CostTable, values: Array, start: Ints, cuts: int = CUTS, guess: Array | None = None
) -> tuple[Array, float, Ints]:
    """Prices of the limits, the lower bound that they prove, and the plan of least value met on the way.

    Args:
        table: costs and rooms.
        values: what is minimised, ``[groups, width]``, of either sign.
        start: a plan that keeps the limits.
        cuts: evaluations at most.
        guess: prices to begin with.
    """
    rooms = np.maximum(table.rooms, 1).astype(np.float64)
    relative = table.costs / rooms[:, None, None]  # every limit is 1
    spread = float(np.ptp(values, axis=1).sum())
    best, least = start, float(values[table.rows, start].sum())
    if spread == 0:
        return np.zeros(len(rooms)), least, best
    scaled = values / spread
    prices, chosen, bound, planes = np.zeros(len(rooms)), np.zeros(len(rooms)), -np.inf, []
    if guess is not None:
        prices = guess * rooms / spread
    for _ in range(cuts):
        priced = scaled + np.tensordot(prices, relative, 1)
        picks = priced.argmin(1)
        slope = relative[:, table.rows, picks].sum(1) - 1.0
        value = float(scaled[table.rows, picks].sum())
        if value + float(prices @ slope) > bound:
            bound, chosen = value + float(prices @ slope), prices
        if table.fits(picks) and value * spread < least:
            best, least = picks, value * spread
        planes.append([*(-slope), 1.0, value])
        cut = np.array(planes)
        # No price helps once it outweighs all damages for the smallest saving that a limit knows; this is far above.
        solution = scipy.optimize.linprog(
            [*np.zeros(len(rooms)), -1.0], A_ub=cut[:, :-1], b_ub=cut[:, -1],
            bounds=[(0, 1e6)] * len(rooms) + [(None, None)], method="highs",
        )  # fmt: skip
        if solution.status != 0 or -solution.fun - bound <= CLOSE * max(abs(bound), 1e-3):
            break
        prices = solution.x[:-1]
    best = _nearby(table, scaled, relative, chosen, best)
    return chosen * spread / rooms, bound * spread, best


def _nearby(table: CostTable, scaled: Array, relative: Array, prices: Array, best: Ints) -> Ints:
    """The best of a plan and those at slightly higher prices, which fit."""
    least = float(scaled[table.rows, best].sum())
    for step in range(-20, 4):
        picks = (scaled + np.tensordot(prices * (1 + 2.0**step), relative, 1)).argmin(1)
        value = float(scaled[table.rows, picks].sum())
        if value < least and table.fits(picks):
            best, least = picks, value
    return best


def improved(table: CostTable, values: Array, picks: Ints, prices: Array, moves: int = 1000) -> Ints:
    """Change one group, or one that gains with one that pays for it, as long as that lowers the value and fits.

    Args:
        table: of the groups.
        values: ``[groups, width]``, to be lowered.
        picks: ``[groups]``, to begin with; they fit.
        prices: ``[limits]``, of a unit of every resource.
        moves: at most.
    """
    picks = picks.copy()
    priced = values + np.tensordot(prices, table.costs, 1)
    for _ in range(moves):
        gain = values - values[table.rows, picks][:, None]
        extra = table.costs - table.costs[:, table.rows, picks][:, :, None]
        room = table.rooms - table.taken(picks)
        worth = priced - priced[table.rows, picks][:, None]
        single = np.where((extra <= room[:, None, None]).all(0), gain, np.inf)
        best = int(single.argmin())
        move, value = [best], float(single.flat[best])
        order = np.argsort(worth, axis=None)[: 2 * len(picks)]
        g, e, owner = gain.flat[order], extra.reshape(len(extra), -1)[:, order], order // values.shape[1]
        pairs = np.where((e[:, :, None] + e[:, None, :] <= room[:, None, None]).all(0), g[:, None] + g, np.inf)
        pairs[owner[:, None] == owner] = np.inf
        if pairs.size and pairs.min() < value:
            one, two = np.unravel_index(pairs.argmin(), pairs.shape)
            move, value = [int(order[one]), int(order[two])], float(pairs[one, two])
        if not value < -_ROUNDING * max(abs(float(values[table.rows, picks].sum())), 1e-300):
            break
        for each in move:
            picks[each // values.shape[1]] = each % values.shape[1]
    return picks


def _feasible(damages: Sequence[Array], limits: Sequence[Limit]) -> Ints:
    """A plan that keeps all limits."""
    picks = np.array([int(np.argmin(costs)) for costs in limits[0].costs])
    least = sum(int(costs.min()) for costs in limits[0].costs)
    if least > limits[0].room:
        raise OverLimit(0, least)
    for number, limit in enumerate(limits[1:], 1):
        before = limits[:number]
        within = solve_within([np.asarray(costs, dtype=np.float64) for costs in limit.costs], before)
        picks = np.array(within.picks)
        least = int(sum(int(costs[pick]) for costs, pick in zip(limit.costs, picks, strict=True)))
        if least > limit.room:
            raise OverLimit(number, least)
    assert len(picks) == len(damages)
    return picks


def _decided(table: CostTable, prices: Array, bound: float, picks: Ints) -> tuple[Ints, float]:
    """The best plan among the choices that prices do not rule out, and a lower bound of any."""
    priced = table.damages + np.tensordot(prices, table.costs, 1)
    regret = priced - priced.min(1, keepdims=True)
    gap = table.damage(picks) - bound
    left = (regret <= gap * (1 + 1e-9)) & (np.arange(priced.shape[1]) < np.array(table.choices)[:, None])
    owners, columns = np.nonzero(left)
    count = len(owners)
    # In units of the gap, so that HiGHS's absolute tolerances are small beside what is decided.
    base = priced.argmin(1)
    room = table.rooms - table.taken(base)
    extra = table.costs[:, owners, columns] - table.costs[:, owners, base[owners]]
    scale = np.maximum(np.abs(extra).max(1), 1).astype(np.float64)
    one_each = scipy.sparse.csr_matrix((np.ones(count), (owners, np.arange(count))), shape=(len(base), count))
    # damage - bound = regret + prices . (rooms - taken), for every plan
    objective = (regret[owners, columns] - prices @ extra) / gap
    solution = scipy.optimize.milp(
        objective, integrality=np.ones(count), bounds=scipy.optimize.Bounds(0, 1),
        constraints=[
            scipy.optimize.LinearConstraint(one_each, 1, 1),
            scipy.optimize.LinearConstraint(extra / scale[:, None], -np.inf, room / scale),
        ],
        options={"mip_rel_gap": 0, "time_limit": SECONDS},
    )  # fmt: skip
    offset = table.damage(base)
    if solution.x is not None:
        chosen = base.copy()
        taken = np.round(solution.x) == 1
        chosen[owners[taken]] = columns[taken]
        if table.fits(chosen) and table.damage(chosen) < table.damage(picks):
            picks = chosen
    if solution.mip_dual_bound is not None and np.isfinite(solution.mip_dual_bound):
        proven = offset + gap * float(solution.mip_dual_bound) - 1e-6 * gap
        bound = max(bound, min(proven, table.damage(picks)))
    if solution.status == 0 and table.damage(picks) - bound <= 1e-5 * gap:
        bound = table.damage(picks)
    return picks, bound
