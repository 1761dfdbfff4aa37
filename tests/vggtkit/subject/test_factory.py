"""Functions that make models and inputs, and what is refused."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from vggtkit.core.errors import InputError
from vggtkit.subject import load_custom, load_inputs
from vggtkit.subject.factory import unwrap

CODE = """
import torch
def model(): return torch.nn.Linear(2, 2).train()
def broken(): raise ValueError("no such weights")
def items():
    yield torch.ones(1, 2)
    yield torch.ones(1, 2), torch.zeros(3)
    raise RuntimeError("asked for too many")
def words(): return ["text"]
def none(): return iter(())
def one(): return torch.ones(2)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in the current folder, which is not on the path."""
    (tmp_path / "my_models.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_models", raising=False)


@pytest.mark.usefixtures("here")
def test_a_module_of_the_current_folder_is_found() -> None:
    model = load_custom("my_models:model")
    assert not model.training
    single, pair = load_inputs("my_models:items", 2)
    assert [len(single), len(pair)] == [1, 2]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("my_models:absent", "cannot be imported"),
        ("my_models:broken", "failed with ValueError: no such weights"),
        ("my_models:words", "yielded str"),
        ("my_models:none", "yielded nothing"),
        ("my_models:one", "returned Tensor"),
        ("my_models", "give package.module:function"),
    ],
)
def test_refused_in_one_line(place: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_inputs(place, 1)


@pytest.mark.usefixtures("here")
def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(InputError, match=r"made list, which is no torch\.nn\.Module"):
        load_custom("my_models:words")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("make", [torch.jit.script, lambda part: torch.jit.trace(part, torch.ones(1, 2))])
def test_a_scripted_part_with_weights_is_named(make: Callable[[nn.Module], nn.Module]) -> None:
    with pytest.raises(InputError, match=r"the part 1 of the model is scripted: .* give it before torch\.jit"):
        unwrap(nn.Sequential(nn.Linear(2, 2), make(nn.Linear(2, 2))))
    assert unwrap(model := nn.Sequential(nn.Linear(2, 2), make(nn.ReLU()))) is model
