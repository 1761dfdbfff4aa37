"""Documents as one page that needs nothing else: styles, script and pictures are inside of it, and nothing is fetched.

The page is made by Jinja with everything escaped; it is readable without its script, which sorts and filters tables,
draws fields of numbers and moves the sliders.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis.report.charts.colours import field_stops
from analysis.report.document import Document, Element, HeatMap, Illustration, Scatter, Slider, Table, Text, as_cell
from analysis.report.renderers import plain_json, scatter_svg
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
    Scatter: "scatter",
    HeatMap: "heat_map",
    Slider: "slider",
}
_STOPS = 33
"""Colours of a field that the script is given; it finds those between."""


def render(document: Document) -> str:
    """A document as a page.

    >>> from analysis.report.document import Section
    >>> page = render(Document("<Report>", (Section("Sizes", (Text(("All fit.",)),)),)))
    >>> "<h1>&lt;Report&gt;</h1>" in page, "://" in page
    (True, False)
    """
    template = _environment().get_template("page.html.j2")
    charts = [plain_json.chart(block) for block in document.blocks() if isinstance(block, HeatMap)]
    return template.render(
        document=document,
        say=Wording(document.language),
        style=_inside("page.css"),
        script=_inside("page.js"),
        light=_variables(LIGHT),
        dark=_variables(DARK),
        data=_script_json({"heat maps": charts, "colours": field_stops(_STOPS)}),
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
        kind=_kind, cell=as_cell, board=scatter_svg.board, board_size=scatter_svg, FILTERED_FROM=FILTERED_FROM
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
