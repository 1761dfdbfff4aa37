"""Evaluation: the same numbers as the exported checkpoints, their sizes, fair timing."""

import itertools
import math
import statistics
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mixedprec.apply
from analysis import compare_outputs
from analysis.evaluation.candidates import Rivals
from analysis.evaluation.cost import changes, describe_cost
from analysis.evaluation.results import Evaluation
from analysis.evaluation.run import compared_candidates, evaluate
from mixedprec import Plan, load_quantized, overhead_bytes, save_quantized, uniform_assignment
from vggtkit.core.errors import InputError
from vggtkit.metrics.depth import Alignment
from vggtkit.metrics.geometry import GEOMETRY, geometry_metrics
from vggtkit.metrics.outputs import OutputMetrics
from vggtkit.model import VGGT, load_vggt, model_fingerprint
from vggtkit.quant import UNIFORM_SCHEMES, find_layers, quantize_layer
from vggtkit.quant import candidates as scored_formats
from vggtkit.scenes import Scene, synthetic_scenes
from vggtkit.subject import VGGTSubject, subject_of

CANDIDATES = scored_formats()

FEW = Rivals(schemes=("int8_per_channel_sym", "int4_group_128"))
"""Enough to tell one scheme from another."""

MODULE = sys.modules["analysis.evaluation.run"]  # the package's attribute of this name is the function


@pytest.fixture
def model(model_folder: Path) -> VGGT:
    return load_vggt(model_folder)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return synthetic_scenes(2, 2, (32, 32), seed=0, split="evaluation")


def plan_of(model: VGGT, keep: str = "fp16") -> Plan:
    """A plan with every candidate format in it."""
    formats = dict(zip((layer.name for layer in find_layers(model)), itertools.cycle(CANDIDATES), strict=False))
    sizes = {name: quantize_layer(model.get_submodule(name), key).nbytes for name, key in formats.items()}
    return Plan(
        model_fingerprint(model), "tiniest", "optimal", "sketch", "1MB", 10**6, keep, overhead_bytes(model, keep),
        formats, sizes, {"depth": 0.25}, 0.25, 0.2, optimal=False,
    )  # fmt: skip


def evaluated(
    model: VGGT, scenes: list[Scene], plan: Plan | None, repeats: int = 0, rivals: Rivals = FEW,
    alignment: Alignment = "median",
) -> Evaluation:  # fmt: skip
    return evaluate(
        model, scenes, plan, facts={"model": "tiniest"}, weights_note="random", repeats=repeats, rivals=rivals,
        alignment=alignment,
    )  # fmt: skip


@pytest.mark.parametrize("keep", ["fp16", "fp32"])
def test_damage_and_size_are_those_of_the_exported_checkpoint(
    model: VGGT, scenes: list[Scene], tmp_path: Path, keep: str
) -> None:
    """Bit for bit, and byte for byte."""
    plan = plan_of(model, keep)
    scenes, rivals = (scenes, Rivals()) if keep == "fp16" else (scenes[:1], FEW)
    results = {result.key: result for result in evaluated(model, scenes, plan, rivals=rivals).results}
    references = [subject_of(model).predict(scene) for scene in scenes]
    for candidate in compared_candidates(subject_of(model), plan, rivals=rivals):
        path = tmp_path / f"{candidate.key}.safetensors"
        assert results[candidate.key].size_bytes == save_quantized(model, candidate.assignment, path, keep=keep)
        loaded = load_quantized(path)
        compared = [
            compare_outputs(reference, subject_of(loaded).predict(scene))
            for reference, scene in zip(references, scenes, strict=True)
        ]
        assert results[candidate.key].per_scene == tuple(map(damage_of, compared))
        assert 0 < results[candidate.key].damage < math.inf
    assert results["plan"].size_bytes == plan.size_bytes


def test_fp32_has_the_size_of_the_fp32_file(model: VGGT, scenes: list[Scene], tmp_path: Path) -> None:
    everything = uniform_assignment(find_layers(model), "fp32")
    size = save_quantized(model, everything, tmp_path / "model.safetensors", keep="fp32")
    fp32 = evaluated(model, scenes[:1], None).results[0]
    assert (fp32.key, fp32.size_bytes, fp32.damage, fp32.per_scene) == ("fp32", size, 0.0, (0.0,))


def test_geometry_is_that_of_the_outputs_against_the_truth(model: VGGT, scenes: list[Scene]) -> None:
    """FP32, the schemes and the plan; means over the scenes inside their intervals."""
    fp32, *others = evaluated(model, scenes, plan_of(model)).results
    rows = [geometry_metrics(subject_of(model).predict(scene), scene.truth, (32, 32)) for scene in scenes]
    expected = {key: statistics.fmean(row[key] for row in rows) for key in GEOMETRY}
    assert {key: estimate.mean for key, estimate in fp32.geometry.items()} == pytest.approx(expected)
    assert (fp32.cost, fp32.changes) == ("", {})
    for scheme in others:
        assert list(scheme.geometry) == list(GEOMETRY)
        assert all(e.low <= e.mean <= e.high and e.scenes == len(scenes) for e in scheme.geometry.values())
        assert scheme.cost == describe_cost(scheme.changes)
        differences = changes(expected, {key: e.mean for key, e in scheme.geometry.items()})
        assert {key: e.mean for key, e in scheme.changes.items()} == pytest.approx(differences, abs=1e-12)
        assert scheme.geometry != fp32.geometry


def test_cost_is_the_scheme_against_fp32_and_not_the_reverse(
    model: VGGT, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Depth that turns into noise wherever a layer is packed must raise AbsRel."""

    original = VGGTSubject.outputs

    def noisy_if_packed(subject: VGGTSubject, returned: object) -> dict[str, Tensor]:
        found = original(subject, returned)
        if is_packed(subject):
            noise = torch.rand(found["depth"].shape, generator=torch.Generator().manual_seed(0))
            found["depth"] = found["depth"] * (0.1 + 10 * noise)
        return found

    monkeypatch.setattr(VGGTSubject, "outputs", noisy_if_packed)
    _, *others = evaluated(model, scenes, None).results
    assert all("AbsRel +" in scheme.cost for scheme in others)


def test_depth_is_aligned_as_asked(model: VGGT, scenes: list[Scene]) -> None:
    """Only the figures of depth change, those of FP32 and of the schemes."""
    kinds: list[Alignment] = ["median", "scale_shift"]
    found = [evaluated(model, scenes[:1], None, alignment=kind).results for kind in kinds]
    for median, shifted in zip(*found, strict=True):
        moved = changes(*({key: e.mean for key, e in each.geometry.items()} for each in (median, shifted)))
        assert {key for key, change in moved.items() if change} == {"abs_rel", "rmse", "delta125"}
        assert moved["rmse"] < 0


def test_scenes_without_truth_have_the_agreement_alone(model: VGGT, scenes: list[Scene]) -> None:
    fp32, *others = evaluated(model, [replace(scenes[0], truth=None)], None).results
    assert all(list(result.geometry) == ["agreement"] for result in (fp32, *others))
    assert all(scheme.cost.startswith("points vs depth") for scheme in others)
    both = evaluated(model, [scenes[0], replace(scenes[1], truth=None)], None).results[0]
    assert (both.geometry["auc30"].scenes, both.geometry["agreement"].scenes) == (1, 2)


def test_candidates_are_the_uniform_schemes_then_the_plan(model: VGGT, scenes: list[Scene]) -> None:
    with_plan = evaluated(model, scenes[:1], plan_of(model), rivals=Rivals())
    assert [result.key for result in with_plan.results] == ["fp32", *UNIFORM_SCHEMES, "plan"]
    assert sum(with_plan.plan_formats.values()) == len(find_layers(model))
    assert with_plan.predicted_damage == 0.25
    without = evaluated(model, scenes[:1], None, rivals=Rivals())
    assert [result.key for result in without.results] == ["fp32", *UNIFORM_SCHEMES]
    assert (without.plan_formats, without.predicted_damage, without.model) == ({}, None, "tiniest")


def test_every_layer_is_quantised_once_per_candidate(
    model: VGGT, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(
        mixedprec.apply, "quantize_layer", lambda *args: calls.append(args[1:]) or quantize_layer(*args)
    )
    monkeypatch.setattr(MODULE, "_seconds", lambda *_: 1.0)
    monkeypatch.setattr(VGGTSubject, "predict", constant)
    evaluated(model, scenes, None, repeats=3)
    assert len(calls) == len(set(calls)) == len(FEW.schemes) * len(find_layers(model))


def test_model_is_unchanged_afterwards(model: VGGT, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    before = model_fingerprint(model)
    evaluated(model, scenes[:1], None)
    assert model_fingerprint(model) == before

    def fail(*_arguments: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(MODULE, "average", fail)
    with pytest.raises(RuntimeError):
        evaluated(model, scenes[:1], None)
    assert model_fingerprint(model) == before


def is_packed(subject: VGGTSubject) -> bool:
    return subject.vggt.aggregator.patch_embed.patch_embed.proj.weight is None


def damage_of(metrics: Mapping[str, OutputMetrics]) -> float:
    """Mean NMSE over the outputs."""
    return math.fsum(m.nmse for m in metrics.values()) / len(metrics)


def constant(_subject: VGGTSubject, _scene: Scene, *, check: bool = False) -> dict[str, Tensor]:
    """Outputs without a pass."""
    del check
    return {"pose_enc": torch.ones(1, 2, 9)}


class SlowingMachine:
    """Times passes without running them: each pair takes twice as long as the one before, a scheme thrice FP32."""

    def __init__(self) -> None:
        self.log: list[tuple[bool, float]] = []

    def __call__(self, subject: VGGTSubject, _scene: Scene) -> float:
        taken = 2.0 ** (len(self.log) // 2) * (3 if is_packed(subject) else 1)
        self.log.append((is_packed(subject), taken))
        return taken


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_a_scheme_is_timed_next_to_fp32(
    model: VGGT, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch, repeats: int
) -> None:
    machine = SlowingMachine()
    monkeypatch.setattr(MODULE, "_seconds", machine)
    monkeypatch.setattr(VGGTSubject, "predict", constant)
    fp32, *schemes = evaluated(model, scenes[:1], None, repeats=repeats).results
    assert [was_packed for was_packed, _ in machine.log] == [False, True] * ((repeats + 1) * len(schemes))
    # The warm-up is the first pair of every scheme.
    pairs = [machine.log[i : i + 2] for i in range(0, len(machine.log), 2)]
    timed = [pair for i, pair in enumerate(pairs) if i % (repeats + 1)]
    assert fp32.seconds == statistics.median(pair[0][1] for pair in timed)
    assert fp32.seconds_spread == (timed[0][0][1], timed[-1][0][1])
    assert fp32.speed_ratio == 1.0
    for number, scheme in enumerate(schemes):
        own = [pair[1][1] for pair in timed[number * repeats : (number + 1) * repeats]]
        assert scheme.seconds == statistics.median(own)
        assert scheme.seconds_spread == (min(own), max(own))
        assert scheme.speed_ratio == pytest.approx(1 / 3)


def test_without_repeats_nothing_is_timed(model: VGGT, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    machine = SlowingMachine()
    monkeypatch.setattr(MODULE, "_seconds", machine)
    monkeypatch.setattr(VGGTSubject, "predict", constant)
    found = evaluated(model, scenes[:1], None, repeats=0)
    assert machine.log == []
    assert found.executed == "nothing; give repeats=3 to time"
    assert {(r.seconds, r.seconds_spread, r.speed_ratio) for r in found.results} == {(None, None, None)}


@pytest.mark.parametrize("repeats", [0, 2])
def test_progress_counts_to_its_total(
    model: VGGT, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch, repeats: int
) -> None:
    monkeypatch.setattr(MODULE, "_seconds", lambda *_: 1.0)
    monkeypatch.setattr(VGGTSubject, "predict", constant)
    steps: list[tuple[int, int]] = []
    evaluate(
        model, scenes, None, facts={}, weights_note="", repeats=repeats, rivals=FEW,
        progress=lambda _stage, done, total: steps.append((done, total)),
    )  # fmt: skip
    total = 2 + len(FEW.schemes) * (2 + (repeats + 1 if repeats else 0))
    assert steps == [(done, total) for done in range(total + 1)]


def with_nan(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return outputs | {"depth": torch.full_like(outputs["depth"], math.nan)}


def test_a_broken_scheme_is_shown_and_a_broken_reference_refused(
    model: VGGT, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = VGGTSubject.outputs

    def broken(subject: VGGTSubject, returned: object) -> dict[str, Tensor]:
        outputs = original(subject, returned)
        return with_nan(outputs) if is_packed(subject) else outputs

    monkeypatch.setattr(VGGTSubject, "outputs", broken)
    assert all(math.isnan(result.damage) for result in evaluated(model, scenes[:1], None).quantized)
    monkeypatch.setattr(VGGTSubject, "outputs", lambda subject, returned: with_nan(original(subject, returned)))
    with pytest.raises(InputError, match=r"NaN or Inf in depth"):
        evaluated(model, scenes[:1], None)


def test_nothing_to_evaluate_on(model: VGGT) -> None:
    with pytest.raises(InputError, match="no evaluation scenes"):
        evaluated(model, [], None)


def test_plan_that_does_not_fit_is_refused_before_anything_runs(
    model: VGGT, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(model)
    first, *others = plan.formats
    monkeypatch.setattr(VGGTSubject, "predict", lambda *_, **__: pytest.fail("the model ran"))
    with pytest.raises(InputError, match="have no format"):
        evaluated(model, scenes, replace(plan, formats={name: plan.formats[name] for name in others}))
    with pytest.raises(InputError, match=first):
        evaluated(model, scenes, replace(plan, layer_bytes=plan.layer_bytes | {first: 3}))
