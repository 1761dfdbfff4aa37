"""Whatever ends a block or a pass, no hook, no replaced ``forward`` and no other weight is left in the model."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, NoReturn

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointFunction

from mixedprec import packed, quantized, uniform_assignment
from sensitivity.capture import observed, under_scheme
from sensitivity.damage import memory_of_damage, pair_damage, true_damage
from sensitivity.differentiable import differentiable
from sensitivity.footprint import GraphCounter, footprint
from sensitivity.jacobian_sketch import ignores_detach, sketch_damage
from sensitivity.recorder import SceneRecorder, plan_sampling
from sensitivity.replay import RecordedPass
from sensitivity.scrutiny import scrutinise
from sensitivity.segments import Tape
from sensitivity.survey import LayerVolume, run_on_meta, survey
from sensitivity.token_classes import class_damage
from sensitivity.weight_errors import WeightErrors
from tests.random_vggt import random_vggt
from training.attention import written_out
from vggtkit.core.errors import InputError
from vggtkit.model import VGGT, VGGTConfig
from vggtkit.model.layers import Mlp
from vggtkit.quant import find_layers, replaced_weights
from vggtkit.runtime import int8
from vggtkit.runtime.backends import BACKENDS
from vggtkit.runtime.fewer_operations import fewer_operations
from vggtkit.runtime.forwards import replaced_forward
from vggtkit.runtime.stages import clocked
from vggtkit.scenes import Scene
from vggtkit.subject import ModuleSubject, Subject, VGGTSubject

SCHEMES = ("int8_per_tensor_sym", "int4_group_32")
GLOBALS = (
    (F, "scaled_dot_product_attention"), (torch.no_grad, "__enter__"), (torch.inference_mode, "__enter__"),
    (torch, "set_grad_enabled"), (CheckpointFunction, "apply"),
)  # fmt: skip
HOOKS = tuple(name for name, value in vars(nn.Module()).items() if name.endswith("_hooks") and value is not None)


class StopError(Exception):
    """What ends a block or a pass."""


@pytest.fixture
def model(tiniest_config: VGGTConfig) -> VGGT:
    return random_vggt(tiniest_config)


@pytest.fixture(scope="module")
def scene() -> Scene:
    generator = torch.Generator().manual_seed(1)
    images, points = (torch.rand(*shape, generator=generator) for shape in ((2, 3, 32, 32), (3, 2)))
    return Scene("random", images, 31 * points)


def state(model: nn.Module, *, flags: bool = True) -> list[object]:
    """Hooks, attributes, weights and flags of all modules, and what is replaced in torch."""
    seen: list[object] = [vars(owner).get(name) for owner, name in GLOBALS]
    if flags:
        seen += [torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.backends.mha.get_fastpath_enabled()]
    for name, module in model.named_modules():
        own = {key: value for key, value in vars(module).items() if key not in (*HOOKS, "_parameters", "_modules")}
        seen.append((name, [list(getattr(module, hooks)) for hooks in HOOKS], list(module._modules), own))
        for key, value in module._parameters.items():
            seen.append((key, None if value is None else (id(value), value.data_ptr(), value.requires_grad)))
    return seen


def int8_running(subject: Subject, _scene: Scene) -> AbstractContextManager[object]:
    return BACKENDS.pick("int8").prepare(subject).running()


def tape(subject: Subject, _scene: Scene) -> AbstractContextManager[object]:
    return Tape(subject.segments(), list(subject.model.parameters())).recording()


def recorded(subject: Subject, scene: Scene) -> AbstractContextManager[object]:
    passes = RecordedPass(subject, scene)
    return passes._running({name: part.replay for name, part in passes.parts.items()})


BLOCKS: dict[str, Callable[[Subject, Scene], AbstractContextManager[object]]] = {
    "observed": lambda subject, _: observed(subject.model, subject.layers, lambda _: None),
    "under_scheme": lambda subject, _: under_scheme(subject.model, subject.layers, SCHEMES[0]),
    "tape": tape,
    "replay": recorded,
    "replaced_forward": lambda subject, _: replaced_forward(subject.model, lambda: None),
    "replaced_weights": lambda s, _: replaced_weights(s.model, {s.layers[0].name: torch.zeros(s.layers[0].shape)}),
    "fewer_operations": lambda subject, _: fewer_operations(subject.model),
    "clocked": lambda subject, _: clocked(subject),
    "packed": lambda subject, _: packed(subject.model, uniform_assignment(subject.layers, SCHEMES[1])),
    "quantized": lambda subject, _: quantized(subject.model, uniform_assignment(subject.layers, SCHEMES[1])),
    "int8": int8_running,
    "differentiable": lambda *_: differentiable(through_detach=True),
    "written_out": lambda *_: written_out(),
}


@pytest.mark.parametrize("runs", [False, True], ids=["at-once", "after-a-pass"])
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_that_fails_leaves_the_model_as_it_was(
    name: str, runs: bool, model: VGGT, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changes something within, or there would be nothing to undo."""
    for limit in ("LARGE_WEIGHTS", "SMALL_MODEL", "SMALL_CONVOLUTION"):
        monkeypatch.setattr(int8, limit, 0)
    subject = VGGTSubject(model)
    formats = uniform_assignment(find_layers(model), "int8_per_channel_sym")
    with packed(model, formats) if name == "int8" else nullcontext():
        block, before, within = BLOCKS[name](subject, scene), state(model), state(model, flags=False)
        with pytest.raises(StopError), torch.no_grad(), block:
            assert state(model, flags=False) != within
            if runs and name != "replaced_forward":
                subject.run(scene, check=False)
            raise StopError
        assert state(model) == before


def recorder(subject: Subject, scene: Scene) -> SceneRecorder:
    volumes = [LayerVolume(1, 10, layer.shape[0]) for layer in subject.layers]
    return SceneRecorder(subject, subject.layers, volumes, scene, plan_sampling(volumes, 3, 1, 10**7), 0)


def under(subject: Subject, scene: Scene) -> None:
    half = recorder(subject, scene)
    with suppress(StopError):
        half.reference(SCHEMES)
    half.under(SCHEMES[0])


def errors(subject: Subject) -> WeightErrors:
    return WeightErrors(subject.model, subject.layers, SCHEMES)


def estimated(subject: Subject, scene: Scene) -> object:
    count = GraphCounter(subject)
    volumes = survey(subject, subject.layers, scene, count.watching())
    return footprint(subject, subject.layers, volumes, count, candidates=2, probes=1, sample_bytes=0)


PASSES: dict[str, Callable[[Subject, Scene], object]] = {
    "scrutinise": lambda subject, scene: scrutinise(subject, subject.layers, [scene]),
    "survey": lambda subject, scene: survey(subject, subject.layers, scene),
    "survey on meta": run_on_meta,
    "footprint": estimated,
    "memory of damage": memory_of_damage,
    "recorder, fp32": lambda subject, scene: recorder(subject, scene).reference(SCHEMES),
    "recorder, scheme": under,
    "sketch": lambda subject, scene: sketch_damage(subject, subject.layers, errors(subject), scene),
    "token classes": lambda s, scene: class_damage(s, s.layers, errors(s), scene, probes=1),
    "true damage": lambda subject, scene: true_damage(subject, subject.layers[:9], SCHEMES, scene),
    "pairs": lambda subject, scene: pair_damage(subject, [(subject.layers[3], SCHEMES[0])], scene),
    "ignores detach": lambda s, scene: ignores_detach(ModuleSubject(s.model), s.layers, scene, torch.float32),
    "graph": lambda subject, scene: ModuleSubject(subject.model).graph(scene),
    "as a foreign model": lambda s, scene: sketch_damage(ModuleSubject(s.model), s.layers, errors(s), scene),
}


@pytest.mark.parametrize("calls", [1, 4], ids=["first", "fourth"])
@pytest.mark.parametrize("name", PASSES)
def test_a_pass_that_fails_leaves_the_model_as_it_was(
    name: str, calls: int, model: VGGT, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In some layer in the midst of the model, the first time or later."""
    usual, count = Mlp.forward, [0]

    def forward(self: Mlp, x: Tensor) -> Any:
        count[0] += 1
        if count[0] >= calls:
            stop()
        return usual(self, x)

    def stop() -> NoReturn:
        raise StopError

    subject = VGGTSubject(model)
    monkeypatch.setattr(Mlp, "forward", forward)
    before, weights = state(model), [value.clone() for value in model.state_dict().values()]
    with pytest.raises((StopError, InputError), match=r"^$|fails on its input with StopError"):
        PASSES[name](subject, scene)
    assert state(model) == before
    assert all(map(torch.equal, weights, model.state_dict().values()))
