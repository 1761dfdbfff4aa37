"""An evaluation with plausible numbers, which several tests share, and what a terminal shows of a table."""

import io
import math
from dataclasses import replace

import numpy as np
from rich.console import Console

from analysis.report.document import Table
from analysis.report.renderers.terminal import rich_table
from analysis.report.text import Evaluation, SchemeResult
from vggtkit.metrics.geometry import GEOMETRY, Estimate
from vggtkit.metrics.outputs import OUTPUTS, OutputMetrics
from vggtkit.quant import FORMATS, UNIFORM_SCHEMES

IMAGES = ("depth", "depth_conf", "world_points", "world_points_conf")
SCENES = ("kitchen-1", "kitchen-2", "room-1", "room-2", "hololens-1", "hololens-2")
SIZE_MB = dict(zip(UNIFORM_SCHEMES, (9.41, 9.41, 9.52, 9.56, 5.68, 5.85, 6.16), strict=True))
DAMAGE = dict(zip(UNIFORM_SCHEMES, (9e-4, 7e-4, 3e-5, 2.6e-5, 1.74e-2, 2.1e-2, 1.98e-2), strict=True))
PLAN_DAMAGE = 2.3e-4


def metrics(nmse: float, *, image: bool) -> OutputMetrics:
    """The metrics of an output of unit energy and peak 4 with this error."""
    return OutputMetrics(
        mae=0.8 * math.sqrt(nmse),
        mse=nmse,
        rmse=math.sqrt(nmse),
        psnr_db=10 * math.log10(16 / nmse) if nmse else math.inf,
        ce=9.21 + nmse / 3,
        ce_excess=nmse / 3,
        cosine=1 - nmse / 2,
        relative_error=3 * math.sqrt(nmse),
        ssim=1 - 1.5 * nmse if image else None,
        nmse=nmse,
        sqnr_db=-10 * math.log10(nmse) if nmse else math.inf,
    )


BROKEN = OutputMetrics(*[math.nan] * 11)
EXACT = metrics(0.0, image=True)


def geometry(damage: float) -> dict[str, Estimate]:
    """Figures that get worse with damage."""
    means = {k: 0.6 - damage if m.higher_is_better else 0.2 + damage for k, m in GEOMETRY.items()}
    return {key: Estimate(mean, mean - 0.1, mean + 0.1, len(SCENES)) for key, mean in means.items()}


def changes(damage: float) -> dict[str, Estimate]:
    """Those of the figures from FP32's; small ones are within the noise."""
    means = {k: -damage if m.higher_is_better else damage for k, m in GEOMETRY.items()}
    return {key: Estimate(mean, mean - 0.01, mean + 0.01, len(SCENES)) for key, mean in means.items()}


def result(key: str, megabytes: float, damage: float, title: str | None = None) -> SchemeResult:
    """A scheme whose outputs differ, the heads' confidences less than the cameras."""
    weights = np.geomspace(4, 0.05, len(OUTPUTS))
    outputs = {
        name: metrics(damage * weight / weights.mean(), image=name in IMAGES)
        for name, weight in zip(OUTPUTS, weights, strict=True)
    }
    seconds = 1.21 + megabytes / 500
    return SchemeResult(
        key=key,
        title=title or FORMATS[key].title,
        size_bytes=round(megabytes * 1e6),
        seconds=seconds,
        seconds_spread=(0.96 * seconds, 1.07 * seconds),
        speed_ratio=1.31 / seconds,
        outputs=outputs if damage else {},
        damage=damage,
        per_scene=tuple(damage * factor for factor in (0.5, 0.8, 0.9, 1.1, 1.1, 1.6)),
        geometry=geometry(damage),
        changes=changes(damage) if damage else {},
    )


def example_evaluation() -> Evaluation:
    """The seven schemes and a plan of the size of INT4 groups of 128, with plausible numbers."""
    schemes = [result(key, SIZE_MB[key], DAMAGE[key]) for key in UNIFORM_SCHEMES]
    plan = result("plan", 5.67, PLAN_DAMAGE, "plan, 5.68MB, optimal")
    return Evaluation(
        provenance={
            "schema": 1,
            "tool version": "0.1.0",
            "model fingerprint": "sha256:" + "5e" * 32,
            "seed": 0,
            "command line": "cli.py evaluate --run runs/default --images photos/kitchen",
            "versions": {"torch": "2.13.0", "numpy": "2.3.1"},
        },
        model="tiny",
        weights_note="bundled, trained on synthetic scenes",
        scenes=SCENES,
        calibration_scenes=("synthetic-0", "synthetic-1"),
        executed="weights unpacked to float32, then torch's float32 kernels (oneDNN), 1 thread, 7 repeats",
        results=(result("fp32", 43.6, 0.0), *schemes, plan),
        plan_formats={"int4_group_128": 61, "int4_group_32": 9, "int8_per_channel_sym": 22},
        predicted_damage=1.9e-4,
    )


def with_plan(evaluation: Evaluation, **changes: object) -> Evaluation:
    return replace(evaluation, results=(*evaluation.results[:-1], replace(evaluation.results[-1], **changes)))


def drawn(table: Table, width: int) -> str:
    """What a terminal of that width shows, nothing cut."""
    console = Console(width=width, record=True, file=io.StringIO(), color_system=None)
    console.print(rich_table(table))
    text = console.export_text()
    assert "…" not in text
    return text
