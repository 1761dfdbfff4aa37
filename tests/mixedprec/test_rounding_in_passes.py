"""Rounding some layers at a time gives the bits of rounding all at once, whatever the memory and whenever it stops."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mixedprec.rounding import Rounded, rounded_weights
from mixedprec.rounding_by_workers import rounded_by_workers
from mixedprec.rounding_in_passes import rounded_in_passes
from sensitivity.moments import Moments, groups_of, input_moments, moment_bytes, output_moments
from tests.mixedprec.test_sequential_rounding import KEY, Deep, the_scenes
from vggtkit.core.executors.local import Local
from vggtkit.core.executors.processes import Processes
from vggtkit.core.journal import Parts
from vggtkit.quant import Layer
from vggtkit.quant.rounding import ROUNDINGS
from vggtkit.subject import Subject, subject_of

ONE_LAYER = 4 * 24 * 24


class Measured:
    """Second moments on two scenes; remembers of which layers they were asked."""

    def __init__(self, subject: Subject, needs: str) -> None:
        self.subject, self.needs, self.asked = subject, needs, list[list[str]]()
        self.scenes = the_scenes(0, 1)

    def __call__(self, layers: Sequence[Layer]) -> Moments:
        self.asked.append([layer.name for layer in layers])
        if self.needs == "gradients":
            return output_moments(self.subject, self.subject.layers, self.scenes, only=layers)
        return input_moments(self.subject, layers, self.scenes)


def assert_same(rounded: Rounded, expected: Rounded) -> None:
    assert list(rounded.weights) == list(expected.weights)
    assert rounded.fell_back == expected.fell_back
    for name, q in expected.weights.items():
        assert all(tensor.equal(q.tensors()[part]) for part, tensor in rounded.weights[name].tensors().items())
        assert (q.bias is None) == (rounded.weights[name].bias is None)
        if q.bias is not None:
            assert q.bias.equal(rounded.weights[name].bias)


def formats(subject: Subject) -> dict[str, str]:
    return {layer.name: KEY for layer in subject.layers} | {"layers.1": "fp16"}


@pytest.mark.parametrize("key", ["gptq", "gptq_bias", "output_gptq"])
@pytest.mark.parametrize("room", [None, 1, 2 * ONE_LAYER])
def test_the_room_for_moments_changes_no_bit(key: str, room: int | None) -> None:
    subject, rounding = subject_of(Deep().eval()), ROUNDINGS[key]
    measure = Measured(subject, rounding.needs)
    expected = rounded_weights(subject, formats(subject), rounding, measure(subject.layers))
    measure.asked.clear()
    assert_same(rounded_in_passes(subject, formats(subject), rounding, measure, room=lambda: room), expected)
    sizes = moment_bytes(subject, subject.layers)
    assert set(sizes.values()) == {ONE_LAYER}
    assert measure.asked == groups_of(sizes, room)
    assert len(measure.asked) == {None: 1, 1: len(sizes), 2 * ONE_LAYER: (len(sizes) + 1) // 2}[room]


@pytest.mark.parametrize(
    ("key", "workers"), [("gptq_bias", 1), ("output_gptq", 1), pytest.param("descent", 2, marks=pytest.mark.slow)]
)
def test_workers_that_measure_and_round_some_layers_each_give_the_same_bits(key: str, workers: int) -> None:
    subject, rounding = subject_of(Deep().eval()), ROUNDINGS[key]
    measure = Measured(subject, rounding.needs)
    expected = rounded_weights(subject, formats(subject), rounding, measure(subject.layers))
    executor = Local(torch.get_num_threads()) if workers == 1 else Processes(workers)
    stages: list[tuple[str, int, int]] = []
    rounded = rounded_by_workers(
        subject, formats(subject), rounding, measure, executor, room=2 * ONE_LAYER,
        progress=lambda *stage: stages.append(stage),
    )  # fmt: skip
    assert_same(rounded, expected)
    assert rounded.few_rows == rounded_in_passes(subject, formats(subject), rounding, measure).few_rows
    where = "" if workers == 1 else ", 2 processes"
    assert stages[-1] == (f"rounding by {key}{where}", len(subject.layers), len(subject.layers))


def test_pieces_of_workers_that_are_done_are_not_done_again(tmp_path: Path) -> None:
    """Nor by one process that goes on with what they left."""
    subject, rounding, path = subject_of(Deep().eval()), ROUNDINGS["gptq"], tmp_path / "model-plan.safetensors"
    measure = Measured(subject, "inputs")
    expected = rounded_weights(subject, formats(subject), rounding, measure(subject.layers))
    measure.asked.clear()

    def stop(_stage: str, done: int, _total: int) -> None:
        if done == 4:
            raise StoppedError

    def by_workers(**options: Any) -> Rounded:
        parts = Parts(path, {})
        return rounded_by_workers(
            subject, formats(subject), rounding, measure, Local(1), room=2 * ONE_LAYER, parts=parts, **options
        )

    with pytest.raises(StoppedError):
        by_workers(progress=stop)
    assert len(Parts(path, {}).done()) == 4  # two of them have no moments
    assert list(map(len, measure.asked)) == [2]
    measure.asked.clear()
    assert_same(by_workers(), expected)
    assert sum(map(len, measure.asked)) == len(subject.layers) - 4
    measure.asked.clear()
    assert_same(rounded_in_passes(subject, formats(subject), rounding, measure, parts=Parts(path, {})), expected)
    assert not measure.asked


class StoppedError(Exception):
    """Stands for a signal."""


@pytest.mark.parametrize("key", ["gptq_bias", "output_gptq"])
@pytest.mark.parametrize("after", [1, 4])
def test_a_stopped_job_goes_on_with_the_next_layer_to_the_same_bits(key: str, after: int, tmp_path: Path) -> None:
    subject, rounding, path = subject_of(Deep().eval()), ROUNDINGS[key], tmp_path / "model-plan.safetensors"
    measure = Measured(subject, rounding.needs)
    expected = rounded_weights(subject, formats(subject), rounding, measure(subject.layers))

    def stop(_stage: str, done: int, _total: int) -> None:
        if done == after:
            raise StoppedError

    with pytest.raises(StoppedError):
        rounded_in_passes(
            subject, formats(subject), rounding, measure, room=lambda: 1, parts=Parts(path, {}), progress=stop
        )
    parts = Parts(path, {})
    assert len(parts.done()) == after
    measure.asked.clear()
    done: list[int] = []
    rounded = rounded_in_passes(
        subject, formats(subject), rounding, measure, parts=parts, progress=lambda _s, number, _t: done.append(number)
    )
    assert_same(rounded, expected)
    assert done == list(range(after + 1, len(subject.layers) + 1))
    assert sum(map(len, measure.asked)) == len(subject.layers) - max(after, 2)  # two layers have no moments


def test_a_damaged_layer_is_made_again(tmp_path: Path) -> None:
    subject, path = subject_of(Deep().eval()), tmp_path / "model-plan.safetensors"
    measure, rounding = Measured(subject, "inputs"), ROUNDINGS["gptq"]
    whole = rounded_in_passes(subject, formats(subject), rounding, measure, parts=Parts(path, {}))
    file = sorted(Parts(path, {}).folder.glob("layer-*.npz"))[0]
    file.write_bytes(file.read_bytes()[:-40])
    assert_same(rounded_in_passes(subject, formats(subject), rounding, measure, parts=Parts(path, {})), whole)


def test_what_is_calibrated_on_fewer_rows_than_inputs_is_told_of_also_after_a_stop(tmp_path: Path) -> None:
    subject = subject_of(Deep().eval())
    few, formats_of = Moments(subject, subject.layers), formats(subject)
    generator = torch.Generator().manual_seed(0)
    few.add("layers.0", [torch.randn(5, 24, generator=generator)])
    few.add("layers.2", [torch.randn(24, 24, generator=generator)])
    for _ in range(2):
        parts = Parts(tmp_path / "model-plan.safetensors", {})
        rounded = rounded_in_passes(subject, formats_of, ROUNDINGS["gptq"], lambda _: few, parts=parts)
        assert rounded.few_rows == {"layers.0": (5, 24)}
        assert "layers.3" in rounded.fell_back
