"""Kernel tables: read back as written, refused elsewhere, and right between the numbers that were measured."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vggtkit.core.errors import InputError
from vggtkit.core.seal import sealed
from vggtkit.quant import Layer
from vggtkit.runtime.kernel_table import KernelTable, LayerRow, PassTimes, load_table, save_table, this_machine

LISTED = Layer("blocks.7.fc", "linear", "mlp", "blocks.7", (4, 2), 8)


def passes(views: int) -> PassTimes:
    """A layer that takes 1 s and 2 s a picture; a rest of 3 s a picture and 0.5 s a pair of pictures."""
    seconds = {"blocks.0.fc": {"plain": 1.0 + 2 * views, "int8": 0.5 + views, "fp32": 9.0 + views}}
    rest = {
        "plain": {"blocks": 3.0 * views + 0.5 * views**2, "rest": -0.25 * views},
        "backend": {"blocks": 1.0 * views, "rest": 0.5},
    }
    return PassTimes(views, seconds, {"blocks.0.fc": 2.0}, rest)


@pytest.fixture
def table() -> KernelTable:
    return KernelTable(
        "mine", 2, (28, 14), (), this_machine(), "none", {"blocks.0.fc": LayerRow("linear", (4, 2), "blocks")},
        {"blocks": 24}, {"blocks": 24}, {"int3": {"int8": 0.5, "float": 0.25}, "int8_per_channel_sym": {"int8": 0.25,
        "float": 0.0}}, (passes(1), passes(2), passes(4)),
    )  # fmt: skip


def test_a_table_is_read_back_as_it_was_written(table: KernelTable, tmp_path: Path) -> None:
    save_table(table, tmp_path / "kernels.json")
    assert load_table(tmp_path / "kernels.json") == table


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda values: values | {"views": 3}, "changed by hand"),
        (lambda values: sealed(values | {"rows": []}), "no kernel table"),
        (lambda values: sealed(values | {"size": 3}), "no kernel table"),
        (lambda _: sealed({"schema_version": 1}), "no kernel table"),
        (lambda values: sealed(values | {"more": 1}), "no kernel table"),
        (lambda _: [], "no kernel table"),
    ],
    ids=["edited", "rows", "size", "empty", "more", "list"],
)
def test_a_table_that_is_none_is_refused(
    table: KernelTable, tmp_path: Path, change: Callable[[dict[str, object]], object], said: str
) -> None:
    path = tmp_path / "kernels.json"
    save_table(table, path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(InputError, match=rf"kernels.json: .*{said}.*python cli.py kernels --run"):
        load_table(path)
    path.write_text("[" * 10**5)
    with pytest.raises(InputError, match=r"kernels.json: not readable"):
        load_table(path)


@pytest.mark.parametrize("views", [1, 2, 3, 8, 32])
def test_pictures_count_in_proportion_and_pairs_of_them_by_the_square(table: KernelTable, views: int) -> None:
    found, expected = table.at(views), passes(views)
    assert found.seconds["blocks.0.fc"] == pytest.approx(expected.seconds["blocks.0.fc"])
    for mode, stages in expected.rest.items():
        assert found.rest[mode] == pytest.approx(stages)
    assert found.calls == pytest.approx({"blocks.0.fc": 2.0})


def test_layers_that_repeat_are_those_that_were_measured(table: KernelTable) -> None:
    assert table.measured_as("blocks.7.fc") == "blocks.0.fc"
    assert table.measured_as("head.0.fc") == "head.0.fc"
    assert table.plain_seconds(table.at(2), [LISTED] * 24, ()) == pytest.approx(24 * 5.0 + 24 * 8.0 - 0.5)


def test_formats_differ_by_what_they_take_to_unpack(table: KernelTable) -> None:
    """Two calls of 8 weights; INT8 per channel is in what was measured already."""
    times = table.at(2)
    kept = table.layer_seconds(times, LISTED, "int3", stays=False)
    assert kept == pytest.approx({"int8": 2.5 + 16 * 0.25, "fp32": 11.0 + 16 * 0.25})
    assert table.layer_seconds(times, LISTED, "int3", stays=True)["fp32"] == pytest.approx(11.0)
    assert table.layer_seconds(times, LISTED, "int8_per_channel_sym", stays=False)["int8"] == pytest.approx(2.5)


@pytest.mark.parametrize("what", ["processor", "threads", "torch", "instructions"])
def test_a_table_of_another_machine_is_refused_with_the_way_out(table: KernelTable, what: str) -> None:
    other = replace(table, machine={**table.machine, what: "other"})
    with pytest.raises(
        InputError, match=rf"kernels.json: measured with {what} 'other', here it is .*kernels"
    ) as caught:
        other.check([LISTED], (), "kernels.json")
    assert "\n" not in str(caught.value)


def test_a_table_of_another_model_is_refused(table: KernelTable) -> None:
    table.check([LISTED], (), "kernels.json")
    with pytest.raises(InputError, match=r"is of mine, which has no layer like blocks\.7\.fc"):
        table.check([replace(LISTED, shape=(2, 4))], (), "kernels.json")
    with pytest.raises(InputError, match="measured without the depth head"):
        table.check([LISTED], ("depth",), "kernels.json")


def test_a_damaged_table_is_refused(table: KernelTable, tmp_path: Path) -> None:
    path = tmp_path / "kernels.json"
    with pytest.raises(InputError, match=r"no such file; make it with `.* kernels"):
        load_table(path)
    save_table(table, path)
    values = json.loads(path.read_text())
    values["passes"][0]["seconds"]["blocks.0.fc"]["int8"] = 1e-9
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match="was changed by hand or is damaged"):
        load_table(path)
    path.write_text("{}")
    with pytest.raises(InputError, match="no kernel table of version 1"):
        load_table(path)
