"""The steps of a profile: a scene in FP32, under a scheme, or its damage at the outputs; where they are done is open.

A worker keeps the recorder of one scene, so that it runs FP32 once for all schemes of a scene that come to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from sensitivity.input_rounding import InputErrors
from sensitivity.jacobian_sketch import RecordedForward, Sketch, random_vectors, sketch_errors
from sensitivity.recorder import Errors, SceneRecorder, TokenSampling
from sensitivity.rounding_gain import rounding_gain
from sensitivity.scrutiny import marks
from sensitivity.store import FP32
from sensitivity.survey import LayerVolume
from sensitivity.weight_errors import WeightErrors
from vggtkit.core.allocator import retain_memory
from vggtkit.core.arrays import Arrays
from vggtkit.core.memory import LARGE
from vggtkit.metrics.tensors import metrics_from_sums
from vggtkit.quant import Layer
from vggtkit.runtime.onednn import linear_layers
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

DAMAGE, ROUNDINGS = "damage", "roundings"
"""The last step of a scene, and the last of all, which is of all scenes together."""
REPEATED = "repeated"
"""Array of that step: whether parts that were computed once more gave the same bits."""
WEIGHT_BYTES = "weight-bytes"
"""Array of that step: `WeightErrors.known_sizes`."""
WEIGHTS, INPUTS, NOISE = "weights-", "inputs-", "noise-"
"""How the arrays of that step begin: changes by errors of weights, and by rounded inputs; damage of noise."""


@dataclass(frozen=True)
class ProfileWork:
    """A profile, in steps.

    Attributes:
        subject: unchanged afterwards.
        layers: of it.
        volumes: of the layers, from `survey`.
        scenes: calibration scenes.
        schemes: whose errors are captured layer by layer.
        candidates: whose damage is estimated.
        sampling: of activations.
        seed: of samples and probes.
        dtype: that the model computes in.
        probes: random vectors per output and scene.
        gradient_dtype: of the backward passes.
        through_detach: as `sketch_errors` takes it.
        calibrates: whether what calibrated rounding leaves is scored too.
    """

    subject: Subject
    layers: Sequence[Layer]
    volumes: Sequence[LayerVolume]
    scenes: Sequence[Scene]
    schemes: Sequence[str]
    candidates: Sequence[str]
    sampling: TokenSampling
    seed: int
    dtype: torch.dtype
    probes: int
    gradient_dtype: torch.dtype
    through_detach: bool
    calibrates: bool = False

    def steps(self) -> list[str]:
        """Their names, scene by scene."""
        numbers, whats = range(len(self.scenes)), (FP32, *self.schemes, DAMAGE)
        return [f"{number}-{what}" for number in numbers for what in whats] + [ROUNDINGS] * self.calibrates

    @contextmanager
    def opened(self) -> Iterator[Callable[[str], Arrays]]:
        """As `vggtkit.core.executors.Work.opened`; a piece is the name of a step."""
        with retain_memory():
            yield _Bench(self).do


@dataclass
class _Bench:
    """What is kept between steps."""

    work: ProfileWork
    number: int = -1
    recorder: SceneRecorder | None = None
    recording: RecordedForward | None = None
    ran_fp32: bool = False
    errors: WeightErrors = field(init=False)
    inputs: InputErrors = field(init=False)

    def __post_init__(self) -> None:
        work = self.work
        self.errors = WeightErrors(work.subject.model, work.layers, work.candidates)
        self.inputs = InputErrors(work.subject.model, work.layers)

    @property
    def is_large(self) -> bool:
        """Whether faster products are worth last bits that are not those of other passes."""
        return self.work.subject.parameters > LARGE

    def do(self, step: str) -> Arrays:
        """The arrays of a step."""
        if step == ROUNDINGS:
            return self._roundings()
        prefix, _, what = step.partition("-")
        number = int(prefix)
        if what == DAMAGE:
            return self._damage(number)
        recorder = self._recorder(number)
        with self._computing():
            return self._in_fp32(recorder) if what == FP32 else self._under(recorder, what)

    @contextmanager
    def _computing(self, dtype: torch.dtype | None = None) -> Iterator[None]:
        faster = linear_layers(self.work.subject.model) if self.is_large else nullcontext()
        with self.work.subject.computing_in(dtype or self.work.dtype), faster:
            yield

    def _recorder(self, number: int) -> SceneRecorder:
        if self.recorder is None or self.number != number:
            work = self.work
            self.recorder = SceneRecorder(
                work.subject, work.layers, work.volumes, work.scenes[number], work.sampling, work.seed
            )
            self.number, self.ran_fp32, self.recording = number, False, None
        return self.recorder

    def _in_fp32(self, recorder: SceneRecorder) -> Arrays:
        by_scheme = [_arrays(errors) for errors in self._reference(recorder, self.work.schemes).values()]
        stacked = {name: np.stack([arrays[name] for arrays in by_scheme]) for name in by_scheme[0]}
        return stacked | _tokens(recorder) | marks(recorder.outputs)

    def _reference(self, recorder: SceneRecorder, schemes: Sequence[str]) -> dict[str, Errors]:
        """Errors of layers, in the pass that is gone back through later where it is known how."""
        if self.work.subject.segments_are_known and self._recorded_dtype() == self.work.dtype:
            self.recording = self._new_recording()
            errors = recorder.reference(schemes, self.recording.taking)
            self.recording.outputs = recorder.outputs
        else:
            errors = recorder.reference(schemes)
        self.ran_fp32 = True
        return errors

    def _under(self, recorder: SceneRecorder, key: str) -> Arrays:
        if not self.ran_fp32:
            self._reference(recorder, ())
        errors, outputs = recorder.under(key)
        nmse = {f"nmse-{name}": metrics_from_sums(sums)["nmse"].numpy() for name, sums in outputs.items()}
        return _arrays(errors) | _tokens(recorder) | nmse

    def _recorded_dtype(self) -> torch.dtype:
        """Of the pass that is gone back through: gradients have to be as exact as it is, or it FP32."""
        work = self.work
        return work.dtype if work.dtype in (torch.float32, work.gradient_dtype) else work.gradient_dtype

    def _new_recording(self) -> RecordedForward:
        return RecordedForward(self.work.subject, self.work.layers, self.inputs, self.work.gradient_dtype)

    def _damage(self, number: int) -> Arrays:
        """The last step of a scene; what the recorder remembers would lie beside the graphs."""
        work, scene = self.work, self.work.scenes[number]
        recording = self.recording if self.number == number else None
        self.recorder = self.recording = None
        seed = work.seed * len(work.scenes) + number
        if not work.subject.segments_are_known:
            sketched = sketch_errors(
                work.subject, work.layers, self.errors, self.inputs, scene, probes=work.probes, seed=seed,
                dtype=work.gradient_dtype, through_detach=work.through_detach,
            )  # fmt: skip
            return _changes(sketched) | {WEIGHT_BYTES: self.errors.known_sizes()}
        if recording is None:  # the step in FP32 was done elsewhere, or before
            with self._computing(self._recorded_dtype()):
                recording = self._new_recording()
                recording.take(scene)
        sketched = recording.sketch(self.errors, partial(random_vectors, probes=work.probes, seed=seed))
        comparable = work.gradient_dtype == work.dtype and not self.is_large
        told = {REPEATED: np.array(sketched.repeated)} if comparable else {}
        return _changes(sketched) | told | {WEIGHT_BYTES: self.errors.known_sizes()}

    def _roundings(self) -> Arrays:
        work = self.work
        with work.subject.computing_in(work.dtype):
            return {**rounding_gain(work.subject, work.layers, work.scenes, work.candidates)}


def stage_of(step: str) -> str:
    """What a step does, in words.

    >>> stage_of("1-damage")
    'damage at the outputs, layer by layer, scene 2'
    """
    number, _, what = step.partition("-")
    if step == ROUNDINGS:
        return "what calibrated rounding leaves of every layer's error"
    stage = "damage at the outputs, layer by layer" if what == DAMAGE else f"errors of every layer, {what}"
    return f"{stage}, scene {int(number) + 1}"


def _changes(sketched: Sketch) -> Arrays:
    return {
        f"{kind}{name}": value.float().numpy()
        for kind, by_output in ((WEIGHTS, sketched.weights), (INPUTS, sketched.inputs), (NOISE, sketched.noise))
        for name, value in by_output.items()
    }


def _arrays(errors: Errors) -> Arrays:
    return {name: value.numpy() for name, value in vars(errors).items()}


def _tokens(recorder: SceneRecorder) -> Arrays:
    return {f"tokens-{index}": tokens.numpy() for index, tokens in recorder.tokens().items()}
