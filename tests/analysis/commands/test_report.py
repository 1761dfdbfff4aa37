"""The report of an experiment: five parts and a page, from what a run holds, however far it went."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from analysis.evaluation.results_file import from_json
from analysis.report.charts import comprehensive
from analysis.report.parts import REPORT_PARTS
from analysis.report.renderers import RENDERERS, Renderer
from analysis.steps.experiment import read_experiment
from sensitivity import open_profile
from tests.analysis.commands.running import RESULTS, Ran, assert_refused, cli, content, the_json
from tests.chromium import ALL_DRAWN, Browser, browsing, chromium
from vggtkit.core.seal import sealed


def part(run: Path, number: int, folder: str = "report") -> str:
    return (run / folder / list(REPORT_PARTS)[number - 1]).read_text(encoding="utf-8")


def test_the_five_parts_hold_what_the_guide_asks_for(finished: tuple[Path, dict[str, Ran]]) -> None:
    run = finished[0]
    evaluation = from_json((run / RESULTS[0]).read_text())
    design, process, results, analysis, conclusions = (part(run, number) for number in range(1, 6))
    assert all(title in design for title in ("INT8 per-tensor symmetric", "INT4 groups of 32", "PSNR", "SSIM"))
    assert str(evaluation.provenance["scene_fingerprint"]) in design
    for command, ran in finished[1].items():
        assert command != "report" or ran.code == 0
    assert process.count("| 0 |") == 4
    assert "torch" in process
    for result in evaluation.quantized:
        assert f"| {result.size_bytes / 1e6:.2f} |" in results
    smallest = min(evaluation.quantized, key=lambda one: one.size_bytes)
    assert f"Smallest file: {smallest.title}, {smallest.size_bytes / 1e6:.2f} MB" in analysis
    assert "the guide" in analysis
    assert all(scenario in conclusions for scenario in ("Production", "Mobile and edge", "Highest accuracy"))
    copies = {path.name for path in (run / "report" / "3_results").iterdir()}
    assert copies == {*RESULTS, "results.md", "depth_differences.png", "point_differences.png"}
    assert (run / "report" / "3_results" / RESULTS[0]).read_bytes() == (run / RESULTS[0]).read_bytes()


def test_a_report_in_chinese_lies_beside_the_english_one(run: Path) -> None:
    english = part(run, 4)
    the_json(cli("report", "--run", run, "--lang", "zh", "--json"))
    assert part(run, 4) == english
    for number in range(1, 6):
        assert re.search("[\u4e00-\u9fff]", part(run, number, "report.zh").splitlines()[0])
    assert '<html lang="zh">' in (run / "report.zh.html").read_text(encoding="utf-8")
    assert_refused(cli("report", "--run", run, "--lang", "fr"), "--lang fr", "en or zh")


def test_a_run_without_results_is_reported_as_far_as_it_went(run: Path) -> None:
    (run / RESULTS[0]).unlink()
    values = the_json(cli("report", "--run", run, "--json"))
    remedies = {each["file"]: each["command"] for each in values["absent"]}
    assert remedies[RESULTS[0]] == f"python cli.py evaluate --run {run}"
    assert "There is no evaluation in this run" in part(run, 5)
    assert "most sensitive layers" in part(run, 4)
    assert "python cli.py evaluate" in part(run, 2)


def test_a_folder_without_a_run_says_where_to_begin(tmp_path: Path) -> None:
    ran = cli("report", "--run", tmp_path)
    assert_refused(ran, "nothing of a run is there", f"python cli.py profile --run {tmp_path}")
    (tmp_path / "profile.h5").write_bytes(b"something else")
    assert_refused(
        cli("report", "--run", tmp_path), "profile.h5", f"make it with `python cli.py profile --run {tmp_path}`"
    )
    assert [path.name for path in tmp_path.iterdir() if path.is_dir() or path.suffix == ".md"] == []


def test_a_folder_that_cannot_be_written_to_stays_as_it_is(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user without permission sees it; who runs tests may have all."""
    before = content(run)
    opened = Path.open

    def refuse(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if run in path.parents and mode[0] != "r":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", refuse)
    ran = cli("report", "--run", run)
    assert ran.code == 2
    assert len(ran.err.splitlines()) == 1
    assert "Permission denied" in ran.err
    assert content(run) == before


@pytest.mark.parametrize("name", ["plan.json", "profile.h5"])
def test_results_are_reported_without_what_they_were_made_from(run: Path, name: str) -> None:
    (run / name).unlink()
    values = the_json(cli("report", "--run", run, "--json"))
    assert name in [each["file"] for each in values["absent"]]
    assert "Smallest file" in part(run, 4)


HOSTILE = {
    "list": "[]",
    "deep": "[" * 10**5,
    "other model": {"facts": {"model_fingerprint": "f" * 16}, "points": [], "beating_a_plan": []},
    "no points": {"facts": {}},
    "not numbers": {"facts": {"model_fingerprint": "%s"}, "points": [{"kind": 1, "title": [], "size_bytes": "x"}]},
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_foreign_files_are_named_and_left_out(run: Path, text: str | dict[str, object]) -> None:
    """With a digest of their own too."""
    own = str(open_profile(run).facts["model_fingerprint"])
    if isinstance(text, dict):
        text = json.dumps(sealed(json.loads(json.dumps(text).replace("%s", own))))
    (run / "pareto.json").write_text(text)
    values = the_json(cli("report", "--run", run, "--json"))
    (said,) = [each for each in values["absent"] if each["file"] == "pareto.json"]
    assert said["command"] == f"python cli.py pareto --run {run}"
    assert said["reason"] != "no such file"
    assert "digest" not in said["reason"]


def test_numbers_that_were_changed_by_hand_are_left_out(run: Path) -> None:
    assert cli("pareto", "--run", run, "--points", 3, "--measure", 0).code == 0
    values = json.loads((run / "pareto.json").read_text())
    read = read_experiment(run).pareto
    assert read is not None
    assert read.points[0].predicted == values["points"][0]["predicted"]
    values["points"][0]["predicted"] /= 2
    (run / "pareto.json").write_text(json.dumps(values))
    (said,) = [each for each in read_experiment(run).absent if each.file == "pareto.json"]
    assert "its digest is not that of its content" in said.reason


def test_depth_of_another_evaluation_is_left_out(run: Path) -> None:
    (run / "depth_maps.npz").write_bytes(b"not an archive")
    values = the_json(cli("report", "--run", run, "--json"))
    assert "depth_maps.npz" in [each["file"] for each in values["absent"]]


@pytest.mark.parametrize("failing", ["html", "3_results", "chart"])
def test_all_files_stay_where_one_of_the_report_fails(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Those of the evaluation, which are drawn anew with it, too."""

    def fail(*_arguments: object) -> NoReturn:
        raise OSError(27, "File too large")

    (run / "comprehensive_report.txt").write_text("an older one")
    if failing == "html":
        monkeypatch.setitem(RENDERERS._values, "html", Renderer("html", ".html", fail))
    elif failing == "3_results":
        monkeypatch.setattr(shutil, "copyfile", fail)
    else:
        monkeypatch.setattr(comprehensive, "_whole", lambda *_: comprehensive._figure((2, 2)))
        monkeypatch.setattr(comprehensive, "_alone", fail)
    before = content(run)
    charts = ("--charts", tmp_path / "charts") if failing == "chart" else ()
    ran = cli("report", "--run", run, *charts)
    assert ran.code == 2
    assert "File too large; make room or name another place" in ran.err
    assert content(run) == before
    assert not list(tmp_path.glob("charts/*"))


def test_charts_may_lie_in_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comprehensive, "PANELS", {})  # the whole alone, and that quickly
    monkeypatch.setattr(comprehensive, "_whole", lambda *_: comprehensive._figure((2, 2)))
    (run / "comprehensive_visualizations.png").write_bytes(b"an older one")
    assert cli("report", "--run", run, "--charts", run).code == 0
    starts = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    for kind, start in starts.items():
        assert (run / f"comprehensive_visualizations.{kind}").read_bytes().startswith(start)
    shown = run / "report" / "3_results" / "comprehensive_visualizations.png"
    assert shown.read_bytes() == (run / shown.name).read_bytes()


def test_what_a_killed_report_left_is_removed(run: Path) -> None:
    left = run / "report" / "3_results" / f".results.md.{2**22 + 1}-00000000.partial"
    left.write_text("half")
    assert cli("report", "--run", run).code == 0
    assert not left.exists()


# The page, in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip("no Chromium on this machine")
    with browsing(program, tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def page(finished: tuple[Path, dict[str, Ran]], browser: Browser) -> Browser:
    browser.size(1280, 900)
    browser.prefer("light")
    browser.open(finished[0] / "report.html")
    assert browser.run(ALL_DRAWN)
    return browser


def column(browser: Browser, table: str, number: int, what: str = "dataset.value") -> list[str]:
    """One column of a table, of the rows that are seen, from the top down."""
    rows = f"[...document.querySelectorAll('#{table}-table tbody tr')].filter(row => !row.hidden)"
    return browser.run(f"{rows}.map(row => row.cells[{number}].{what})")


def points_of(browser: Browser) -> list[tuple[float, float, str]]:
    """Where the points of the first chart are, and what they say."""
    traces = "document.querySelector('#trade-off-1 .drawing').data.filter(trace => trace.hovertext)"
    return browser.run(f"{traces}.flatMap(trace => trace.x.map((x, i) => [x, trace.y[i], trace.hovertext[i]]))")


def click(browser: Browser, selector: str) -> None:
    browser.run(f"document.querySelector({json.dumps(selector)}).click()")


def test_the_page_is_quiet_and_asks_for_nothing(page: Browser, finished: tuple[Path, dict[str, Ran]]) -> None:
    page.prefer("dark")
    page.size(390, 800, phone=True)
    page.run("new Promise(done => setTimeout(done, 50))")
    assert page.complaints() == []
    assert page.requests() == [(finished[0] / "report.html").resolve().as_uri()]
    assert page.run("document.documentElement.scrollWidth") <= 390


def test_its_numbers_are_those_of_the_results(page: Browser, finished: tuple[Path, dict[str, Ran]]) -> None:
    results = json.loads((finished[0] / RESULTS[0]).read_text())["results"]
    assert list(map(float, column(page, "trade-off-2", 1))) == [row["size_bytes"] for row in results]
    assert list(map(float, column(page, "trade-off-2", 6))) == [row["damage"] for row in results]
    drawn = [[row["size_bytes"] / 1e6, row["damage"]] for row in results[1:] if row["damage"]]
    assert sorted([x, y] for x, y, _ in points_of(page)) == sorted(drawn)
    fields = np.array(page.run("document.querySelector('#layers-1 .drawing').data[0].z"), dtype=float)
    damage = open_profile(finished[0]).total_damage
    np.testing.assert_allclose(10**fields, np.where(damage > 0, damage, np.nan), rtol=1e-12)
    shares = page.run("document.querySelector('#who-pays-1 .drawing').data.map(trace => trace.x)")
    assert list(map(sum, shares)) == pytest.approx([1, 1])
    said = [float(text.rstrip("%")) / 100 for text in column(page, "who-pays-2", 4, "textContent")]
    assert shares[1] == pytest.approx(sorted(said, reverse=True), abs=6e-4)


def test_the_numbers_of_a_chart_are_a_table_too(page: Browser) -> None:
    assert not page.run("document.querySelector('#trade-off-1 details').open")
    page.run("document.querySelector('#trade-off-1 summary').focus()")
    page.press("Enter")
    assert page.run("document.querySelector('#trade-off-1-numbers table').checkVisibility()")
    assert sorted(map(float, column(page, "trade-off-1-numbers", 2))) == sorted(x for x, *_ in points_of(page))
    page.run("document.querySelectorAll('#trade-off-1-numbers th button')[3].click()")
    damage = list(map(float, column(page, "trade-off-1-numbers", 3)))
    assert damage == sorted(damage)


def test_a_page_without_its_scripts_has_the_numbers_in_tables(
    browser: Browser, finished: tuple[Path, dict[str, Ran]]
) -> None:
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(finished[0] / "report.html")
    browser.send("Emulation.setScriptExecutionDisabled", value=False)
    seen = "[...document.querySelectorAll('.chart table')].map(table => table.checkVisibility())"
    assert browser.run(seen) == [True, True, True]
    assert browser.run("document.querySelectorAll('.drawing svg').length") == 0


def test_tables_sort_and_filter_by_keyboard(page: Browser) -> None:
    before = column(page, "layers-2", 3)
    page.run("document.querySelectorAll('#layers-2-table th button')[3].focus()")
    page.press("Enter")
    assert column(page, "layers-2", 3) == sorted(before, key=float)
    page.press("Enter")
    assert column(page, "layers-2", 3) == sorted(before, key=float, reverse=True)
    page.run("document.querySelectorAll('#layers-2-table th button')[0].click()")
    names = column(page, "layers-2", 0, "textContent")
    assert len(names) == len(before)
    page.run("document.querySelector('#layers-2 input').focus()")
    page.send("Input.insertText", text="depth conv1")
    kept = [name for name in names if "conv1" in name and "depth" in name]
    assert column(page, "layers-2", 0, "textContent") == kept
    assert page.run("document.querySelector('#layers-2 output').textContent") == f"{len(kept)} / {len(names)}"


def test_the_slider_moves_and_schemes_change(page: Browser) -> None:
    page.run("document.querySelector('.frame input').focus()")
    page.press("ArrowRight")
    assert page.run("document.querySelector('.frame .stack').style.getPropertyValue('--seen')") == "51%"
    seen = "[...document.querySelectorAll('.frame:first-of-type img:not([hidden])')].map(i => i.alt)"
    schemes = page.run("[...document.querySelectorAll('.frame:first-of-type option')].map(o => o.textContent)")
    assert page.run(seen)[1:] == [f"depth map {schemes[-1]}", "depth map FP32", f"error {schemes[-1]}"]
    script = (
        "const list = document.querySelector('.frame select'); list.value = 0; list.dispatchEvent(new Event('change'))"
    )
    page.run(f"(() => {{ {script} }})()")
    assert page.run(seen)[1:] == [f"depth map {schemes[0]}", "depth map FP32", f"error {schemes[0]}"]
    assert page.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def said(browser: Browser, chart: str) -> str:
    """What a chart says of where its reader is, beneath it; the label at that place must say the same."""
    read = browser.run(f"document.querySelector('#{chart} .read').textContent")
    label = f"[...document.querySelectorAll('#{chart} .hovertext')].map(label => label.textContent)"
    wait = "new Promise(done => setTimeout(done, 100))"  # moves that follow each other fast are drawn together
    assert browser.run(f"{wait}.then(() => {label})") == [read]
    return read


def test_points_bars_and_fields_are_read_by_keyboard(page: Browser) -> None:
    page.run("document.querySelector('#trade-off-1 .drawing').focus()")
    page.press("ArrowRight")
    assert said(page, "trade-off-1") == sorted(points_of(page))[1][2]
    page.run("document.querySelector('#layers-1 .drawing').focus()")
    page.press("ArrowDown")
    page.press("ArrowRight")
    figure = page.run("JSON.parse(document.querySelector('#layers-1 script').textContent).data[0]")
    name, _, value = said(page, "layers-1").rpartition(": ")
    assert name.endswith(figure["x"][1])
    assert float(value.split()[0]) == pytest.approx(10 ** figure["z"][1][1], rel=0.01)
    page.run("document.querySelector('#who-pays-1 .drawing').focus()")
    page.press("ArrowDown")
    role, _, share = said(page, "who-pays-1").rpartition(": ")
    bars = page.run("document.querySelector('#who-pays-1 .drawing').data[0].x")
    assert role.endswith(", weights")
    assert share == f"{bars[1]:.1%}"


def test_a_point_under_the_pointer_says_what_it_is(page: Browser) -> None:
    page.run("document.querySelector('#trade-off-1').scrollIntoView()")
    point = "document.querySelector('#trade-off-1 .scatterlayer .trace:last-child .point').getBoundingClientRect()"
    x, y, wide, high = page.run(f"(box => [box.x, box.y, box.width, box.height])({point})")
    page.send("Input.dispatchMouseEvent", type="mouseMoved", x=x + wide / 2, y=y + high / 2)
    told = page.run("document.querySelector('#trade-off-1 .hovertext')?.textContent")
    assert told in [text for *_, text in points_of(page)]


def test_light_dark_and_paper(page: Browser) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    words = "getComputedStyle(document.querySelector('#trade-off-1 .xtick text')).fill"
    assert page.run(ground) == "rgb(255, 255, 255)"
    page.size(794, 1123)
    page.prefer("dark", media="print")
    assert page.run(ground) == "rgb(255, 255, 255)"
    assert page.run("document.documentElement.scrollWidth") <= 794
    page.prefer("light")
    click(page, "#theme")
    assert page.run(ground) == "rgb(18, 22, 28)"
    assert page.run(words) == "rgb(230, 234, 240)"
    page.prefer("light", media="print")
    assert page.run(ground) == "rgb(255, 255, 255)"
    assert page.run(words) == "rgb(27, 31, 36)"
    assert page.run("getComputedStyle(document.querySelector('.filter')).display") == "none"
