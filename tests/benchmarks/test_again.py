"""Results are taken again when they are of another network."""

import json
import shlex
from pathlib import Path

import pytest

import benchmarks.again as module
from benchmarks.again import COMMANDS, MADE, RESULTS, ROOT, made_of, stale, take
from vggtkit.core.errors import InputError

GIVEN = {"data": "somewhere"}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three results: one that prints a line, one whole, one that fails; none is there yet."""
    script = tmp_path / "script.py"
    script.write_text(
        "import json, sys\n"
        "what, last = sys.argv[1], sys.argv[-1]\n"
        "sys.exit('no room') if what == 'fails' else None\n"
        "print('measured\\n{\"a\": 1}' if what == 'line' else json.dumps({'a': 2, 'at': last}, indent=2))\n"
    )
    commands = {
        "line": (f"{script} line",),
        "whole": (f"{script} line", f"{script} whole {{data}} {{runs}}"),
        "fails": (f"{script} fails",),
    }
    monkeypatch.setattr(module, "COMMANDS", commands)
    return tmp_path


def test_a_result_says_of_which_network_it_is(results: Path) -> None:
    for name, value in (("line", 1), ("whole", 2)):
        take(name, GIVEN, "abc", results)
        result = json.loads((results / f"{name}.json").read_text())
        assert (result["a"], result[MADE]["network"]) == (value, "abc")
    assert result["at"] == "runs"  # not where on this machine
    assert stale(("line", "whole", "fails"), "abc", results) == ["fails"]
    assert stale(("line", "whole"), "abd", results) == ["line", "whole"]


@pytest.mark.parametrize(("lacks", "file"), [("", "line"), ("AVX512-VNNI or AMX", "line_without_vnni")])
def test_speeds_of_whole_numbers_are_of_a_kind_of_processor(
    lacks: str, file: str, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WHOLE_NUMBERS", frozenset({"line"}))
    monkeypatch.setattr(module, "missing_for_int8", lambda: lacks)
    take("line", GIVEN, "abc", results)
    assert made_of(results / f"{file}.json") == "abc"
    assert stale(("line",), "abc", results) == []
    monkeypatch.setattr(module, "missing_for_int8", lambda: "" if lacks else "AMX")
    assert stale(("line",), "abc", results) == ["line"]


@pytest.mark.parametrize(("name", "given", "said"), [("fails", GIVEN, "no room"), ("whole", {}, "--data")])
def test_what_fails_leaves_the_result_as_it_was(name: str, given: dict[str, str], said: str, results: Path) -> None:
    before = json.dumps({"a": 0})
    (results / f"{name}.json").write_text(before)
    with pytest.raises(InputError, match=said):
        take(name, given, "abc", results)
    assert (results / f"{name}.json").read_text() == before
    assert made_of(results / f"{name}.json") == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_result_is_there_and_so_is_what_makes_it(name: str) -> None:
    assert (RESULTS / f"{name}.json").is_file()
    for command in COMMANDS[name]:
        assert (ROOT / shlex.split(command)[0]).is_file()
