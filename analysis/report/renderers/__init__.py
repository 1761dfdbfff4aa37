"""How documents are drawn: one renderer a module, registered by name.

| module | holds |
|---|---|
| `base` | what a renderer is, and the registry |
| `terminal` | by rich |
| `text` | plain text and aligned tables |
| `markdown` | Markdown |
| `html` | a page that needs nothing else |
| `figures`, `point_names` | its charts as figures of Plotly; where names stand beside points |
| `plain_json` | JSON, for machines |
"""

from analysis.report.renderers import html, markdown, plain_json, terminal, text
from analysis.report.renderers.base import RENDERERS, Renderer

__all__ = ["RENDERERS", "Renderer", "html", "markdown", "plain_json", "terminal", "text"]
