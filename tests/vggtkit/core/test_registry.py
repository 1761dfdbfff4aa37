"""What is registered by name, and functions that a run folder may call again."""

from pathlib import Path

import pytest

from vggtkit.core.errors import InputError
from vggtkit.core.permits import MOST, check_permitted, permit
from vggtkit.core.registry import MOST_SHOWN, Registry


def test_a_registry_is_a_mapping_in_the_order_of_registration() -> None:
    registry: Registry[int] = Registry("number")
    for key in ("one", "three", "two"):
        assert registry.register(key, len(key)) == len(key)
    assert (list(registry), registry["three"], "four" in registry, len(registry)) == (
        ["one", "three", "two"],
        5,
        False,
        3,
    )
    with pytest.raises(ValueError, match="number 'two' is registered already"):
        registry.register("two", 2)
    assert registry.unregister("two") == 3
    assert "two" not in registry


def test_what_is_not_there_is_refused_with_the_nearest_and_a_short_list() -> None:
    registry: Registry[int] = Registry("format", "`formats`")
    for number in range(MOST_SHOWN + 3):
        registry.register(f"int{number}_group", number)
    with pytest.raises(InputError, match=r"unknown format 'int3_grup'.*did you mean int3_group\?.* and 3 more, which"):
        registry.pick("int3_grup")
    assert registry.pick("int3_group") == 3


def test_a_function_is_permitted_where_it_was_named_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    here, there = tmp_path / "here", tmp_path / "there"
    with pytest.raises(InputError, match=r"add --model mine:build"):
        check_permitted(here, "mine:build", "--model mine:build")
    permit(here, "mine:build")
    check_permitted(here, "mine:build", "--model mine:build")
    for run, source in ((there, "mine:build"), (here, "mine:other")):
        with pytest.raises(InputError):
            check_permitted(run, source, f"--model {source}")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"/x": 3}', "\x00"])
def test_a_damaged_memory_permits_nothing_and_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "vggt-mixedprec").mkdir()
    (tmp_path / "vggt-mixedprec" / "functions.json").write_text(text)
    with pytest.raises(InputError):
        check_permitted(tmp_path, "mine:build", "--model mine:build")
    permit(tmp_path, "mine:build")
    check_permitted(tmp_path, "mine:build", "--model mine:build")


def test_the_oldest_folders_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("vggtkit.core.permits.MOST", 3)
    assert MOST > 3
    for number in range(5):
        permit(tmp_path / str(number), "mine:build")
    check_permitted(tmp_path / "4", "mine:build", "--model mine:build")
    with pytest.raises(InputError):
        check_permitted(tmp_path / "0", "mine:build", "--model mine:build")
