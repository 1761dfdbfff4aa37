"""Files that this user's tool has written itself, told from those of others.

What is foreign is read with care, in a child process first (`vggtkit.core.trial`); what is one's own need not be. A
signature (HMAC, RFC 2104, with SHA-256) stands after the end of a file, where formats with an end of their own, such as
HDF5, do not look. Its key lies in the folder of the user's state and leaves it never: where it is not, or the file came
from elsewhere or has changed, there is no signature, and the file is foreign.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from vggtkit.core.atomic import replacing
from vggtkit.core.errors import InputError
from vggtkit.core.permits import state_folder

_MAGIC = b"signature-1\n"
_TAIL = struct.Struct(f"<Q32s{len(_MAGIC)}s")
"""How many places are left out, the signature, the magic."""
_PLACE = struct.Struct("<QQ")
_KEY_BYTES = 32
_PIECE = 1 << 16


def sign(path: Path, left_out: Sequence[tuple[int, int]] = ()) -> None:
    """Append a signature to a file that is complete; where the user's state cannot be written there is none.

    Args:
        path: the file.
        left_out: places that it does not speak of, offset and length in bytes; they have digests of their own.

    Raises:
        OSError: the file cannot be written, or read again.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "file"
    >>> _ = path.write_bytes(b"what was written")
    >>> sign(path, [(0, 4)])
    >>> is_signed(path)
    True
    >>> _ = path.write_bytes(path.read_bytes().replace(b"was", b"is "))
    >>> is_signed(path)
    False
    """
    if (key := _key(make=True)) is None:
        return
    table = b"".join(_PLACE.pack(*place) for place in sorted(left_out))
    with path.open("r+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        signature = _signature(key, file.fileno(), end, table)
        rest = memoryview(table + _TAIL.pack(len(left_out), signature, _MAGIC))
        while rest:
            rest = rest[file.write(rest) or 0 :]


def is_signed(path: Path) -> bool:
    """Whether this user's tool has written a file, and nothing has changed since but, it may be, what was left out."""
    with suppress(OSError), path.open("rb", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size < _TAIL.size:
            return False
        count, signature, magic = _TAIL.unpack(os.pread(file.fileno(), _TAIL.size, size - _TAIL.size))
        end = size - _TAIL.size - count * _PLACE.size
        if magic != _MAGIC or end < 0 or (key := _key(make=False)) is None:
            return False
        table = os.pread(file.fileno(), count * _PLACE.size, end)
        return hmac.compare_digest(signature, _signature(key, file.fileno(), end, table))
    return False


def _signature(key: bytes, descriptor: int, end: int, table: bytes) -> bytes:
    """Of the table of what is left out, and of all bytes before the end that it does not name."""
    code = hmac.new(key, _MAGIC + struct.pack("<Q", end) + table, hashlib.sha256)
    for begin, stop in _between(table, end):
        for at in range(begin, stop, _PIECE):
            code.update(os.pread(descriptor, min(_PIECE, stop - at), at))
    return code.digest()


def _between(table: bytes, end: int) -> Iterator[tuple[int, int]]:
    at = 0
    for offset, length in _PLACE.iter_unpack(table):
        yield at, min(offset, end)
        at = max(at, offset + length)
    yield at, end


def _key(*, make: bool) -> bytes | None:
    """The user's own; None where there is none, or where others could know it."""
    with suppress(OSError, InputError, RuntimeError):
        path = state_folder() / "key"
        if make and not path.is_file():
            with replacing(path) as temporary:
                temporary.chmod(0o600)
                temporary.write_bytes(secrets.token_bytes(_KEY_BYTES))
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            key = file.read(_KEY_BYTES + 1)
        is_private = os.name != "posix" or (facts.st_uid == os.geteuid() and not facts.st_mode & 0o077)
        return key if is_private and len(key) == _KEY_BYTES else None
    return None
