"""What loops, crashes or eats memory does so in a child process."""

import ctypes
import os

import numpy as np
import pytest

from vggtkit.core.errors import InputError
from vggtkit.core.trial import try_first


def loop() -> None:
    while True:
        pass


def refuse() -> None:
    raise InputError("the file is of another version")


def fail() -> None:
    raise RuntimeError("a fault of ours")


def test_what_goes_well_goes_well() -> None:
    assert try_first(list, "file")


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (loop, "file: reading it does not come to an end"),
        (lambda: ctypes.string_at(0), "file: reading it crashes the library"),
        (lambda: os._exit(3), r"file: reading it crashes the library \(code 3\)"),
        (lambda: np.ones(10**12), "asks for more than 4 GB"),
        (refuse, "the file is of another version"),
    ],
    ids=["loops", "crashes", "exits", "memory", "refuses"],
)
def test_what_goes_wrong_is_one_line(read: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        try_first(read, "file", cpu_seconds=1)


def test_faults_of_ours_are_left_to_the_caller() -> None:
    assert not try_first(fail, "file")
