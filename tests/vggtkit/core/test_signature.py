"""What this user's tool has written is known again, and nothing else is."""

from pathlib import Path

import pytest

from vggtkit.core.permits import state_folder
from vggtkit.core.signature import is_signed, sign

CONTENT = bytes(range(200))
LEFT_OUT = [(150, 20), (30, 10)]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is signed, and a user with a key of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    sign(path, LEFT_OUT)
    assert path.read_bytes().startswith(CONTENT)
    return path


def test_every_byte_counts_but_those_left_out(path: Path) -> None:
    written = path.read_bytes()
    for at in range(len(written)):
        changed = bytearray(written)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        assert is_signed(path) == any(first <= at < first + length for first, length in LEFT_OUT), at
    path.write_bytes(written)
    assert is_signed(path)


def test_what_is_left_out_is_signed_too(path: Path) -> None:
    """Also where all bytes are alike, so that what is signed looks the same wherever the places lie."""
    path.write_bytes(bytes(200))
    sign(path, [(40, 10)])
    written = path.read_bytes()
    for at in range(200, len(written)):
        path.write_bytes(written[:at] + bytes([written[at] ^ 1]) + written[at + 1 :])
        assert not is_signed(path), at


def test_neither_shorter_nor_longer_nor_nothing(path: Path, tmp_path: Path) -> None:
    written = path.read_bytes()
    for other in (b"", CONTENT, written[:-1], written[1:], written + b"\0", b"\0" + written, written[-60:]):
        path.write_bytes(other)
        assert not is_signed(path)
    assert not is_signed(tmp_path / "absent")


def test_the_file_of_another_user_is_foreign(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    assert not is_signed(path)  # who has no key yet
    other = tmp_path / "of-other"
    other.write_bytes(CONTENT)
    sign(other)
    assert is_signed(other)
    assert not is_signed(path)


def test_a_key_that_others_can_read_is_none(path: Path) -> None:
    key = state_folder() / "key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o640)
    assert not is_signed(path)
    sign(path)
    assert not is_signed(path)
    key.chmod(0o600)
    assert is_signed(path)


def test_a_key_stays(path: Path) -> None:
    before = (state_folder() / "key").read_bytes()
    sign(path)
    assert (state_folder() / "key").read_bytes() == before


def test_who_can_keep_no_key_has_no_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state").write_text("in the way")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    sign(path)
    assert path.read_bytes() == CONTENT
    assert not is_signed(path)


def test_who_is_at_home_nowhere_has_no_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", nowhere)
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    sign(path)
    assert not is_signed(path)
