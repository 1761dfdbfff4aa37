"""Files that appear under their real name complete, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vggtkit.core.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place at the end; folders are made as needed.

    Whatever goes wrong inside the ``with`` block, the temporary file is removed and an older file under the
    real name stays as it was.

    Args:
        path: the file to write or to replace.

    Yields:
        The temporary path, to be written and closed inside the block.

    Raises:
        InputError: it cannot be written: a full disk, a missing permission, a folder of that name.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "runs" / "plan.json"
    >>> with replacing(path) as temporary:
    ...     _ = temporary.write_text("{}")
    >>> path.read_text(), [entry.name for entry in path.parent.iterdir()]
    ('{}', ['plan.json'])
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise InputError(f"cannot write {path}: {reason}; make room or name another place") from error
    finally:
        if temporary.exists():
            temporary.unlink()


def _flush(path: Path) -> None:
    """Wait until the disk has it all: a full one may show only now, and must before the name is taken."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
