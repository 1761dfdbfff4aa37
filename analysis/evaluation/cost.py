"""What a scheme costs in cameras, depth and points: differences from FP32 scene by scene, and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vggtkit.metrics.geometry import GEOMETRY, HEADLINE, WITHOUT_TRUTH, Estimate, over_scenes

# Where nothing changes, n differences have one sign, and their interval excludes 0, with a chance of 2^(1 - n).
SCENES_TO_JUDGE = 6


def cost_over_scenes(
    reference: Sequence[Mapping[str, float]],
    candidate: Sequence[Mapping[str, float]],
    seed: int,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """Mean and interval of the differences, each taken within a scene.

    Scenes differ far more than schemes do. The difference within a scene leaves that out, so its interval says whether
    a scheme changes anything, which the two intervals of the means do not. It is the paired bootstrap.

    Args:
        reference: figures of FP32, one row per scene.
        candidate: figures of the scheme, of the same scenes in the same order.
        seed: of the bootstrap.
        level: of confidence.

    Returns:
        Candidate minus reference of every figure that both have in at least one scene.

    Raises:
        ValueError: the numbers of scenes differ.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 and 13.

    >>> cost_over_scenes([{"abs_rel": 0.25}, {"abs_rel": 2.25}], [{"abs_rel": 0.5}, {"abs_rel": 2.5}], seed=0)
    {'abs_rel': Estimate(mean=0.25, low=0.25, high=0.25, scenes=2)}
    """
    return over_scenes([changes(*pair) for pair in zip(reference, candidate, strict=True)], seed, level)


def changes(reference: Mapping[str, float], candidate: Mapping[str, float]) -> dict[str, float]:
    """Candidate minus reference of every figure that both have.

    >>> changes({"auc30": 0.5, "agreement": 0.25}, {"auc30": 0.75})
    {'auc30': 0.25}
    """
    return {key: candidate[key] - reference[key] for key in GEOMETRY if key in reference and key in candidate}


def select_known(known: Mapping[str, object], keys: Sequence[str] = HEADLINE) -> list[str]:
    """Those of the keys that are known; where none is, the label-free agreement."""
    return [key for key in keys if key in known] or [key for key in WITHOUT_TRUTH if key in known]


def describe_cost(
    cost: Mapping[str, Estimate] | Mapping[str, float], keys: Sequence[str] = HEADLINE, *, intervals: bool = False
) -> str:
    """What a scheme costs, in the users' words.

    Args:
        cost: what `cost_over_scenes` returned, or `changes` of a scene or of means.
        keys: of the figures to name; where none of them is known, the label-free agreement is named.
        intervals: whether to add them, where there are scenes enough.

    Returns:
        Changes, signed as candidate minus reference; "" where there is nothing to tell.

    >>> cost = {"auc30": Estimate(-0.004, -0.012, 0.003, 4), "abs_rel": Estimate(0.002, 0.001, 0.003, 4)}
    >>> describe_cost(cost)
    'AUC@30 -0.4 points, AbsRel +0.002'
    >>> describe_cost(cost, ["auc30"], intervals=True)
    'AUC@30 -0.4 points [-1.2, +0.3]'
    """
    parts = []
    for key in select_known(cost, keys):
        change = cost[key]
        ends = change_interval(key, change) if intervals and isinstance(change, Estimate) else ""
        parts.append(GEOMETRY[key].change_text(change.mean if isinstance(change, Estimate) else change) + ends)
    return ", ".join(parts)


def change_interval(key: str, change: Estimate) -> str:
    """The interval of a change behind a space, say ``" [-1.2, +0.3]"``; "" where there is none."""
    ends = (GEOMETRY[key].change_number(end) for end in (change.low, change.high))
    return f" [{', '.join(ends)}]" if change.has_interval else ""


def beyond_noise(cost: Mapping[str, Estimate], keys: Sequence[str] = HEADLINE) -> str:
    """Which of the changes have an interval that excludes 0, with the digits that are shown; in words.

    Of fewer than `SCENES_TO_JUDGE` scenes it says nothing, because they would often all agree by chance.

    >>> beyond_noise({"auc30": Estimate(-0.004, -0.012, 0.003, 9), "abs_rel": Estimate(0.002, 0.001, 0.003, 9)})
    'AbsRel'
    """
    shown = [key for key in select_known(cost, keys) if cost[key].has_interval and cost[key].scenes >= SCENES_TO_JUDGE]
    if not shown:
        return "n/a"
    return ", ".join(GEOMETRY[key].title for key in shown if _excludes_zero(key, cost[key])) or "nothing"


def _excludes_zero(key: str, change: Estimate) -> bool:
    low, high = (float(GEOMETRY[key].change_number(end)) for end in (change.low, change.high))
    return low > 0 or high < 0
