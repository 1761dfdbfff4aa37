"""Files and folders that appear under their real name complete, or not at all; those that belong together at once."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from vggtkit.core.errors import InputError
from vggtkit.core.interrupts import uninterrupted

_LONGEST_NAME = 100  # of the real name in the temporary one, whose length file systems limit to 255 bytes
_PARTIAL = re.compile(r"\..*\.(\d+)(-[0-9a-f]{8})?\.partial", re.DOTALL)
_REPLACED = ".replaced"
"""How the name of a folder ends that is moved aside while another takes its place."""
_LEFT = re.compile(r"\.(.*)\.(\d+)-[0-9a-f]{8}(\.partial|\.replaced)", re.DOTALL)
Write = Callable[[Path], object]
"""Writes a file at the path that it is given."""
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place at the end; folders are made as needed.

    Whatever goes wrong inside the ``with`` block, the temporary file is removed and an older file under the
    real name stays as it was.

    Args:
        path: the file to write or to replace.

    Yields:
        The temporary path, an empty file to be written and closed inside the block.

    Raises:
        InputError: it cannot be written: a full disk, a missing permission, a folder of that name.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "runs" / "plan.json"
    >>> with replacing(path) as temporary:
    ...     _ = temporary.write_text("{}")
    >>> path.read_text(), [entry.name for entry in path.parent.iterdir()]
    ('{}', ['plan.json'])
    """
    with replacing_all([path]) as (temporary,):
        yield temporary


@contextmanager
def replacing_all(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """As `replacing`, for files that belong together: all are on the disk before the first takes its name.

    An interruption waits until the last has taken its own.

    Raises:
        InputError: one cannot be written; all older files stay as they were.
    """
    path = paths[0]
    temporaries: list[Path] = []
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            with uninterrupted():
                temporaries.append(_created_beside(path))
        path = paths[0]
        yield temporaries
        for path, temporary in zip(paths, temporaries, strict=True):
            _flush(temporary)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with uninterrupted():
            for path, temporary in zip(paths, temporaries, strict=True):
                temporary.replace(path)
    except Exception as error:
        if (fault := _fault_of_disk(error)) is None:
            raise
        raise _unwritable(path, fault) from error
    finally:
        for temporary in temporaries:
            with suppress(OSError):
                temporary.unlink()


def of_text(text: str) -> Write:
    """What writes a text, in UTF-8."""
    return lambda path: path.write_text(text, encoding="utf-8")


def write_all(files: Mapping[Path, Write]) -> None:
    """Write files that belong together, each by its own function: all change, or none.

    Args:
        files: what writes each, by where it belongs.

    Raises:
        InputError: one cannot be written; all older files stay as they were.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_all({folder / "a": lambda path: path.touch(), folder / "b": lambda path: path.touch()})
    >>> sorted(path.name for path in folder.iterdir())
    ['a', 'b']
    """
    with replacing_all(list(files)) as temporaries:
        for write, temporary in zip(files.values(), temporaries, strict=True):
            write(temporary)


@contextmanager
def replacing_folder(folder: Path, marker: str) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that takes its place at the end; folders above it are made as needed.

    Whatever goes wrong inside the ``with`` block, the temporary folder is removed and an older one under the real name
    stays as it was. What takes its place is whole: nothing of the older one is left among it.

    Args:
        folder: to make or to replace. One that holds anything is replaced only if it holds the marker.
        marker: name of a file that is in every folder of this kind, and in no other.

    Yields:
        The temporary folder, empty.

    Raises:
        InputError: it cannot be written, or it holds something else.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "out"
    >>> for number in ("1", "2"):
    ...     with replacing_folder(folder, "index.json") as temporary:
    ...         _ = (temporary / "index.json").write_text(number)
    >>> (folder / "index.json").read_text(), [entry.name for entry in folder.parent.iterdir()]
    ('2', ['out'])
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100
    check_replaceable(folder, marker)
    _put_right(folder)
    name = f".{folder.name[:_LONGEST_NAME]}.{os.getpid()}-{secrets.token_hex(4)}"
    temporary, older = folder.with_name(f"{name}.partial"), folder.with_name(f"{name}{_REPLACED}")
    absent = [place for place in folder.parents if not place.exists()]
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                _flush(path)
        check_replaceable(folder, marker)
        with uninterrupted():
            if folder.exists():
                folder.replace(older)
            temporary.replace(folder)
    except Exception as error:
        if (fault := _fault_of_disk(error)) is None:
            raise
        raise _unwritable(folder, fault) from error
    finally:
        if older.exists() and not folder.exists():
            older.replace(folder)
        for place in (temporary, older):
            shutil.rmtree(place, ignore_errors=True)
        with suppress(OSError):  # one that holds something stays, and so do those above it
            for place in absent:
                place.rmdir()


def _unwritable(place: Path, fault: OSError) -> InputError:
    reason = fault.strerror or str(fault) or type(fault).__name__
    return InputError(f"cannot write {place}: {reason}; make room or name another place")


def _put_right(folder: Path) -> None:
    """Do what a process could not that was killed while it wrote this folder: an older one that it had moved aside."""
    beside = folder.parent.iterdir() if folder.parent.is_dir() else ()
    for entry in sorted(beside):
        match = _LEFT.fullmatch(entry.name)
        if match is None or match[1] != folder.name[:_LONGEST_NAME] or _is_alive(int(match[2])) or not entry.is_dir():
            continue
        if match[3] == _REPLACED and not folder.exists():
            entry.replace(folder)
        else:
            shutil.rmtree(entry, ignore_errors=True)


def check_replaceable(folder: Path, marker: str) -> None:
    """Refuse a folder that holds something else than what is to be replaced.

    Raises:
        InputError: it is a file, or holds files but not the marker.
    """
    try:
        others = [] if not folder.exists() else [entry.name for entry in folder.iterdir()]
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; name another folder") from error
    if others and marker not in others:
        raise InputError(f"{folder} holds other files, {min(others)!r} is one; name an empty or a new folder")


def remove_partials(folder: Path) -> None:
    """Remove what killed processes left in a folder; what a living one is writing stays."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        match = _PARTIAL.fullmatch(entry.name)
        if match and not entry.is_dir() and not _is_alive(int(match[1])):
            with suppress(OSError):
                entry.unlink()


def _created_beside(path: Path) -> Path:
    """A new, empty file; never one that was there, and never through a link."""
    temporary = path.with_name(f".{path.name[:_LONGEST_NAME]}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    return temporary


def _flush(path: Path) -> None:
    """Wait until the disk has it all: a full one may show only now, and must before the name is taken."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _fault_of_disk(error: BaseException) -> OSError | None:
    """The system's error: this one, or what a library made another error of."""
    if isinstance(error, OSError):
        return error
    if isinstance(error, InputError):
        return None
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _FULL:
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _is_alive(process: int) -> bool:
    """Whether another process of this number runs."""
    if process == os.getpid():  # numbers are used again, in a container almost always
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError, ValueError):
        return False
    except OSError:
        return True
    return True
