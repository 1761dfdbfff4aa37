"""One document, several renderers: all say the same, and no name is read as markup by any of them."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

import analysis.report
from analysis.report.document import (
    Bars,
    Cell,
    ChartPoint,
    Document,
    HeatMap,
    Scatter,
    Section,
    Slider,
    SliderFrame,
    Table,
    Text,
)
from analysis.report.renderers import RENDERERS
from analysis.report.theme import DARK, LIGHT, contrast
from tests.chromium import ALL_DRAWN, browsing, chromium

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")
EVIL = (
    "<b>&lt;i></b><a href='https://example.org'>x</a><br><img src=x onerror='window.hit=1'>|`*_</script>"
    '<script>window.hit=1</script>"&amp; \x1b[2J\u202e$x$'
)


def document(name: str) -> Document:
    table = Table(name, ("layer", name), [(name, Cell("1.00", 1.0))], name, tones={0: "strong"})
    chart = Scatter(name, name, name, (ChartPoint(1.0, 1e-3, name, name, "plan"),), {"plan": name}, name)
    field = HeatMap(name, (name,), (name,), [[0.5]], name, (name,), (0,), name, name)
    bars = Bars(name, (name,), {name: (0.5,)}, name, name)
    maps = {name: PIXEL}
    slider = Slider(name, (SliderFrame(name, PIXEL, PIXEL, maps, maps, {name: 0.1}),), name, name, name)
    texts = tuple(Text((name,), mood) for mood in ("plain", "points", "code", "warning"))
    return Document(name, (Section(name, (*texts, table, chart, field, bars, slider), "part"),))


@pytest.mark.parametrize("key", list(RENDERERS))
def test_every_renderer_says_titles_texts_and_cells(key: str) -> None:
    drawn = RENDERERS[key].render(document("layer42"))
    assert drawn.count("layer42") >= 9
    assert "1.00" in drawn


@pytest.mark.parametrize("key", ["terminal", "text", "markdown", "html"])
def test_nothing_moves_a_cursor_or_turns_a_line_around(key: str) -> None:
    drawn = RENDERERS[key].render(document(EVIL))
    assert "\x1b[2J" not in drawn
    assert "\u202e" not in drawn


def test_json_is_strict_and_gives_names_as_they_are() -> None:
    read = json.loads(RENDERERS["json"].render(document(EVIL)), parse_constant=pytest.fail)
    assert read["sections"][0]["blocks"][4]["rows"] == [[{"text": EVIL, "value": None}, {"text": "1.00", "value": 1.0}]]


def test_markdown_keeps_a_name_in_its_cell() -> None:
    row = RENDERERS["markdown"].render(document(EVIL)).splitlines()
    (cells,) = [line for line in row if line.startswith("| **")]
    assert cells.replace("\\|", "").count("|") == 3
    assert "\\<img" in cells


def test_the_page_runs_nothing_that_stands_in_a_name(tmp_path: Path) -> None:
    program = chromium()
    if program is None:
        pytest.skip("no Chromium on this machine")
    page = tmp_path / "page.html"
    page.write_text(RENDERERS["html"].render(document(EVIL)), encoding="utf-8")
    with browsing(program, tmp_path / "browser") as browser:
        browser.open(page)
        assert browser.run(ALL_DRAWN)
        assert browser.run("window.hit === undefined && document.images.length === 4")
        assert browser.run("[...document.images].every(image => image.src.startsWith('data:image/png'))")
        own = (
            "[...document.scripts].map(script => script.textContent.slice(0, 20)).filter(text => !text.startsWith('{'))"
        )
        assert {text.split()[0] for text in browser.run(own)} == {"/**", '"use'}
        assert browser.run("document.querySelector('td').textContent").startswith(EVIL[:70])
        assert browser.run("document.querySelectorAll('a:not(.skip):not(nav a), b, i, .drawing img').length") == 0
        texts = "[...drawing.querySelectorAll('text')].map(text => text.textContent)"
        written = browser.run(f"[...document.querySelectorAll('.drawing')].map(drawing => {texts})")
        assert [sum(text.startswith(EVIL[:70]) for text in texts) for texts in written] == [3, 3, 3]
        for number in range(3):
            browser.run(f"document.querySelectorAll('.drawing')[{number}].focus()")
            browser.press("ArrowRight")
            for place in (".drawing .hoverlayer", ".read"):
                said = f"document.querySelectorAll('.chart')[{number}].querySelector('{place}').textContent"
                assert browser.run(said).startswith(EVIL[:70])
        assert browser.complaints() == []
        assert browser.requests() == [page.resolve().as_uri()]


def test_the_page_lets_no_script_run_but_its_own() -> None:
    page = RENDERERS["html"].render(document("layer42"))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    allowed = re.search(r"script-src ([^;]*)$", policy[1])
    assert allowed is not None
    scripts = re.findall(r"<script(?: type=\"text/plain\" id=\"plotting\")?>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert allowed[1].split() == [f"'sha256-{digest}'" for digest in digests]
    assert len(digests) == 2
    assert policy[1].startswith("default-src 'none'; ")


def test_a_page_without_charts_is_small() -> None:
    assert len(RENDERERS["html"].render(Document("Sizes", ()))) < 30_000


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_text_can_be_read_on_its_ground(palette: object) -> None:
    for ground in (palette.ground, palette.surface):
        for name in ("text", "quiet", "accent", "plan", "uniform", "good", "warning", "violet"):
            assert contrast(getattr(palette, name), ground) >= 4.5, name


def test_all_colours_are_of_the_theme() -> None:
    """Of charts in files, of tables and of the page, whose style has names for them."""
    folder = Path(analysis.report.__file__).parent.parent
    files = [path for path in folder.rglob("*") if path.suffix in (".py", ".css", ".js", ".j2")]
    own = {path.name for path in files if re.search("#[0-9A-Fa-f]{6}\\b", path.read_text(encoding="utf-8"))}
    assert own == {"theme.py"}
