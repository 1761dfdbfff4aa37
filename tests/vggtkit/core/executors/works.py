"""Work for the tests of executors; workers import it."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from vggtkit.core.errors import InputError
from vggtkit.quant import FORMATS


@dataclass(frozen=True)
class Sums:
    """Sums of random numbers, whose last bits depend on the order of adding."""

    size: int = 100_003

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], tuple[float, int, int]]]:
        values = torch.randn(self.size, generator=torch.Generator().manual_seed(0))
        yield lambda piece: (float((values * piece).sum()), os.getpid(), torch.get_num_threads())


@dataclass(frozen=True)
class Fails:
    """One piece raises, the others would take a minute."""

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], None]]:
        def run(piece: int) -> None:
            if piece == 1:
                raise InputError("the picture is NaN: give another")
            time.sleep(60)

        yield run


@dataclass(frozen=True)
class Killed:
    """A piece kills its worker as often as it is told, of which files keep count."""

    folder: Path
    times: int

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], int]]:
        def run(piece: int) -> int:
            killed = len(list(self.folder.iterdir()))
            if piece == 1 and killed < self.times:
                (self.folder / str(killed)).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return piece * piece

        yield run


@dataclass(frozen=True)
class Endless:
    """Says who works on it; from some piece on it does not end."""

    folder: Path
    after: int

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], None]]:
        def run(piece: int) -> None:
            (self.folder / f"{os.getpid()}.pid").touch()
            time.sleep(600 * (piece >= self.after))

        yield run


@dataclass(frozen=True)
class Sevens:
    """Which INT7 formats are registered."""

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], list[str]]]:
        yield lambda _piece: [key for key in FORMATS if key.startswith("int7_")]


@dataclass(frozen=True)
class Sees:
    """Which GPU a worker sees; the first piece waits until another worker has one too."""

    folder: Path

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], str]]:
        def run(_piece: int) -> str:
            seen = os.environ["CUDA_VISIBLE_DEVICES"]
            (self.folder / seen).touch()
            wait_until(lambda: len(list(self.folder.iterdir())) == 2, "two workers", 300)
            return seen

        yield run


def is_alive(process: int) -> bool:
    """Zombies, which nobody waits for in some containers, are not."""
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def wait_until(true: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.05)
