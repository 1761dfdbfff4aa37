"""What is registered by name: formats, scores, metrics, scene kinds, policies.

A registry is a mapping from keys to values in the order of registration. What is registered later, by a plugin say, is
known everywhere from then on, as long as nobody keeps a copy of the keys.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from vggtkit.core.errors import InputError
from vggtkit.core.program import command, setting

Value = TypeVar("Value")

MOST_SHOWN = 12
"""Keys that an error lists, at most."""


class Registry(Mapping[str, Value], Generic[Value]):
    """Values by key, in the order in which they were registered.

    Args:
        what: what one value is called in messages, in the singular.
        listing: the command that shows all keys, for messages; "" where there is none.

    >>> colours: Registry[int] = Registry("colour")
    >>> colours.register("red", 0xFF0000)
    16711680
    >>> colours.pick("rod")
    Traceback (most recent call last):
    vggtkit.core.errors.InputError: unknown colour 'rod'; did you mean red? Known are red
    """

    def __init__(self, what: str, listing: str = "") -> None:
        self.what, self.listing = what, listing
        self._values: dict[str, Value] = {}

    def __getitem__(self, key: str) -> Value:
        """The value of a key; KeyError where there is none."""
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        """Keys, in the order of registration."""
        return iter(self._values)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._values)

    def register(self, key: str, value: Value) -> Value:
        """Add a value.

        Returns:
            The same value.

        Raises:
            ValueError: the key is taken.
        """
        if key in self._values:
            raise ValueError(f"{self.what} {key!r} is registered already")
        self._values[key] = value
        return value

    def unregister(self, key: str) -> Value:
        """Take a value out again, say after a test; returns it."""
        return self._values.pop(key)

    def pick(self, key: str) -> Value:
        """The value that a user named.

        Raises:
            InputError: there is none; the message names the nearest and lists what there is.
        """
        if key in self._values:
            return self._values[key]
        near = difflib.get_close_matches(key, self._values, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"unknown {self.what} {key!r}; {hint}Known are {self._listed()}")

    def require(self, keys: Iterable[str], file: str) -> None:
        """Refuse a file that was made with what is not registered here, as by a plugin that is not loaded.

        Args:
            keys: that the file names.
            file: and where in it, for the message.

        Raises:
            InputError: a key is unknown; the message says how to make it known.
        """
        for key in keys:
            if key not in self._values:
                raise InputError(
                    f"{file}: unknown {self.what} {key!r}; was it registered by a plugin? "
                    f"Add {setting('plugin', 'FILE')}"
                )

    def _listed(self) -> str:
        keys = list(self._values)
        more = len(keys) - MOST_SHOWN
        if more <= 0:
            return ", ".join(keys)
        seen = f", which `{command(self.listing)}` lists" if self.listing else ""
        return f"{', '.join(keys[:MOST_SHOWN])} and {more} more{seen}"
