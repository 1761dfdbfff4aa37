"""Estimates on networks that are no VGGT are those of single-layer truth, or are refused with a reason."""

import pytest
import torch
from torch import Tensor, nn

from benchmarks.trust import foreign
from benchmarks.trust.models import rows_of, scenes_of, subject_of_name
from sensitivity.estimate_check import EstimateCheck, ratio
from sensitivity.jacobian_sketch import sketch_damage
from sensitivity.route import route_of
from sensitivity.scrutiny import check_unseen, marks, remarks, scrutinise, told_by
from sensitivity.survey import run_on_meta, survey
from sensitivity.weight_errors import WeightErrors
from vggtkit.core.errors import InputError
from vggtkit.quant import weight_of
from vggtkit.scenes import Scene
from vggtkit.subject import ModuleSubject, Subject

NOTHING = torch.zeros(0)
CLOSE = 1.3


def seen_route(subject: Subject, scene: Scene):
    weights = [weight_of(subject.model, layer) for layer in subject.layers]
    for weight in weights:
        weight.requires_grad_()
    with torch.enable_grad():
        return route_of(subject, subject.layers, scene)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(foreign.MODELS.keys() - foreign.REFUSED.keys()))
def test_estimates_are_those_of_single_layers_alone(name: str) -> None:
    rows = [row for row in rows_of(name, probes=128) if max(row.estimated, row.measured) > row.floor]
    assert rows
    for row in rows:
        assert row.within(2.0), row
    near = sum(row.within(CLOSE) for row in rows)
    assert near >= 0.9 * len(rows), [row for row in rows if not row.within(CLOSE)]


@pytest.mark.parametrize("name", sorted(foreign.REFUSED))
def test_what_cannot_be_estimated_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match=foreign.REFUSED[name]) as refusal:
        rows_of(name, probes=4)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("dataclass_returned", "returns a Stream"),
        ("object_handed_on", "is given a Bag"),
        ("dictionary_filled", "changes what it is given"),
        ("generator_returned", "returns a generator"),
        ("result_in_attribute", "leaves behind a tensor"),
        ("input_in_attribute", "reads a tensor that it is not given"),
        ("tensor_in_closure", "is given a partial"),
        ("block_in_place", "works in place"),
    ],
)
def test_blocks_that_hide_something_are_no_segments(name: str, reason: str) -> None:
    subject = subject_of_name(name)
    route = seen_route(subject, scenes_of(name)[0])
    assert not route.segments
    assert all(reason in said for said in route.unsound.values())
    assert len(route.unsound) == 3


@pytest.mark.parametrize(
    "name", ["plain", "positions_cached", "stream_in_place", "output_in_place", "containers_returned", "under_no_grad"]
)
def test_blocks_that_hide_nothing_are_segments(name: str) -> None:
    """So that large networks need the memory of one block at a time; also where copies are needed."""
    subject = subject_of_name(name)
    assert list(seen_route(subject, scenes_of(name)[0]).segments) == ["blocks.0", "blocks.1", "blocks.2"]


def test_a_block_that_is_another_function_the_second_time_is_differentiated_with_the_whole() -> None:
    """Known only on the way back: the block asks for something that no tensor shows."""
    calls = [0]

    class Alternating(foreign.Part):
        def forward(self, x: Tensor) -> Tensor:
            calls[0] += 1
            return x + self.branch(x) * (1.0 if calls[0] % 12 < 10 else 2.0)

    torch.manual_seed(0)
    model = foreign.Net(Alternating).eval()
    scene = scenes_of("plain")[0]
    subject = ModuleSubject(model)
    found = sketch_damage(subject, subject.layers, WeightErrors(model, subject.layers, ["int4_group_128"]), scene)
    assert (found["output"] > 0).all()


def test_passes_leave_no_trace_on_meta_or_real(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches in attributes, in functions and in global variables, in every kind of pass."""
    for name in ("positions_cached", "positions_in_function", "features_cached", "features_cached_globally"):
        subject, scene = subject_of_name(name), scenes_of(name)[0]
        expected = subject_of_name(name).predict(scene)["output"]
        attributes = {key: dict(vars(module)) for key, module in subject.model.named_modules()}
        assert run_on_meta(subject, scene)
        assert {key: dict(vars(module)) for key, module in subject.model.named_modules()} == attributes
        assert subject.predict(scene)["output"].equal(expected)
        monkeypatch.setattr("sensitivity.survey.LARGE", 1)
        survey(subject, subject.layers, scene)
        other = Scene("other", NOTHING, NOTHING, inputs=(1.0 - scenes_of(name)[1].inputs[0],))
        assert not subject.predict(other)["output"].equal(expected)
        assert subject.predict(scene)["output"].equal(expected)


class TwoWays(nn.Module):
    """A layer whose rounding no gradient sees, beside one that is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.rounded = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.seen(x) + (100 * self.rounded(x)).round()


def test_a_layer_whose_gradient_is_zero_is_checked_by_running_it() -> None:
    torch.manual_seed(0)
    subject = ModuleSubject(TwoWays().eval())
    scene = Scene("s", NOTHING, NOTHING, inputs=(torch.randn(3, 4),))
    errors = WeightErrors(subject.model, subject.layers, ["int4_group_128"])
    assert sketch_damage(subject, subject.layers, errors, scene)["output"][1].item() == 0
    check_unseen(subject, [], [scene], "int4_group_128")
    with pytest.raises(InputError, match="layer rounded: estimated to do no damage"):
        check_unseen(subject, subject.layers[1:], [scene], "int4_group_128")


def test_a_reader_is_told_what_was_not_looked_at() -> None:
    subject = subject_of_name("nested_outputs")
    facts = scrutinise(subject, subject.layers, scenes_of("nested_outputs"))
    assert facts["left_out"] == {"best": "int64 tensor"}
    own = {id(weight_of(subject.model, layer)) for layer in subject.layers}
    assert facts["uncovered"]["parameters"] == sum(p.numel() for p in subject.model.parameters() if id(p) not in own)
    assert set(facts["repeatability"].values()) == {0.0}
    said = " ".join(remarks(facts | {"unreached": ["a", "b", "c", "d"], "silent": ["e"]}, subject.parameters))
    assert "Not reached by these scenes (4 layers): a, b, c and 1 more" in said
    assert "(1 layer): e" in said
    assert "best (int64 tensor)" in said
    assert "parameters lie in no layer" in said


def test_outputs_that_ignore_the_scene_are_told() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    nn.init.zeros_(model[0].weight)
    scenes = [Scene(str(n), NOTHING, NOTHING, inputs=(torch.full((1, 4), float(n)),)) for n in range(2)]
    subject = ModuleSubject(model.eval())
    with torch.no_grad():
        first, other = (marks(subject.run(scene)) for scene in scenes)
    assert told_by(first, other) == {"zero_outputs": [], "constant": True}
    assert not told_by(first, None)["constant"]
    assert not told_by(first, marks({"output": torch.zeros(1, 2)}))["constant"]
    assert told_by(marks({"output": torch.zeros(1, 2)}), None)["zero_outputs"] == ["output"]


@pytest.mark.parametrize(
    ("summed", "jointly", "measured", "expected"),
    [
        (1e-3, 2e-3, 1.5e-3, 1.0),
        (1e-3, 2e-3, 6e-3, 1 / 3),
        (0.0, 0.0, 4e-3, 1e-9 / 4e-3),
        (5.0, 5.0, 0.5, 1.0),  # both are more than first order can say
        (1e-12, 1e-12, 1e-10, 1.0),  # both are below what rounding does
        (3e-8, 3e-8, float("nan"), 3e-7),
    ],
)
def test_estimate_over_measurement(summed: float, jointly: float, measured: float, expected: float) -> None:
    assert ratio(summed, jointly, measured, 1e-9) == pytest.approx(expected)


def test_few_samples_are_given_more_room() -> None:
    """The mean of squares of normal numbers leaves the limits by chance alone as often as that may be."""

    def row(found: float, samples: int) -> EstimateCheck:
        return EstimateCheck("int4_group_128", found, found, 1.0, found, samples)

    assert not row(3.2, 1000).holds
    assert not row(0.31, 1000).holds
    assert row(3.2, 2).holds
    assert row(0.2, 2).holds
    assert not row(1e-3, 2).holds
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(4000, 4, generator=generator).square().mean(1)
    assert sum(row(float(mean), 4).holds for mean in means) > 0.97 * len(means)
