"""One piece after the other, in this process."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch

from vggtkit.core.executors.base import Done, Piece, Result, Results, Work


class Local:
    """Runs pieces here, in their order.

    Args:
        threads: that torch computes with meanwhile; as many as now by default.
    """

    workers = 1

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or torch.get_num_threads()
        self.title = "this process"

    def run(
        self,
        work: Work[Piece, Result],
        pieces: Sequence[Piece],
        places: Sequence[Hashable] | None = None,  # noqa: ARG002
    ) -> Results[Result]:
        """As `Executor.run`; in the order of the pieces, whatever their places."""
        if not pieces:
            return
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with work.opened() as run:
                for number, piece in enumerate(pieces):
                    yield Done(number, run(piece), self.title)
        finally:
            torch.set_num_threads(before)
