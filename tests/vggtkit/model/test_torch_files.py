"""Files of torch.save are read whatever lies beside the weights, and nothing in them is ever run."""

import collections
import datetime
import enum
import functools
import io
import os
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vggtkit.core.errors import InputError
from vggtkit.model.checkpoint_formats import read_state
from vggtkit.model.torch_files import PickleScan, StandIn, load_torch_file

WEIGHTS = {"aggregator.camera_token": torch.arange(6.0)}


class Settings(dict[str, object]):
    """A dict with attributes, as many configurations are."""

    def __init__(self, **values: object) -> None:
        super().__init__(values)
        self.__dict__.update(values)


class Colour(enum.Enum):
    """A class that only this module has."""

    RED = 1


BESIDE = {
    "scalar": np.float64(0.5),
    "array": np.arange(5),
    "path": Path("a/b"),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "settings": Settings(a=1, inner=Settings(b=2)),
    "date": datetime.datetime(2026, 1, 1),
    "enum": Colour.RED,
    "deque": collections.deque([1, 2, 3], maxlen=4),
    "frozenset": frozenset([1]),
    "partial": functools.partial(max, 1),
    "module": torch.nn.Linear(2, 2),
    "random": np.random.default_rng(0).bit_generator.state,
}


def trap(function: Callable[..., object], *arguments: object) -> object:
    """An object that calls the function when it is unpickled."""

    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return function, arguments

    return Trap()


@pytest.mark.parametrize("kind", BESIDE)
def test_what_lies_beside_the_weights_does_not_keep_them_from_being_read(tmp_path: Path, kind: str) -> None:
    torch.save({"model": WEIGHTS, "beside": [BESIDE[kind]]}, tmp_path / "x.pt")
    content, names = load_torch_file(tmp_path / "x.pt")
    torch.testing.assert_close(content["model"], WEIGHTS)
    assert (len(names) > 0) == (kind != "random")
    # Nothing but plain containers, tensors and stand-ins has been made.
    assert {type(content["beside"][0])} <= {collections.OrderedDict, list, dict} or isinstance(
        content["beside"][0], StandIn
    )


def test_weights_in_a_dict_of_a_class_of_its_own_are_read(tmp_path: Path) -> None:
    torch.save(Settings(state_dict=Settings(**WEIGHTS)), tmp_path / "x.pt")
    torch.testing.assert_close(read_state(tmp_path / "x.pt", lambda _: None), WEIGHTS)


@pytest.mark.parametrize("is_legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("way", ["eval", "exec", "system", "method", "import"])
def test_no_code_of_a_file_is_run(tmp_path: Path, way: str, is_legacy: bool) -> None:
    mark, path = tmp_path / "was-here", tmp_path / "x.pt"
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    hostile = {
        "eval": trap(eval, code),
        "exec": trap(exec, code),
        "system": trap(os.system, f"touch {mark}"),
        "method": trap(Path.touch, mark),
        "import": trap(__import__, "this"),
    }[way]
    torch.save({"model": WEIGHTS, "beside": hostile}, path, _use_new_zipfile_serialization=not is_legacy)
    try:
        content, _ = load_torch_file(path)
    except pickle.UnpicklingError:
        content = {}  # refused is as good
    assert not mark.exists()
    assert "this" not in os.sys.modules  # type: ignore[attr-defined]
    assert all(isinstance(value, StandIn) for key, value in content.items() if key == "beside")
    if way in ("eval", "exec", "system", "method"):
        torch.load(path, weights_only=False)
        assert mark.exists(), "it was a live one"


def test_a_whole_module_is_named_not_run(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"found a whole torch\.nn\.modules\.linear\.Linear.*save its state_dict\(\)"):
        read_state(tmp_path / "x.pt", lambda _: None)


def test_names_stay_registered_no_longer_than_the_file_is_read(tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS, "beside": Colour.RED}, tmp_path / "x.pt")
    before = set(torch.serialization.get_safe_globals())
    load_torch_file(tmp_path / "x.pt")
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("value", [*BESIDE.values(), {"a": (1, [2, {3}], "x" * 300, 2**80, 1.5, None, True)}])
def test_the_scan_ends_where_the_pickle_ends_with_the_names_in_it(value: Any) -> None:
    stream = pickle.dumps(value, protocol=2)
    file, scan = io.BytesIO(stream + b"more"), PickleScan()
    scan.read(file)
    assert file.tell() == len(stream)
    named = [str(argument) for opcode, argument, _ in pickletools.genops(stream) if opcode.name == "GLOBAL"]
    assert len(scan.containers) == len(set(named))
