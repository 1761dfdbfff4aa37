"""The command ``reproduce``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from analysis.commands.options import Device, OutputOptions, RunDir, Seed, Workforce, model_option
from analysis.commands.screen import session
from analysis.steps import Protocol, make_reproduction
from vggtkit.core.errors import InputError
from vggtkit.core.program import setting

EXAMPLES = (
    "reproduce --on co3d-test:data/co3d --on 7scenes-test:data/7scenes",
    "reproduce --on co3d-test:data/co3d --model my-vggt/ --per-category 2 --workers ray",
)


@dataclass(frozen=True)
class TestSetOptions:
    """What is measured, and on what."""

    on: Annotated[
        list[str] | None,
        typer.Option(
            "--on",
            metavar="KIND",
            help="Test set: co3d-test:DIR, 7scenes-test:DIR, rgbd:DIR, eth3d:DIR; may be repeated.",
        ),
    ] = None
    frames: Annotated[
        str, typer.Option("--frames", metavar="N,N", help="Frames of a scene; every set is measured with each.")
    ] = "10,20"
    budgets: Annotated[str, typer.Option("--budgets", metavar="SIZES", help="Of the plans, with commas.")] = (
        "600MB,650MB,4bpw,3bpw"
    )
    rounding: Annotated[
        str, typer.Option("--rounding", metavar="NAME", help="Of the plans' codes: gptq, output_gptq or nearest.")
    ] = "gptq"
    calibration: Annotated[
        str,
        typer.Option(
            "--calibration",
            metavar="KIND",
            help="Scenes of the profile; by default the training sequences of the first set that has some.",
        ),
    ] = ""
    num_scenes: Annotated[int, typer.Option("--num-scenes", metavar="N", help="Scenes of the profile, at most.")] = 8
    per_category: Annotated[
        int, typer.Option("--per-category", metavar="N", help="Sequences of every category, at most; 0: all.")
    ] = 0
    least_frames: Annotated[
        int, typer.Option("--least-frames", metavar="N", help="Frames that a sequence must have; published: 50.")
    ] = 50
    believe: Annotated[
        bool, typer.Option("--believe", help="Go on where the baseline is not the published one; every table says so.")
    ] = False

    def protocol(self, seed: int) -> Protocol:
        """As values.

        Raises:
            InputError: frames that are no numbers.
        """
        try:
            frames = tuple(int(part) for part in self.frames.split(","))
        except ValueError:
            raise InputError(f"{setting('frames', self.frames)}: give whole numbers, as 10,20") from None
        return Protocol(
            tuple(self.on or ()), frames, self.calibration, self.num_scenes,
            tuple(part.strip() for part in self.budgets.split(",") if part.strip()), self.rounding,
            self.per_category, self.least_frames, seed, self.believe,
        )  # fmt: skip


def reproduce(
    *,
    asked: TestSetOptions,
    model: Annotated[
        str,
        model_option("vggt-1b (5 GB, fetched once), a folder or a file."),
    ] = "vggt-1b",
    run: RunDir = Path("runs/vggt-1b"),
    device: Device = "auto",
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="NAME", help="As for profile; auto: as published on CUDA, else fp32.")
    ] = "auto",
    seed: Seed = 0,
    workforce: Workforce,
    output: OutputOptions,
) -> None:
    """Make VGGT-1B's own table: plans and uniform schemes on published test sets, beside published figures.

    First the baseline: unless its AUC@30 on CO3Dv2 with 10 frames is the published 89.5, nothing else is measured.
    Then a profile, plans with calibrated rounding, uniform schemes. What it costs is said beforehand; it can be killed
    at any moment, and the same command goes on. Writes reproduction.json and reproduction.md.
    """
    with session(output, run) as screen:
        with screen.progress() as progress:
            view = make_reproduction(
                run, model, asked.protocol(seed), device=device, dtype=dtype, workers=workforce.asked(),
                progress=progress, say=screen.say,
            )  # fmt: skip
        screen.show(view)
