"""Files appear complete or not at all."""

from pathlib import Path

import pytest

import vggtkit.core.atomic
from vggtkit.core.atomic import replacing, replacing_all
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
