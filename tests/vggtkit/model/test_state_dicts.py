"""Which dict of a trainer's state holds the weights, and what their names are without prefixes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.model.state_dicts import state_in

Named = dict[str, Tensor]
NAMES = ("aggregator.camera_token", "camera_head.trunk.0.norm1.bias", "depth_head.projects.0.weight")


def weights(value: float, prefix: str = "", names: tuple[str, ...] = NAMES) -> Named:
    return {f"{prefix}{name}": torch.full((2,), value) for name in names}


def read(content: object) -> Named:
    return state_in(content, "x.pt", lambda _: None)


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "_orig_mod.", "module._orig_mod.", "net.backbone.", "model.aggregators.", "module.module."],
)
def test_a_common_prefix_is_taken_off(prefix: str) -> None:
    torch.testing.assert_close(read(weights(1.0, prefix)), weights(1.0))


@pytest.mark.parametrize("wrapper", ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_wrappers_of_parts_are_taken_off(wrapper: str) -> None:
    state = {f"aggregator.{wrapper}.camera_token": torch.ones(2), f"camera_head.{wrapper}.bias": torch.ones(2)}
    assert list(read(state)) == ["aggregator.camera_token", "camera_head.bias"]


def test_a_prefix_that_is_not_common_is_refused() -> None:
    with pytest.raises(InputError, match=r"1 tensors are not called model\. like .* the first is loss\.weight"):
        read(weights(1.0, "model.") | {"loss.weight": torch.ones(1)})


def test_two_tensors_do_not_become_one() -> None:
    with pytest.raises(InputError, match=r"two tensors are called aggregator\.camera_token"):
        read({"aggregator.camera_token": torch.ones(1), "aggregator.module.camera_token": torch.ones(1)})


@pytest.mark.parametrize(
    "rivals",
    [
        lambda: {"ema": weights(2.0), "model": weights(1.0)},
        lambda: {"ema": weights(2.0), "last": {"model": weights(1.0)}},
        lambda: {"critic": {f"layer.{i}": torch.ones(1) for i in range(9)}, "anything": weights(1.0)},
        lambda: {"anything": {"inner": weights(1.0)}, "part": weights(2.0, names=NAMES[:2])},
        lambda: {"optimizer": {"state": {0: {"exp_avg": torch.ones(9)}}}, "model": weights(1.0, "module.")},
    ],
    ids=["usual key", "usual key inside", "another network", "larger", "optimizer"],
)
def test_the_weights_are_told_from_other_tensors(rivals: Callable[[], object]) -> None:
    torch.testing.assert_close(read(rivals()), weights(1.0))


def test_equal_rivals_are_said() -> None:
    said: list[str] = []
    state_in({"ema": weights(2.0), "model": weights(1.0)}, "x.pt", said.append)
    assert said == ["x.pt: the weights are those under 'model'", "x.pt: not read, though as many tensors: ema"]


def test_a_dict_that_holds_itself_is_read_once() -> None:
    content: dict[str, object] = {"model": weights(1.0)}
    content |= {f"again{i}": content for i in range(100)}
    torch.testing.assert_close(read(content), weights(1.0))


@pytest.mark.parametrize("content", [None, 3, "text", [], {}, {"model": {}}, {1: torch.ones(1)}, torch.ones(3)])
def test_what_holds_no_named_tensors_is_refused(content: object) -> None:
    with pytest.raises(InputError, match=r"^x\.pt: expected a state dict of tensors"):
        read(content)


def test_control_characters_of_keys_are_escaped() -> None:
    said: list[str] = []
    state_in({"mo\ndel": weights(1.0, "\x1b[2J.")}, "x.pt", said.append)
    assert len(said) == 2
    assert all(line.isprintable() for line in said)
