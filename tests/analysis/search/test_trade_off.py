"""Measuring, quality targets, refinement and the front, on a network whose every plan can be measured."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.evaluation.evaluator import Evaluator
from analysis.report.charts.drawing import block_graph, block_order, draw_plan
from analysis.report.charts.pareto_chart import draw_pareto
from analysis.search.pareto import (
    BASELINE,
    PLAN,
    UNIFORM,
    pareto_from_values,
    pareto_table,
    pareto_to_json,
    trace_pareto,
)
from analysis.search.quality_target import QualityTarget, find_smallest, front_budgets, parse_drops
from analysis.search.swaps import propose_swaps, refine
from mixedprec import Evidence, Planned, data_free, parse_request, planned, quantized, uniform_assignment
from vggtkit.core.errors import InputError
from vggtkit.metrics.tensors import nmse
from vggtkit.model import VGGT, architecture, load_vggt
from vggtkit.scenes import Scene, SceneSource, load_scenes
from vggtkit.subject import subject_of
from vggtkit.subject.graph import topology

pytestmark = pytest.mark.usefixtures("spoken_in_options")

KEYS = ("int8_per_channel_sym", "int4_group_32", "int4_two_level_16", "int3_group_32", "fp16")


@pytest.fixture(scope="module")
def network(model_folder: Path) -> VGGT:
    return load_vggt(model_folder)


@pytest.fixture(scope="module")
def evidence(model_folder: Path) -> Evidence:
    return data_free(str(model_folder), candidates=KEYS)


@pytest.fixture(scope="module")
def rooms() -> list[Scene]:
    return load_scenes(SceneSource("synthetic", None, count=2, views=2), "evaluation", img_size=32, patch_size=8)


@pytest.fixture(scope="module")
def start(model_folder: Path, evidence: Evidence) -> Planned:
    return planned(evidence, architecture(model_folder), parse_request("int4_group_32", formats="all"))


@pytest.fixture(scope="module")
def evaluator(network: VGGT, rooms: list[Scene]) -> Evaluator:
    return Evaluator(subject_of(network), rooms)


def test_measured_damage_is_the_mean_error_of_the_outputs(
    network: VGGT, rooms: list[Scene], evaluator: Evaluator, evidence: Evidence
) -> None:
    formats = uniform_assignment(evidence.layers, "int4_group_32")
    found = evaluator.measure(formats)
    expected = []
    with torch.no_grad():
        for scene in rooms:
            before = network(scene.images, scene.query_points)
            with quantized(network, formats):
                after = network(scene.images, scene.query_points)
            expected.append(np.mean([nmse(before[name], after[name]) for name in evidence.damage]))
    assert found.per_scene == pytest.approx(expected)
    assert found.damage == pytest.approx(np.mean(expected))
    assert evaluator.measure(formats, [1]).damage == pytest.approx(expected[1])
    assert evaluator.fp32().damage == 0
    with pytest.raises(InputError, match="no scenes to measure on"):
        Evaluator(subject_of(network), [])


def test_the_smallest_file_that_meets_a_target_is_next_to_one_that_misses_it(
    start: Planned, evaluator: Evaluator
) -> None:
    limit = evaluator.measure(start.plan.formats).damage
    best, tried = find_smallest(start, evaluator, QualityTarget(damage=limit))
    assert best.measured.damage <= limit
    assert evaluator.measure(best.planned.plan.formats).damage == best.measured.damage
    budgets = list(front_budgets(start, 33))
    position = budgets.index(best.planned.plan.budget_bytes)
    assert position == 0 or any(t.planned.plan.budget_bytes == budgets[position - 1] and t.broken for t in tried)
    refusal = r"no plan of these formats meets the quality target: the largest, .* breaks damage"
    with pytest.raises(InputError, match=refusal):
        find_smallest(start, evaluator, QualityTarget(damage=1e-30))


def test_a_figure_that_may_not_drop_is_asked_of_the_truth(start: Planned, evaluator: Evaluator, network: VGGT) -> None:
    best, _ = find_smallest(start, evaluator, QualityTarget(drops=parse_drops("absrel=50%,auc30=100")))
    fp32, found = evaluator.fp32().geometry["abs_rel"].mean, best.measured.geometry["abs_rel"].mean
    assert found <= 1.5 * fp32
    blind = Evaluator(subject_of(network), [replace(scene, truth=None) for scene in evaluator.scenes])
    with pytest.raises(InputError, match="these scenes give no abs_rel, they have no ground truth for it"):
        find_smallest(start, blind, QualityTarget(drops=parse_drops("absrel=2%")))


@pytest.mark.parametrize("text", ["foo=1", "auc30", "auc30=x", "auc30=-1", "", "auc30=1,,"])
def test_drops_that_say_nothing_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--max-drop: .* is not of the form FIGURE=NUMBER"):
        parse_drops(text)


def test_refining_never_makes_either_half_worse(start: Planned, evaluator: Evaluator) -> None:
    found = refine(start, evaluator, 6)
    assert found.tried == 6
    assert found.planned.plan.size_bytes <= start.plan.budget_bytes
    assert all(after <= before for before, after in zip(found.before, found.after, strict=True))
    measured = evaluator.measure(found.planned.plan.formats)
    assert measured.per_scene == pytest.approx(found.after)
    if found.accepted:
        assert not found.planned.plan.optimal
        assert measured.damage < evaluator.measure(start.plan.formats).damage
    else:
        assert found.planned.plan is start.plan
    alone = Evaluator(evaluator.subject, evaluator.scenes[:1])
    with pytest.raises(InputError, match="one calibration scene cannot check"):
        refine(start, alone, 1)


def test_swaps_stay_within_the_budget_and_come_by_predicted_change(start: Planned) -> None:
    problem = start.problem
    current = {layer.name: start.plan.formats[layer.name] for layer in problem.layers}
    before, found = problem.damage(current), list(propose_swaps(problem, current))
    assert [swap.predicted_change for swap in found] == sorted(swap.predicted_change for swap in found)
    for swap in found[::50]:
        after = current | {swap.up: swap.up_key, swap.down: swap.down_key}
        assert problem.size_bytes(after) <= problem.budget_bytes
        assert problem.damage(after) - before == pytest.approx(swap.predicted_change, abs=1e-12)
        assert swap.predicted_change >= -1e-15  # nothing is better than the optimum


def test_swaps_of_a_joint_plan_count_what_layers_do_to_each_other(model_folder: Path, evidence: Evidence) -> None:
    """Against the damage of the space, which knows nothing of swaps; none is better than the plan."""
    generator = np.random.default_rng(0)
    changes = {
        name: (np.sqrt(values)[:, :, None, None] * generator.standard_normal((*values.shape, 3, 2))).astype(np.float32)
        for name, values in evidence.damage.items()
    }
    signed = replace(evidence, changes={name: values + 0.5 * values[:, :, :1] for name, values in changes.items()})
    squares = {name: np.square(v, dtype=np.float64).mean((2, 3)) for name, v in signed.changes.items()}
    request = parse_request("int4_group_32", formats="all")
    found = planned(replace(signed, damage=squares), architecture(model_folder), request)
    assert found.plan.coupling > 0.01
    current = {layer.name: found.plan.formats[layer.name] for layer in found.problem.layers}
    tried = list(propose_swaps(found.problem, current, found.plan.coupling))
    assert len(tried) > 100
    for swap in tried[::40]:
        after = found.search_space.damage(found.plan.formats | {swap.up: swap.up_key, swap.down: swap.down_key})
        assert after - found.plan.total_damage == pytest.approx(swap.predicted_change, rel=1e-3, abs=1e-9)
    assert tried[0].predicted_change >= -1e-9 * found.plan.total_damage


def test_the_front_holds_plans_schemes_and_baselines(start: Planned, evaluator: Evaluator, tmp_path: Path) -> None:
    found = trace_pareto(start, evaluator, budgets=6, measure=2, facts={}, fp32_bytes=10**6)
    plans = found.of_kind(PLAN)
    assert len(plans) == 7
    assert sum(point.measured is not None for point in plans) == 3
    assert [p.size_bytes for p in plans] == sorted(p.size_bytes for p in plans)
    assert [p.predicted for p in plans] == sorted((p.predicted for p in plans), reverse=True)
    assert {p.title for p in found.of_kind(UNIFORM)} == {"INT8 channel sym", "INT4 g32"}
    assert len(found.of_kind(BASELINE)) >= 8
    values = json.loads(pareto_to_json(found))
    assert len(values["points"]) == len(found.points)
    read = pareto_from_values(values)
    assert pareto_to_json(read) == pareto_to_json(found)
    assert [point.geometry for point in read.points] == [point.geometry for point in found.points]
    assert len(pareto_table(found).rows) == sum(point.measured is not None for point in found.points)
    losing = replace(found, points=(replace(plans[-1], measured=1.0), replace(plans[0], kind=UNIFORM, measured=0.5)))
    assert [point.measured for point in losing.beating()] == [0.5]
    draw_pareto(found, tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").read_bytes()[:4] == b"\x89PNG"
    predicted = trace_pareto(start, None, budgets=3, measure=0, facts={}, fp32_bytes=10**6)
    draw_pareto(predicted, tmp_path / "predicted.png")
    assert not predicted.beating()


def test_every_layer_is_drawn_in_the_order_of_execution(start: Planned, network: VGGT, tmp_path: Path) -> None:
    graph = topology(network.config)
    order = block_order(graph)
    assert order[:2] == ["patch_embed", "vit.0"]
    assert order.index("frame.0") < order.index("global.0") < order.index("camera_head")
    assert all(order.index(a) < order.index(b) for a, b in block_graph(graph).edges if a != "input")
    draw_plan(start.plan, list(start.search_space.evidence.layers), graph, tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes()[:4] == b"\x89PNG"
