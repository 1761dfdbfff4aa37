"""The safetensors container, written tensor by tensor and with a header of a fixed size.

The library's own writer wants all tensors in memory at once, and its header is as long as it happens to be.
Here the header is filled up with spaces, which the format allows, so that a file's size is exactly linear in
what it holds.

Source: the format's description, https://github.com/huggingface/safetensors#format: 8 bytes of header length
(little-endian), the header in JSON, the data; offsets count from the end of the header, without holes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import torch
from torch import Tensor

LENGTH_BYTES = 8
DIGEST_KEY = "digest"
_PIECE = 1 << 20  # bytes hashed at a time
DIGEST_DIGITS = 64
DIGEST_BYTES = len(f',"{DIGEST_KEY}":""') + DIGEST_DIGITS
"""What the digest takes of a header."""
# From the widest down, so that every tensor is aligned to its own width.
_DTYPES = {
    torch.float64: "F64", torch.int64: "I64", torch.float32: "F32", torch.int32: "I32", torch.float16: "F16",
    torch.bfloat16: "BF16", torch.int16: "I16", torch.uint8: "U8", torch.int8: "I8", torch.bool: "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that a file is going to hold.

    >>> StoredTensor("scales", torch.float16, (3, 2)).nbytes
    12
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * self.dtype.itemsize


class Container:
    """Where every part of a file goes.

    Args:
        parts: all tensors, in any order.
        metadata: texts for the header, without its digest.
        capacity: bytes of the header, filled up with spaces; a multiple of 8.

    Raises:
        ValueError: the header does not fit its capacity.
    """

    def __init__(self, parts: Iterable[StoredTensor], metadata: Mapping[str, str], capacity: int) -> None:
        order = list(_DTYPES)
        self.parts = sorted(parts, key=lambda part: order.index(part.dtype))
        self.capacity = capacity
        self.begin: dict[str, int] = {}
        end = 0
        for part in self.parts:
            self.begin[part.name] = end
            end += part.nbytes
        self.size_bytes = LENGTH_BYTES + capacity + end
        self.metadata = dict(metadata)
        self._header(DIGEST_DIGITS * "f")

    def write(self, file: BinaryIO, name: str, tensor: Tensor) -> None:
        """Write the bytes of one part, a tensor of its shape and type, to its place."""
        file.seek(LENGTH_BYTES + self.capacity + self.begin[name])
        values: memoryview = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
        file.write(values)

    def write_header(self, file: BinaryIO) -> str:
        """Write everything that comes before the data, after the data; returns the digest, which it holds.

        Args:
            file: open for reading, too.
        """
        file.seek(LENGTH_BYTES + self.capacity)
        digest = _digest(json.loads(_header(self.parts, self.begin, self.metadata)), file)
        file.seek(0)
        file.write(self.capacity.to_bytes(LENGTH_BYTES, "little"))
        file.write(self._header(digest).ljust(self.capacity))
        return digest

    def _header(self, digest: str) -> bytes:
        header = _header(self.parts, self.begin, self.metadata | {DIGEST_KEY: digest})
        if len(header) > self.capacity:
            raise ValueError(f"the header takes {len(header)} bytes, its capacity is {self.capacity}")
        return header


def file_digest(file: BinaryIO) -> str:
    """SHA-256 of what a container holds: texts (but for the digest), names, types, shapes and places, then all data.

    Args:
        file: a container with a sound header.

    Raises:
        ValueError: the header is none.
    """
    file.seek(0)
    header = json.loads(file.read(int.from_bytes(file.read(LENGTH_BYTES), "little")))
    header["__metadata__"].pop(DIGEST_KEY, None)
    return _digest(header, file)


def _digest(header: Mapping[str, object], file: BinaryIO) -> str:
    """Of a header without a digest, and of all that follows in the file."""
    sha256 = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    while piece := file.read(_PIECE):
        sha256.update(piece)
    return sha256.hexdigest()


def header_capacity(parts: Sequence[StoredTensor], metadata: Mapping[str, str], data_bytes: int) -> int:
    """Bytes of header that suffice for these parts and texts, wherever in ``data_bytes`` the parts lie.

    >>> header_capacity([], {"keep": "fp16"}, data_bytes=0)
    32
    """
    last = dict.fromkeys((part.name for part in parts), data_bytes)
    return -(-len(_header(parts, last, metadata)) // 8) * 8


def _header(parts: Iterable[StoredTensor], begin: Mapping[str, int], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    for part in parts:
        offsets = [begin[part.name], begin[part.name] + part.nbytes]
        entries[part.name] = {"dtype": _DTYPES[part.dtype], "shape": part.shape, "data_offsets": offsets}
    return json.dumps(entries, separators=(",", ":")).encode()
