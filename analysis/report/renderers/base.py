"""What a renderer is, and the registry of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from analysis.report.document import Document
from vggtkit.core.registry import Registry


class Render(Protocol):
    """Draws a document."""

    def __call__(self, document: Document) -> str:
        """The document as one text."""
        ...


@dataclass(frozen=True)
class Renderer:
    """One way to draw documents.

    Attributes:
        key: its name.
        suffix: of files that it makes.
        render: a document as one text.
    """

    key: str
    suffix: str
    render: Render


RENDERERS: Registry[Renderer] = Registry("renderer")
