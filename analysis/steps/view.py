"""A result as people and as machines see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from analysis.report.document import Table


@dataclass(frozen=True)
class View:
    """A result as people and as machines see it.

    Attributes:
        values: plain values for ``--json``.
        tables: for the terminal.
        lines: below the tables.
    """

    values: Mapping[str, Any]
    tables: Sequence[Table] = field(default_factory=tuple)
    lines: Sequence[str] = field(default_factory=tuple)

    def of_weights(self, kind: str) -> View:
        """The same, every table and the values saying so where the weights are random.

        >>> View({}, [Table("Layers", ("layer",), [])]).of_weights("random").tables[0].title
        'Layers (RANDOM WEIGHTS)'
        """
        tables = [_marked(table) for table in self.tables] if kind == "random" else self.tables
        return View({**self.values, "weights_are": kind}, tables, self.lines)


def _marked(table: Table) -> Table:
    return table.titled(f"{table.title} (RANDOM WEIGHTS)")
