"""Plans within several limits against exhaustive search, and against HiGHS on the whole problem."""

import itertools
import time

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix

from mixedprec.limits import CostTable, Limit, OverLimit, solve_within
from mixedprec.solver import Choice, solve


def random_problem(
    seed: int, groups: int, choices: int, limits: int
) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """Damages over six decades, that fall with the first cost; further costs as they come."""
    rng = np.random.default_rng(seed)
    costs = [[rng.integers(0, 60_000, choices) for _ in range(groups)] for _ in range(limits)]
    damages = [10 ** rng.uniform(-7, -1) * rng.uniform(0.5, 2, choices) / (1 + costs[0][g]) for g in range(groups)]
    return damages, costs


def exhaustive(damages: list[np.ndarray], limits: list[Limit]) -> float | None:
    best = None
    for picks in itertools.product(*(range(len(d)) for d in damages)):
        taken = [sum(int(c[p]) for c, p in zip(limit.costs, picks, strict=True)) for limit in limits]
        if all(t <= limit.room for t, limit in zip(taken, limits, strict=True)):
            value = sum(float(d[p]) for d, p in zip(damages, picks, strict=True))
            best = value if best is None else min(best, value)
    return best


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.5, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_plan_equals_exhaustive_search(seed: int, share: float, count: int) -> None:
    """On 5 groups x 4 choices; where brute force finds nothing, a limit is named, and what it says is needed works."""
    damages, costs = random_problem(seed, 5, 4, count)
    low = [sum(int(c.min()) for c in own) for own in costs]
    limits = [Limit(own, int(least + share * 60_000)) for own, least in zip(costs, low, strict=True)]
    expected = exhaustive(damages, limits)
    if expected is None:
        with pytest.raises(OverLimit) as caught:
            solve_within(damages, limits)
        number, needed = caught.value.number, caught.value.smallest
        assert exhaustive(damages, [*limits[:number], Limit(costs[number], needed)]) is not None
        assert exhaustive(damages, [*limits[:number], Limit(costs[number], needed - 1)]) is None
        return
    found = solve_within(damages, limits)
    for limit in limits:
        assert sum(int(c[p]) for c, p in zip(limit.costs, found.picks, strict=True)) <= limit.room
    assert found.damage == pytest.approx(expected, rel=1e-9)
    assert found.bound <= found.damage
    assert found.bound == pytest.approx(expected, rel=1e-6)


def vggt_like(seed: int, groups: int) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Twelve formats in three executions: damage falls with the bytes, and is a little more where time is less."""
    rng = np.random.default_rng(seed)
    damages, sizes, seconds = [], [], []
    for _ in range(groups):
        weights, sensitivity = int(rng.choice([2**18, 2**20, 2**22])), 10 ** rng.uniform(-9, -3)
        bits = np.repeat(np.array([2.4, 2.7, 3.1, 3.5, 4.06, 4.3, 5.1, 6.1, 8.0, 8.1, 9, 16]), 3)
        speed = np.tile([4.0, 2.0, 1.0], 12)
        rounding = np.tile([1e-5, 1e-7, 0.0], 12)
        damages.append(sensitivity * (4.0**-bits * rng.lognormal(0, 0.3, 36) + rounding))
        sizes.append((weights * bits / 8).astype(np.int64))
        seconds.append((weights * rng.lognormal(0, 0.1, 36) / speed).astype(np.int64))
    return damages, sizes, seconds


def highs(damages: list[np.ndarray], limits: list[Limit]) -> float:
    owners = np.concatenate([np.full(len(d), g) for g, d in enumerate(damages)])
    columns = np.arange(len(owners))
    flat = np.concatenate(damages)
    found = milp(
        flat / flat.sum() * 1e6, integrality=np.ones(len(flat)), bounds=Bounds(0, 1),
        constraints=[LinearConstraint(csr_matrix((np.ones(len(flat)), (owners, columns))), 1, 1)]
        + [LinearConstraint(np.concatenate(limit.costs)[None] / limit.room, -np.inf, 1) for limit in limits],
        options={"mip_rel_gap": 0, "time_limit": 20},
    )  # fmt: skip
    return float(flat @ np.round(found.x))


@pytest.mark.parametrize("share", [0.05, 0.4])
def test_bytes_and_seconds_together_agree_with_highs(share: float) -> None:
    damages, sizes, seconds = vggt_like(1, 40)
    limits = [
        Limit(own, int(sum(c.min() for c in own) + share * sum(np.ptp(c) for c in own))) for own in (sizes, seconds)
    ]
    found = solve_within(damages, limits)
    assert found.damage == pytest.approx(highs(damages, limits), rel=1e-6)


def test_one_limit_agrees_with_the_other_solver() -> None:
    damages, sizes, _ = vggt_like(2, 60)
    room = int(1.3 * sum(c.min() for c in sizes))
    found = solve_within(damages, [Limit(sizes, room)])
    groups = [
        [Choice("", int(size), float(damage)) for size, damage in zip(*own, strict=True)]
        for own in zip(sizes, damages, strict=True)
    ]
    assert found.damage == pytest.approx(solve(groups, room).damage, rel=1e-9)


def test_506_layers_of_12_formats_and_3_executions_take_seconds() -> None:
    damages, sizes, seconds = vggt_like(0, 506)
    limits = [
        Limit(own, int(sum(c.min() for c in own) + share * sum(np.ptp(c) for c in own)))
        for own, share in ((sizes, 0.15), (seconds, 0.2))
    ]
    start = time.process_time()
    found = solve_within(damages, limits)
    assert time.process_time() - start < 30
    assert found.damage - found.bound <= 1e-4 * found.damage
    loose = solve_within(damages, [limits[0], Limit(seconds, 10**15)])
    assert loose.damage <= found.damage


def test_a_choice_that_fills_up_a_group_is_its_first() -> None:
    damages = [np.array([1.0, 0.5, 0.2]), np.array([0.3])]
    table = CostTable(damages, [Limit([np.array([1, 2, 3]), np.array([1])], 4)])
    assert table.picked(np.array([2, 2])) == (2, 0)
