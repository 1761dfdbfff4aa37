"""How documents are drawn: one renderer a module, registered by name.

| module | holds |
|---|---|
| `base` | what a renderer is, and the registry |
| `terminal` | by rich |
| `text` | plain text and aligned tables |
"""

from analysis.report.renderers import terminal, text
from analysis.report.renderers.base import RENDERERS, Renderer

__all__ = ["RENDERERS", "Renderer", "terminal", "text"]
