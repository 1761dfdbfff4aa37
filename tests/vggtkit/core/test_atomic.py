"""Files appear complete or not at all."""

from pathlib import Path

import pytest

import vggtkit.core.atomic
from vggtkit.core.atomic import replacing, replacing_all, replacing_folder
from vggtkit.core.errors import InputError


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "plan.json"
    for text in ("old", "new"):
        with replacing(path) as temporary:
            temporary.write_text(text)
            assert temporary.parent == path.parent
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, InputError, SystemExit])
def test_nothing_is_left_of_a_failure(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")
    with pytest.raises(failure), replacing(path) as temporary:
        temporary.write_text("half")
        raise failure
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("plan.json", "old")]


def test_the_disk_has_it_before_the_name_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk may show only in fsync; then the old file must still be there."""
    path = tmp_path / "plan.json"
    path.write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(vggtkit.core.atomic.os, "fsync", full)
    with (
        pytest.raises(InputError, match=r"cannot write .*plan\.json: No space left on device; make room"),
        replacing(path) as temporary,
    ):
        temporary.write_text("new")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("plan.json", "old")]


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(InputError, match=r"cannot write .*profile"), replacing(tmp_path / "run" / "profile.h5"):
        raise AssertionError("never reached")
    (tmp_path / "plan.json").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*: Is a directory"), replacing(tmp_path / "plan.json") as part:
        part.touch()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["plan.json", "run"]


def test_a_planted_link_is_not_written_through(tmp_path: Path) -> None:
    """The temporary file is made anew, so that a link of its name, if it could be guessed, would be refused."""
    with replacing(tmp_path / "plan.json") as temporary:
        assert (temporary.is_file(), temporary.is_symlink(), temporary.stat().st_size) == (True, False, 0)
        with pytest.raises(FileExistsError):
            vggtkit.core.atomic.os.open(temporary, vggtkit.core.atomic.os.O_CREAT | vggtkit.core.atomic.os.O_EXCL)


def test_files_that_belong_together_change_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when the last is flushed: none has changed."""
    paths = [tmp_path / name for name in ("results.json", "report.txt", "charts.png")]
    for path in paths:
        path.write_text("old")
    flushed = []

    def full_at_the_third(descriptor: int) -> None:
        flushed.append(descriptor)
        if len(flushed) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(vggtkit.core.atomic.os, "fsync", full_at_the_third)
    with pytest.raises(InputError, match=r"cannot write .*charts\.png: No space"), replacing_all(paths) as temporaries:
        for temporary in temporaries:
            temporary.write_text("new")
    assert {entry.name: entry.read_text() for entry in tmp_path.iterdir()} == {path.name: "old" for path in paths}


def test_a_full_disk_that_a_library_calls_something_else_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No space left on device"), replacing(tmp_path / "steps.npz"):
        try:
            raise OSError(28, "No space left on device")
        finally:
            raise ValueError("Can't close the ZIP file while there is an open writing handle on it")


MARKER = "index.json"


def write_folder(folder: Path, text: str, *names: str) -> None:
    with replacing_folder(folder, MARKER) as temporary:
        for name in (MARKER, *names):
            (temporary / name).parent.mkdir(exist_ok=True)
            (temporary / name).write_text(text)


def files_in(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_takes_the_place_of_another_whole(tmp_path: Path) -> None:
    write_folder(tmp_path / "a" / "out", "old", "depth/1.png", "depth/2.png")
    write_folder(tmp_path / "a" / "out", "new", "depth/1.png")
    assert files_in(tmp_path) == {f"a/out/{name}": "new" for name in (MARKER, "depth/1.png")}


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, InputError])
def test_nothing_is_left_of_a_folder_that_fails(tmp_path: Path, failure: type[BaseException]) -> None:
    write_folder(tmp_path / "out", "old")
    for place in (tmp_path / "out", tmp_path / "new" / "below"):
        with pytest.raises(failure), replacing_folder(place, MARKER) as temporary:
            (temporary / "half").write_text("half")
            raise failure
    assert files_in(tmp_path) == {f"out/{MARKER}": "old"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_folder(tmp_path / "out", "new")  # an empty one is
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("work")
    for place in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        with pytest.raises(InputError, match=r"thesis\.txt"):
            write_folder(place, "new")
    assert files_in(tmp_path / "mine") == {"thesis.txt": "work"}


def test_what_a_killed_process_moved_aside_comes_back(tmp_path: Path) -> None:
    """Killed between the two renames: the older folder has another name, and the new one is whole or not."""
    dead = 2**22 + 1  # above the largest number that Linux gives
    for name in (f".out.{dead}-0123abcd.replaced", f".out.{dead}-0123abcd.partial", f".other.{dead}-0123abcd.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / MARKER).write_text(name)
    with pytest.raises(RuntimeError), replacing_folder(tmp_path / "out", MARKER):
        raise RuntimeError
    assert files_in(tmp_path / "out") == {MARKER: f".out.{dead}-0123abcd.replaced"}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [f".other.{dead}-0123abcd.partial", "out"]
