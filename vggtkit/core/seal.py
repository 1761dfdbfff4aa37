"""JSON files that notice when something in them has changed.

A seal guards against damage and edits, not against somebody who makes a new one: what a file says is checked besides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

SEAL = "digest"
_COMPARED = ContextVar("digests are compared", default=True)


@contextmanager
def files_as_they_are() -> Iterator[None]:
    """Within it digests of files are not compared; what else is checked of them still is.

    >>> with files_as_they_are():
    ...     is_sealed({"seed": 0, "digest": "of something else"})
    True
    """
    token = _COMPARED.set(False)
    try:
        yield
    finally:
        _COMPARED.reset(token)


def digests_count() -> bool:
    """Whether a file whose digest is not that of its content is to be refused."""
    return _COMPARED.get()


def digest_of(value: object) -> str:
    """SHA-256 of a value that JSON can hold, in 64 hexadecimal digits; neither spaces nor the order of keys count.

    >>> digest_of({"a": 1, "b": [0.5]}) == digest_of({"b": [0.5], "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with its digest.

    >>> is_sealed(sealed({"seed": 0})), is_sealed(sealed({"seed": 0}) | {"seed": 1})
    (True, False)
    """
    plain = json.loads(json.dumps(values))  # as a reader will have it
    return {**plain, SEAL: digest_of({name: value for name, value in plain.items() if name != SEAL})}


def is_sealed(values: Mapping[str, Any]) -> bool:
    """Whether the digest is there, and that of the rest; not asked within `files_as_they_are`."""
    if not digests_count():
        return True
    return values.get(SEAL) == digest_of({name: value for name, value in values.items() if name != SEAL})
