"""The order of files that are numbered: by number, whether or not the numbers are padded with zeros."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePath

# A Unix time may come with a fraction, whose digits are those of a decimal: .8 is after .79172.
_NUMBER = re.compile(r"([0-9]{9,}\.[0-9]+|[0-9]+)")

NaturalKey = tuple[tuple[tuple[str, int, str, str], ...], str]


def natural_key(name: str) -> NaturalKey:
    """A sorting key by which ``frame2`` comes before ``frame10``, and a letter with an accent counts as one.

    Args:
        name: of a file, with folders or without.

    >>> sorted(["frame10.png", "frame9.png", "frame010.png", "cover.png"], key=natural_key)
    ['cover.png', 'frame9.png', 'frame010.png', 'frame10.png']
    >>> sorted(["1305031452.8.png", "1305031452.79172.png"], key=natural_key)
    ['1305031452.79172.png', '1305031452.8.png']
    """
    pieces = [*_NUMBER.split(unicodedata.normalize("NFC", name)), ""]
    parts = []
    for text, number in zip(pieces[::2], pieces[1::2], strict=True):
        whole, _, fraction = number.partition(".")
        digits = whole.lstrip("0")
        # Length before digits orders whole numbers of any size without converting them.
        parts.append((text, len(digits), digits, fraction))
    return tuple(parts), name


def stem_of(path: PurePath) -> str:
    r"""Its name without the ending: the same text however a system stores letters with accents.

    macOS takes them apart ("e" and an accent) where others have one letter; archives keep either.

    >>> stem_of(PurePath("depth/e\u0301te\u0301.png")) == stem_of(PurePath("images/\xe9t\xe9.jpg"))
    True
    """
    return unicodedata.normalize("NFC", path.stem)
