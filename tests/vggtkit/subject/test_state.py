"""What a pass leaves behind is put back, wherever it was left."""

import sys
from collections import deque

import pytest
import torch
from torch import Tensor, nn

from vggtkit.core.errors import InputError
from vggtkit.subject import ModuleSubject
from vggtkit.subject.base import Call
from vggtkit.subject.state import unchanged_state

GLOBAL: dict[str, Tensor] = {}
LAST: Tensor | None = None


class Box:
    def __init__(self) -> None:
        self.inner = {"list": [torch.zeros(1)], "queue": deque([1])}


class Untidy(nn.Module):
    shared: dict[str, Tensor] = {}  # noqa: RUF012 - a cache of all instances is what is tested

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.box, self.calls = nn.Linear(2, 2), Box(), 0
        self.register_buffer("mean", torch.zeros(2))
        self.kept: Tensor | None = torch.ones(1)

    def forward(self, x: Tensor) -> Tensor:
        global LAST
        self.calls += 1
        self.new, self.kept = x, None
        self.mean.add_(1)
        self.register_buffer("late", x, persistent=False)
        self.box.inner["list"].append(x)
        self.box.inner["list"][0].fill_(7)
        self.box.inner["queue"].append(2)
        self.box.inner["key"] = x
        GLOBAL["x"] = self.shared["x"] = LAST = x
        return self.layer(x)


def test_attributes_buffers_containers_classes_and_globals_are_as_before() -> None:
    model = Untidy().eval()
    before, kept = dict(vars(model)), model.kept
    with unchanged_state(model):
        model(torch.ones(1, 2))
        assert GLOBAL
        assert model.calls == 1
    assert vars(model).keys() == before.keys()
    assert (model.calls, model.kept) == (0, kept)
    assert list(model._buffers) == ["mean"]
    assert model.mean.tolist() == [0, 0]
    assert [value.tolist() for value in model.box.inner["list"]] == [[0]]
    assert (list(model.box.inner["queue"]), list(model.box.inner)) == ([1], ["list", "queue"])
    assert (GLOBAL, Untidy.shared, LAST) == ({}, {}, None)


def test_also_after_an_exception() -> None:
    model = Untidy().eval()
    with pytest.raises(RuntimeError), unchanged_state(model):
        model(torch.ones(1, 3))
    assert model.calls == 0
    assert not hasattr(model, "new")


def test_hooks_and_weights_that_are_put_in_meanwhile_stay() -> None:
    model = Untidy().eval()
    with unchanged_state(model):
        handle = model.layer.register_forward_hook(lambda *_: None)
        model.layer.weight.data = torch.ones(2, 2)
    assert len(model.layer._forward_hooks) == 1
    assert model.layer.weight.sum() == 4
    handle.remove()


def test_what_is_too_large_to_be_copied_must_not_change_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["vggtkit.subject.state"], "MOST_BYTES", 1)
    with pytest.raises(InputError, match="in place in every call"):
        ModuleSubject(Untidy().eval()).call(Call((torch.ones(1, 2),), {}))
