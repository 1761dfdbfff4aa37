"""What is executed otherwise than the reference: measured so, timed so, and said so."""

import itertools
from pathlib import Path

import pytest

from analysis.evaluation.candidates import Rivals
from analysis.evaluation.results import Evaluation
from analysis.evaluation.results_file import evaluation_to_json, from_json
from analysis.evaluation.run import check_runs, evaluate
from analysis.report.text import terminal_tables, to_text
from mixedprec import Plan, overhead_bytes
from vggtkit.core.errors import InputError
from vggtkit.model import VGGT, load_vggt, model_fingerprint
from vggtkit.quant import find_layers, quantize_layer
from vggtkit.runtime import int8
from vggtkit.runtime.backend import Options
from vggtkit.runtime.backends import BACKENDS
from vggtkit.runtime.kernels import KERNELS
from vggtkit.scenes import Scene, synthetic_scenes
from vggtkit.subject import VGGTSubject, subject_of

RUNNABLE = ("int8_per_channel_sym", "int4_two_level_64", "int3_two_level_16", "fp16")


@pytest.fixture(scope="module")
def model(model_folder: Path) -> VGGT:
    return load_vggt(model_folder)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return synthetic_scenes(1, 2, (32, 32), seed=0, split="evaluation")


def plan_of(model: VGGT, *keys: str) -> Plan:
    formats = dict(zip((layer.name for layer in find_layers(model)), itertools.cycle(keys), strict=False))
    sizes = {name: quantize_layer(model.get_submodule(name), key).nbytes for name, key in formats.items()}
    return Plan(
        model_fingerprint(model), "tiniest", "optimal", "sketch", "1MB", 10**6, "fp16", overhead_bytes(model),
        formats, sizes, {"depth": 0.25}, 0.25, 0.2, optimal=False,
    )  # fmt: skip


def evaluated(model: VGGT, scenes: list[Scene], plan: Plan | None, *, repeats: int = 0, execute: str) -> Evaluation:
    """The plan, and two schemes, of which one is executed as asked."""
    return evaluate(
        model, scenes, plan, facts={}, weights_note="random", repeats=repeats, execute=execute,
        rivals=Rivals(schemes=("int8_per_channel_sym", "int4_group_128")),
    )  # fmt: skip


def test_accuracy_and_time_are_of_the_same_execution(
    model: VGGT, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LARGE_WEIGHTS", "SMALL_MODEL", "SMALL_CONVOLUTION"):
        monkeypatch.setattr(int8, name, 0)
    plan = plan_of(model, *RUNNABLE)
    exact = {result.key: result for result in evaluated(model, scenes, plan, execute="reference").results}
    executed = evaluated(model, scenes, plan, repeats=1, execute="int8")
    for result in executed.results:
        own = result.key in ("plan", "int8_per_channel_sym")
        assert (result.damage != exact[result.key].damage) == own
        assert result.size_bytes == exact[result.key].size_bytes
        assert bool(result.execution) == bool(result.stages) == (result.bfloat16_ratio is not None) == own
    assert executed.plan is not None
    assert executed.plan.damage == pytest.approx(exact["plan"].damage, rel=0.2)
    assert executed.plan.execution["layers"]["int8"] > 0
    assert "kept in FP16" in executed.plan.execution["fell_back"].values()
    assert any(kernel.title in executed.executed for kernel in KERNELS)
    check_said(executed)


def check_said(executed: Evaluation) -> None:
    """In the files and tables."""
    assert from_json(evaluation_to_json(executed)) == executed
    text = to_text(executed)
    assert "executed by int8" in text
    assert "kept in FP16" in text
    assert "no speed-up" not in text
    assert max(map(len, text.splitlines())) <= 120
    titles = [str(table.title) for table in terminal_tables(executed)]
    assert sum("by stage" in title for title in titles) == 2


def test_a_plan_that_does_not_run_is_refused_before_anything_does(
    model: VGGT, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VGGTSubject, "predict", lambda *_, **__: pytest.fail("the model ran"))
    plan = plan_of(model, "int4_two_level_64", "int4_group_32")
    with pytest.raises(InputError, match=r"execute='int8': \d+ linear layers .*int4_group_32.*convert"):
        evaluated(model, scenes, plan, execute="int8")
    check_runs(BACKENDS["int8"], subject_of(model), plan, Options(convert=True))
    with pytest.raises(InputError, match="unknown backend"):
        evaluated(model, scenes, plan, execute="tpu")
