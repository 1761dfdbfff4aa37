"""Writing a file under its real name only once it is complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write to a temporary file beside ``path`` that takes its place at the end; folders are made as needed.

    Whatever goes wrong inside the ``with`` block, the temporary file is removed and an older file under the
    real name stays as it was.

    Args:
        path: the file to write or to replace.

    Yields:
        The temporary file, open for binary writing.

    Raises:
        InputError: it cannot be written: a full disk, a missing permission, a folder of that name.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "plan.json"
    >>> with replacing(path) as file:
    ...     _ = file.write(b"{}")
    >>> path.read_text()
    '{}'
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # a full disk may show only here, and must before the name is taken
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"cannot write {path}: {reason}; make room or name another place") from error
    finally:
        if partial.exists():
            partial.unlink()
