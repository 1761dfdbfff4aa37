"""How large is the page of VGGT-1B's 506 layers, and how soon does it open? JSON on the last line.

Run: ``python benchmarks/page.py --images DIR`` with pictures of a place; ``--run DIR`` for a run that is there already.
The network has every depth, head and name of VGGT-1B, pictures of 518 pixels and narrow layers with random weights, as
a page has a row a layer, a field a layer and format and maps of the pictures' size, whatever the layers' widths: it is
profiled, planned, evaluated and reported by the commands. Seconds are from asking Chromium for the file until something
of it is seen, until its load event, when it can be read, sorted and filtered, and until its first chart and all of them
are drawn; then those of a filter and of a sort of the table of layers. ``first`` is of a browser that has just started.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.chromium import ALL_DRAWN, FIRST_DRAWN, Browser, browsing, chromium
from vggtkit.core.provenance import provenance
from vggtkit.model import VGGT, VGGTConfig

ROOT = Path(__file__).resolve().parent.parent
REPEATS = 7
NARROW = replace(
    VGGTConfig(), embed_dim=32, num_heads=2, vit_num_heads=2, camera_num_heads=2, dpt_features=8,
    dpt_out_channels=(8, 8, 8, 8), track_features=8, track_hidden_size=16, track_num_heads=2, track_virtual_tracks=2,
    track_corr_levels=2, track_corr_radius=1,
)  # fmt: skip
"""All depths of VGGT-1B, and its pictures."""
PAINTED = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"
TIMINGS = {
    "seen_s": "performance.getEntriesByName('first-contentful-paint')[0].startTime",
    "open_s": "performance.getEntriesByType('navigation')[0].loadEventEnd",
}
"""By the browser's own clock, which begins when the page is asked for."""
TABLE = "document.querySelector('[id^=layers-] table')"


def make_network(folder: Path) -> None:
    """The narrow network, as ``--model`` takes it."""
    torch.manual_seed(0)
    model = VGGT(NARROW)
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(NARROW.to_json())


def make_run(run: Path, images: Path, folder: Path) -> None:
    """Profile, plan, evaluate and report, each by its command.

    Raises:
        CalledProcessError: a command failed.
    """
    make_network(folder)
    steps = (
        ("profile", "--model", folder, "--images", images, "--max-images", 4, "--views", 2, "--probes", 1),
        ("plan", "--budget", "int4_group_128", "--rounding", "nearest"),
        ("evaluate", "--repeats", 1),
        ("report",),
    )
    for step in steps:
        subprocess.run([sys.executable, ROOT / "cli.py", *map(str, step), "--run", run], cwd=ROOT, check=True)


def open_seconds(browser: Browser, page: Path) -> dict[str, float]:
    """From asking for the page until something of it is seen, until it is there, and until its charts are."""
    begun = time.perf_counter()
    browser.open(page)
    waited = {}
    for name, script in (("first_chart_s", FIRST_DRAWN), ("charts_s", ALL_DRAWN)):
        browser.run(script)
        waited[name] = time.perf_counter() - begun
    return {name: browser.run(script) / 1000 for name, script in TIMINGS.items()} | waited


def work_seconds(browser: Browser, script: str) -> float:
    """Of something done to the page, until it is painted."""
    begun = time.perf_counter()
    browser.run(f"(() => {{ {script} }})()")
    browser.run(PAINTED)
    return time.perf_counter() - begun


def measure(run: Path) -> dict[str, Any]:
    """The page's bytes, layers and seconds; the first opening is a warm-up."""
    page, program = run / "report.html", chromium()
    text = page.read_text(encoding="utf-8")
    results: dict[str, Any] = {"page_bytes": page.stat().st_size}
    if program is None:
        return results | {"chromium": None}
    with tempfile.TemporaryDirectory() as folder, browsing(program, Path(folder)) as browser:
        browser.size(1280, 900)
        first, *opened = [open_seconds(browser, page) for _ in range(REPEATS + 1)]
        by_name = {name: [each[name] for each in opened] for name in first}
        results |= {
            "layers": browser.run(f"{TABLE}.tBodies[0].rows.length"),
            "complaints": browser.complaints(),
            "requests_beyond_the_page": len(browser.requests()) - 1,
            "first": first,
            **{name: {"median": statistics.median(each), "most": max(each)} for name, each in by_name.items()},
            "filter_s": work_seconds(
                browser,
                "const field = document.querySelector('[id^=layers-] input'); field.value = 'mlp';"
                "field.dispatchEvent(new Event('input', {bubbles: true}))",
            ),
            "sort_s": work_seconds(browser, f"{TABLE}.querySelectorAll('th button')[3].click()"),
        }
    return results | {"pictures": len(re.findall(r"data:image/", text))}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of pictures")
    parser.add_argument("--run", type=Path, help="of a run that is there; its page alone is measured")
    options = parser.parse_args()
    if options.run is not None:
        results = measure(options.run)
    elif options.images is not None:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as run:
            make_run(Path(run), options.images, Path(folder))
            results = measure(Path(run))
    else:
        parser.error("give --images or --run")
    network = "VGGT-1B's depths, heads and picture size, 32 channels, random weights"
    print(json.dumps({"network": network, **provenance(), "command": "benchmarks/page.py", **results}))


if __name__ == "__main__":
    main()
