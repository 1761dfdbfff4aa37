"""True damage of the audit: geometry figures of every pair, and what noise leaves possible."""

from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.audit.run import _ceilings
from analysis.audit.truth import TRUE_FIGURES, TRUTH_POINT_QUERIES, Truth, measure_truth, steps_of_truth
from vggtkit.core.executors.processes import Processes
from vggtkit.core.journal import Parts
from vggtkit.metrics.geometry import GEOMETRY, geometry_metrics
from vggtkit.model import load_vggt
from vggtkit.quant import dequantize_layer, find_layers, quantize_layer, replaced_weights
from vggtkit.scenes import synthetic_scenes
from vggtkit.subject import subject_of

SCHEMES = ("int4_group_32", "int3_group_128")
TRACKED = ("track", "vis", "conf", "track_px")
"""Chaotic in the random network: no two orders of rounding agree."""


@pytest.mark.slow
def test_figures_of_every_pair_are_those_of_whole_passes(model_folder: Path) -> None:
    model = load_vggt(str(model_folder))
    scenes = synthetic_scenes(3, 2, (32, 32), seed=0, split="evaluation")
    layers = [layer for layer in find_layers(model) if layer.name.endswith(("attn.qkv", "conv2.2"))][:4]
    found = measure_truth(subject_of(model), layers, SCHEMES, scenes)
    shared = measure_truth(subject_of(model), layers, SCHEMES, scenes, executor=Processes(2))
    for one, other in ((found.damage, shared.damage), (found.worse, shared.worse)):
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name], err_msg=name)
    assert shared.fp32 == found.fp32
    assert found.damage["depth"].shape == (3, 4, 2)
    assert set(found.worse) == set(TRUE_FIGURES)
    for number, scene in enumerate(scenes[:2]):
        with torch.no_grad():
            before = geometry_metrics(
                subject_of(model).run(scene), scene.truth, (32, 32), query_limit=TRUTH_POINT_QUERIES
            )
        for row, layer in enumerate(layers):
            module = model.get_submodule(layer.name)
            weight = dequantize_layer(quantize_layer(module, SCHEMES[1]), module)
            with torch.no_grad(), replaced_weights(model, {layer.name: weight}):
                after = geometry_metrics(
                    subject_of(model).run(scene), scene.truth, (32, 32), query_limit=TRUTH_POINT_QUERIES
                )
            for figure in ("abs_rel", "auc30", "agreement"):
                sign = -1 if GEOMETRY[figure].higher_is_better else 1
                expected = sign * (after[figure] - before[figure])
                assert found.worse[figure][number, row, 1] == pytest.approx(expected, rel=0.02, abs=2e-5), figure


def test_what_was_measured_before_is_not_measured_again(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after some pieces; the others are measured, and the numbers are those of a whole run."""
    monkeypatch.setattr("analysis.audit.truth.LAYERS_AT_ONCE", 2)
    subject = subject_of(load_vggt(str(model_folder)))
    scenes, layers = synthetic_scenes(2, 2, (32, 32), seed=0, split="evaluation"), subject.layers[:5]
    whole = measure_truth(subject, layers, SCHEMES, scenes)
    steps: list[int] = []

    def stops() -> None:
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt

    def parts() -> Parts:
        return Parts(tmp_path / "audit.json", {"seed": 0})

    with pytest.raises(KeyboardInterrupt):
        measure_truth(subject, layers, SCHEMES, scenes, parts=parts(), step=stops)
    before = parts().done()
    assert len(before) == 4
    saved: list[str] = []
    save = Parts.save
    monkeypatch.setattr(Parts, "save", lambda own, step, arrays: (saved.append(step), save(own, step, arrays)))
    resumed = measure_truth(subject, layers, SCHEMES, scenes, parts=parts(), step=lambda: steps.append(1))
    assert len(steps) == 4 + steps_of_truth(5, 2)
    assert sorted([*before, *saved]) == ["0-0", "0-2", "0-4", "1-0", "1-2", "1-4"]
    for one, other in ((whole.damage, resumed.damage), (whole.worse, resumed.worse)):
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name], err_msg=name)


def test_no_score_is_expected_to_reach_more_than_the_ceiling() -> None:
    """Four scenes that measure one order with noise: the true order correlates with their mean as the ceiling says."""
    generator = np.random.default_rng(0)
    order = generator.standard_normal((4000, 1))
    measured = np.exp(order + 1.5 * generator.standard_normal((4, 4000, 1)))
    ceiling = _ceilings(Truth({"depth": measured}))["all outputs"]
    mean = np.log(measured).mean(0)
    reached = np.corrcoef(order[:, 0], mean[:, 0])[0, 1]
    assert ceiling == pytest.approx(reached, abs=0.06)
