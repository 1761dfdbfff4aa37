"""The README's pictures, made anew from the bundled model: the charts, the page, and depth under its slider.

Run: ``python docs/make_pictures.py [--run DIR]``; takes a few minutes and a headless Chromium, and writes into
``docs/images``. The demo is run first where its results are not there yet.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cli import main as command
from tests.chromium import ALL_DRAWN, browsing, chromium

IMAGES = Path(__file__).resolve().parent / "images"
WIDTH = 1100


def shoot(page: Path, target: Path, height: int, section: str | None = None) -> None:
    """What a reader sees of a page in so many rows, from its top or from a section."""
    program = chromium()
    if program is None:
        raise SystemExit("the pictures of the page need Chromium")
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        browsing(program, Path(profile)) as browser,
    ):
        browser.prefer("light")
        browser.size(WIDTH, height)
        browser.open(page)
        browser.run(ALL_DRAWN)
        if section is not None:
            browser.run(f"document.getElementById('{section}').scrollIntoView()")
        time.sleep(1)  # until everything is drawn
        browser.picture(target)


def main() -> None:
    """Make them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="folder of the demo (default: runs/demo)")
    run = parser.parse_args().run
    charts = run / "comprehensive_visualizations.png"
    commands = [["pareto"], ["report"]] if charts.exists() else [["demo"], ["pareto"], ["report"]]
    for words in commands:
        if code := command([*words, "--run", str(run)]):
            raise SystemExit(code)
    shutil.copyfile(charts, IMAGES / "demo.png")
    shutil.copyfile(run / "pareto.png", IMAGES / "pareto.png")
    shoot(run / "report.html", IMAGES / "page.png", 1090)
    shoot(run / "report.html", IMAGES / "depth.png", 640, "depth")


if __name__ == "__main__":
    main()
