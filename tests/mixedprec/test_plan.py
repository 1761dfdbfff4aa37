"""Plans and their file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixedprec.plan import Plan, load_plan, save_plan, uniform_assignment
from vggtkit.core.errors import InputError
from vggtkit.quant import Layer

PLAN = Plan(
    model_fingerprint="0123456789abcdef",
    model="tiny",
    policy="optimal",
    score="sketch",
    budget_text="6MB",
    budget_bytes=6_000_000,
    keep="fp16",
    overhead_bytes=100_000,
    formats={"a": "int8_per_channel_sym", "b": "int4_group_32"},
    layer_bytes={"a": 2000, "b": 1125},
    predicted_damage={"depth": 1.25e-7, "pose_enc": 0.1},
    total_damage=0.1 + 0.2,
    bound=0.30000000000000002,
    optimal=False,
    provenance={"tool": "0.1.0", "torch": "2.9", "seed": 0, "command": ["plan", "--budget", "6MB"]},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "default" / "plan.json"
    save_plan(PLAN, path)
    return path


def test_plan_survives_its_file(path: Path) -> None:
    assert load_plan(path) == PLAN
    assert load_plan(str(path)).size_bytes == 100_000 + 2000 + 1125
    assert [entry.name for entry in path.parent.iterdir()] == ["plan.json"]


def test_file_is_for_people_too(path: Path) -> None:
    text = path.read_text()
    assert text.endswith("}\n")
    assert '    "a": "int8_per_channel_sym",\n' in text
    assert json.loads(text)["size_bytes"] == PLAN.size_bytes


def test_nan_is_not_written(path: Path) -> None:
    before = path.read_text()
    with pytest.raises(ValueError, match="JSON"):
        save_plan(Plan(**{**vars(PLAN), "bound": float("nan")}), path)
    assert path.read_text() == before


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"):
        save_plan(PLAN, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        save_plan(PLAN, tmp_path / "file" / "plan.json")


def test_absent_plan_says_which_command_makes_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such plan; make one with `python cli\.py plan"):
        load_plan(tmp_path / "plan.json")
    with pytest.raises(InputError, match="not readable"):
        load_plan(tmp_path)


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "version": (lambda v: v.update(schema_version=1), "schema version is 1, this tool reads 2"),
    "version-text": (lambda v: v.update(schema_version="2"), 'schema version is "2"'),
    "no-version": (lambda v: v.pop("schema_version"), "field 'schema_version' is missing"),
    "no-formats": (lambda v: v.pop("formats"), "field 'formats' is missing"),
    "no-provenance": (lambda v: v.pop("provenance"), "field 'provenance' is missing"),
    "more": (lambda v: v.update(extra=1), "field 'extra' is unknown"),
    "unknown-format": (lambda v: v["formats"].update(b="int5"), "layer 'b': unknown format 'int5'"),
    "format-type": (lambda v: v["formats"].update(b=4), "formats is .*, must be an object of texts"),
    "format-less": (lambda v: v["formats"].pop("b"), "layer 'b' is in only one of"),
    "bytes-less": (lambda v: v["layer_bytes"].pop("a"), "layer 'a' is in only one of"),
    "bytes-changed": (
        lambda v: v["layer_bytes"].update(a=1999),
        "size_bytes is 103125, but .* sum to 103124",
    ),
    "size-changed": (lambda v: v.update(size_bytes=1), "size_bytes is 1, but .* sum to 103125"),
    "bytes-fraction": (
        lambda v: v["layer_bytes"].update(a=2000.0),
        "layer_bytes is .*, must be an object of",
    ),
    "bytes-negative": (lambda v: v["layer_bytes"].update(a=-1), "layer_bytes is .*, must be an object of"),
    "count-bool": (lambda v: v.update(budget_bytes=True), "budget_bytes is true, must be a whole number"),
    "text": (lambda v: v.update(policy=None), "policy is null, must be text"),
    "bool": (lambda v: v.update(optimal=1), "optimal is 1, must be true or false"),
    "number": (lambda v: v.update(bound="0.3"), 'bound is "0.3", must be a number'),
    "damage": (lambda v: v.update(predicted_damage=[0.1]), "predicted_damage is .*, must be an object"),
    "keep": (lambda v: v.update(keep="fp8"), 'keep is "fp8", must be one of fp16, fp32'),
    "keep-type": (lambda v: v.update(keep=["fp16"]), "keep is .*, must be one of"),
    "fingerprint": (lambda v: v.update(model_fingerprint="xyz"), "must be 16 hexadecimal digits"),
    "provenance": (lambda v: v.update(provenance="me"), 'provenance is "me", must be an object'),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_changed_plan_is_refused_in_one_line(
    path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=message) as caught:
        load_plan(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 400


@pytest.mark.parametrize(
    "change", [{"policy": "joint"}, {"model": "other"}, {"digest": "0" * 64}, {"coupling": 0.5}], ids=str
)
def test_a_plan_that_was_edited_is_refused(path: Path, change: dict[str, Any]) -> None:
    """Whatever was changed, even where it would make sense."""
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match="its digest is not that of its content; the plan was changed by hand"):
        load_plan(path)


def test_layout_of_the_json_does_not_count(path: Path) -> None:
    """An editor may sort keys and drop blanks."""
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert load_plan(path) == PLAN


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe{}",
        b'{"bound": NaN}',
        b"[" * 100_000,
        b'{"a": 1' + b"0" * 5000 + b"}",
    ],
    ids=["empty", "cut", "list", "null", "not-utf8", "nan", "deep", "huge-number"],
)
def test_what_is_no_plan_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match="make it again") as caught:
        load_plan(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 400])
def test_number_beyond_all_bounds_is_refused(path: Path, number: str) -> None:
    values = json.loads(path.read_text())
    values["total_damage"] = "here"
    path.write_text(json.dumps(values).replace('"here"', number))
    with pytest.raises(InputError, match=r"total_damage is .*, must be a number"):
        load_plan(path)


def test_uniform_assignment_covers_every_layer() -> None:
    layers = [Layer(name, "linear", "mlp", "vit.0", (2, 2), 4) for name in "ab"]
    assert uniform_assignment(layers, "int4_group_64") == {"a": "int4_group_64", "b": "int4_group_64"}
    with pytest.raises(InputError, match="unknown format 'int5'"):
        uniform_assignment(layers, "int5")
