"""Documents as one page that needs nothing else: styles, script and pictures are inside of it, and nothing is fetched.

The page is made by Jinja with everything escaped. It is readable without a script: charts are then tables. Its own
script sorts and filters tables, moves the sliders and reads charts out; Plotly's, taken from the installed package,
draws them. The page's policy names both by their digests, so nothing else can run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis.report.document import (
    Bars,
    Document,
    Element,
    HeatMap,
    Illustration,
    Scatter,
    Slider,
    Table,
    Text,
    as_cell,
)
from analysis.report.renderers import figures
from analysis.report.renderers.base import RENDERERS, Renderer
from analysis.report.theme import DARK, LIGHT, Palette
from analysis.report.wording import Wording
from vggtkit.core.escaping import printable

FILTERED_FROM = 12
"""Rows from which a table can be filtered."""
_KINDS = {
    Text: "text",
    Table: "table",
    Illustration: "picture",
    Scatter: "figure",
    HeatMap: "figure",
    Bars: "figure",
    Slider: "slider",
}


def render(document: Document) -> str:
    """A document as a page.

    >>> from analysis.report.document import Section
    >>> page = render(Document("<Report>", (Section("Sizes", (Text(("All fit.",)),)),)))
    >>> "<h1>&lt;Report&gt;</h1>" in page, "://" in page
    (True, False)
    """
    template = _environment().get_template("page.html.j2")
    draws = any(_kind(block) == "figure" for block in document.blocks())
    plotting, script = _plotting_library() if draws else Markup(""), _inside("page.js")
    return template.render(
        document=document,
        say=Wording(document.language),
        style=_inside("page.css"),
        plotting=plotting,
        script=script,
        allowed=Markup(" ").join(map(_digest, filter(None, (plotting, script)))),
        light=_variables(LIGHT),
        dark=_variables(DARK),
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("analysis.report.renderers", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.globals.update(
        kind=_kind, cell=as_cell, figure_json=_figure, numbers=figures.numbers, FILTERED_FROM=FILTERED_FROM
    )
    environment.filters["data_uri"] = _data_uri
    return environment


def _visible(value: object) -> object:
    """What is written into the page: nothing that turns lines around or ends them."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _kind(block: Element) -> str:
    return _KINDS[type(block)]


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _inside(name: str) -> Markup:
    """A file of ours, as it is."""
    return Markup((files("analysis.report.renderers") / "page" / name).read_text(encoding="utf-8"))


@cache
def _plotting_library() -> Markup:
    """Plotly's script; a page takes it whole, as it fetches nothing, and runs it once it is seen."""
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())


def _digest(script: Markup) -> Markup:
    """How the page's policy names a script that may run.

    >>> _digest(Markup(""))
    Markup("'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='")
    """
    digest = hashlib.sha256(script.encode()).digest()
    return Markup(f"'sha256-{base64.b64encode(digest).decode('ascii')}'")


def _figure(chart: figures.Drawn) -> Markup:
    return _script_json(figures.plotly_figure(chart))


def _variables(palette: Palette) -> Markup:
    return Markup(" ".join(f"--{name}: {colour};" for name, colour in asdict(palette).items()))


def _script_json(values: object) -> Markup:
    r"""JSON that can stand in a script: nothing in it ends the element or opens another.

    >>> _script_json("</script>")
    Markup('"\\u003c/script\\u003e"')
    """
    text = json.dumps(values, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


RENDERERS.register("html", Renderer("html", ".html", render))
