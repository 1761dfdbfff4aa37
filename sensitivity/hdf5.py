"""HDF5 files that may come from anybody, and a disk that may be full.

A file of this format can name other files to be read in its place, ask for any amount of memory, and send the library
round in circles. What is read here is plain: hard links, values in the file itself, no more bytes than the file has.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vggtkit.core.interrupts import check_interrupted, uninterrupted

DIGEST = "digest"
"""The root attribute with the SHA-256 of everything but activations."""
ACTIVATIONS = "activations"
SHA256 = "sha256"
"""The attribute of an activation with its own digest, which is checked when it is read: together they may be large."""

_TEXT, _SCALAR = h5py.h5t.py_create(h5py.string_dtype(), logical=True), h5py.h5s.create(h5py.h5s.SCALAR)


class _Disk(io.RawIOBase):
    """A file that seems to take everything, and remembers the first error.

    HDF5 can neither write to a full disk nor give up: it fails to close the file, tries again, and ends the program.
    Nor may it read back something else than it wrote; so what the disk did not take stays in memory. That is little, as
    whoever writes asks `check` before every dataset.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.file = path.open("r+b", buffering=0)
        self.fault: OSError | None = None
        self.at = 0
        self.untaken: list[tuple[int, bytes]] = []

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401
        rest = memoryview(data).cast("B")
        length, at = rest.nbytes, self.at
        self.at += length
        try:
            while rest and self.fault is None:
                taken = os.pwrite(self.file.fileno(), rest, at)
                rest, at = rest[taken:], at + taken
        except OSError as error:
            self.fault = error
        if rest:
            self.untaken.append((at, bytes(rest)))
        return length

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401
        view = memoryview(buffer).cast("B")
        begin, end = self.at, self.at + view.nbytes
        taken = os.pread(self.file.fileno(), view.nbytes, begin)
        view[:] = taken.ljust(view.nbytes, b"\0")
        for at, piece in self.untaken:
            first, last = max(begin, at), min(end, at + len(piece))
            if first < last:
                view[first - begin : last - begin] = piece[first - at : last - at]
        self.at = end
        return view.nbytes

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == os.SEEK_CUR:
            offset += self.at
        elif whence == os.SEEK_END:
            offset += max(os.fstat(self.file.fileno()).st_size, *(at + len(piece) for at, piece in self.untaken), 0)
        self.at = offset
        return self.at

    def tell(self) -> int:
        return self.at

    def truncate(self, size: int | None = None) -> int:
        size = self.at if size is None else size
        try:
            if self.fault is None:
                os.truncate(self.file.fileno(), size)
        except OSError as error:
            self.fault = error
        return size

    def check(self) -> None:
        """Raise what the disk has refused, if it has."""
        if self.fault is not None:
            raise self.fault

    def close(self) -> None:
        self.file.close()
        super().close()


@contextmanager
def writing_hdf5(path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """A new file, sealed at the end, and what is to be called before more is written: it fails once the disk has.

    There it is interrupted, too, and nowhere else: what a signal raises while HDF5 writes is one more error that HDF5
    cannot end on.

    Raises:
        OSError: it does not fit on the disk, or cannot be written for another reason.
    """
    disk = _Disk(path)

    def check() -> None:
        check_interrupted()
        disk.check()

    with uninterrupted():
        try:
            with h5py.File(disk, "w") as file:
                yield file, check
                file.attrs[DIGEST] = content_digest(file)
        finally:
            disk.close()
            disk.check()


def describe(item: h5py.Dataset, **texts: str) -> None:
    """Give a new dataset attributes.

    ``attrs`` would write each under another name first, as there might be an older one, and ask for its type anew; of a
    small network's profile that is a tenth.
    """
    for name, text in texts.items():
        attribute = h5py.h5a.create(item.id, name.encode(), _TEXT, _SCALAR)
        attribute.write(np.array(text, dtype=object))


def content_digest(file: h5py.File) -> str:
    """SHA-256 of all attributes, names and values but activations, which have digests of their own.

    Raises:
        ValueError: something is not plain, see `plain_item`.
    """
    sha256 = hashlib.sha256()
    _hash_group(sha256, file)
    return sha256.hexdigest()


def array_digest(name: str, array: NDArray[Any]) -> str:
    """SHA-256 of a name and an array's values."""
    sha256 = hashlib.sha256(name.encode())
    sha256.update(_bytes_of(array))
    return sha256.hexdigest()


def read_plain(dataset: h5py.Dataset) -> NDArray[Any]:
    """All values of a dataset, which must lie in the file itself.

    Raises:
        ValueError: they lie elsewhere, are filtered, or would take more than the file has.
    """
    stored = dataset.id.get_create_plist()
    if dataset.is_virtual or dataset.external or stored.get_nfilters():
        raise ValueError(f"{dataset.name} is not stored in the file as it is (virtual, external or filtered)")
    if dataset.size * dataset.dtype.itemsize > dataset.file.id.get_filesize():
        raise ValueError(f"{dataset.name} claims {dataset.shape}, more than the file has")
    values: NDArray[Any] = dataset[()]
    return values


def plain_item(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """What a group holds under a path, through links of this file alone.

    Raises:
        KeyError: nothing.
        ValueError: a link that leads out of the file, or anywhere.
    """
    entry: Any = group
    for part in name.split("/"):
        if not isinstance(entry, h5py.Group):
            raise KeyError(f"{entry.name} is no group")
        link = entry.get(part, getlink=True)
        if link is None:
            raise KeyError(f"{part} is missing in {entry.name}")
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{part} in {entry.name} is a link, which may lead out of the file")
        entry = entry[part]
    return entry


def datasets_of(group: h5py.Group, name: str) -> dict[str, NDArray[Any]]:
    """Values of all datasets right below a path, by name."""
    inside = plain_item(group, name)
    return {key: read_plain(plain_item(inside, key)) for key in inside}


def _hash_group(sha256: Any, group: h5py.Group) -> None:  # noqa: ANN401
    _hash_attributes(sha256, group)
    for name in sorted(group):
        item = plain_item(group, name)
        if isinstance(item, h5py.Dataset):
            values = read_plain(item)
            sha256.update(f"\n{item.name} {values.dtype.descr} {values.shape}\n".encode())
            _hash_attributes(sha256, item)
            sha256.update(_bytes_of(values))
        elif item.name != f"/{ACTIVATIONS}":
            sha256.update(f"\n{item.name}\n".encode())
            _hash_group(sha256, item)


def _hash_attributes(sha256: Any, item: h5py.Group | h5py.Dataset) -> None:  # noqa: ANN401
    for name in sorted(item.attrs):
        if name != DIGEST:
            value = item.attrs[name]
            plain = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
            sha256.update(f"{name}={json.dumps(plain)}\n".encode())


def _bytes_of(array: NDArray[Any]) -> bytes | memoryview:
    """An array's values; of a table with texts their JSON, since such a table holds addresses."""
    if array.dtype.hasobject:
        return json.dumps(array.tolist(), default=lambda text: text.decode(errors="backslashreplace")).encode()
    return np.ascontiguousarray(array).data.cast("B") if array.size else b""
