"""The command ``plan``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from analysis.commands.options import (
    DEFAULT_BUDGET,
    DEFAULT_RUN,
    Device,
    OutputOptions,
    RunDir,
    ScoreName,
    Workforce,
    model_option,
    scene_source,
)
from analysis.commands.screen import session
from analysis.search.quality_target import read_target
from analysis.steps import make_plan_of_run
from analysis.steps.plan import Extras
from analysis.steps.plan_rounding import AUTO_ROUNDING
from analysis.steps.selection import SELECT_SCENES
from mixedprec import Constraints, Request, parse_constraints, parse_request
from mixedprec.evidence import SKETCH
from vggtkit.core.errors import InputError
from vggtkit.core.executors import Workers
from vggtkit.core.program import setting

EXAMPLES = (
    "plan --budget 600MB",
    "plan --budget 4.2bpw --formats +int3",
    "plan --budget 15% --policy sensitive",
    "plan --model vggt-1b --budget 600MB --heads camera,depth",
    "plan --budget 5MB --pin 'camera_head.*=int4_group_32' --min-bits attention=4",
    "plan --max-drop auc30=0.5,absrel=2%",
    "plan --budget 15% --rounding gptq",
    "plan --budget 15% --best-of 4 --workers 2",
    "plan --formats int8_per_channel_sym,int4_two_level,fp16 --execute int8",
    "plan --max-time 0.4x --budget 6MB",
)


@dataclass(frozen=True)
class PlanOptions:
    """What is asked of a plan, but for what is fixed beforehand."""

    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="SIZE",
            help="Size of the whole file: 600MB, 0.6GB, 572MiB, 4.2bpw, 15%, or a scheme's name for its size; by "
            f"default {DEFAULT_BUDGET}, and no limit where time or memory has one.",
        ),
    ] = None
    max_time: Annotated[
        str | None,
        typer.Option(
            "--max-time",
            metavar="TIME",
            help="Of a pass, executed as the plan says: 15s, 800ms, or 0.4x of FP32's; needs kernels.json.",
        ),
    ] = None
    max_memory: Annotated[
        str | None,
        typer.Option("--max-memory", metavar="SIZE", help="Of weights and activations in a pass: 2GB."),
    ] = None
    views: Annotated[
        int, typer.Option("--views", metavar="N", help="Pictures in that pass; 0: as many as kernels.json is for.")
    ] = 0
    policy: Annotated[
        str,
        typer.Option(
            "--policy",
            metavar="NAME",
            help="joint (least damage of all layers together), optimal (of each alone, proven), sensitive (INT8 for "
            "sensitive attention and heads), or auto: joint with a profile and rounding to the nearest, else optimal.",
        ),
    ] = "auto"
    formats: Annotated[
        str,
        typer.Option(
            "--formats",
            metavar="KEYS",
            help="auto, runnable, all, or e.g. int8,int4 or +int3; auto is INT8, INT4 and FP16 as one INT8 kernel runs "
            "them, and all that it runs where the budget is tight.",
        ),
    ] = "auto"
    strict: Annotated[bool, typer.Option("--strict", help="auto never goes beyond INT8, INT4 and FP16.")] = False
    heads: Annotated[
        str | None,
        typer.Option(
            "--heads",
            metavar="NAMES",
            help="Heads to keep, of camera,depth,point,track; all that the model has by default. Points also follow "
            "from camera and depth.",
        ),
    ] = None
    score: ScoreName = SKETCH
    weights_for: Annotated[
        str | None,
        typer.Option("--weights-for", metavar="NAMES", help="What outputs count for: depth=2,pose=1; others 1."),
    ] = None
    keep: Annotated[
        str,
        typer.Option("--keep", metavar="FORMAT", help="How norms, biases and tokens are stored: fp16 or fp32."),
    ] = "fp16"

    def request(self, constraints: Constraints) -> Request:
        """The same, read."""
        limited = self.max_time is not None or self.max_memory is not None
        return parse_request(
            self.budget or ("100%" if limited else DEFAULT_BUDGET), policy=self.policy, formats=self.formats,
            strict=self.strict, heads=self.heads, keep=self.keep, weights_for=self.weights_for, constraints=constraints,
            max_time=self.max_time, max_memory=self.max_memory, views=self.views,
        )  # fmt: skip


@dataclass(frozen=True)
class Fixed:
    """What is fixed beforehand."""

    pin: Annotated[
        list[str] | None,
        typer.Option("--pin", metavar="PATTERN=FORMAT", help="Format of the layers that match; may be repeated."),
    ] = None
    keep_fp: Annotated[
        list[str] | None,
        typer.Option("--keep-fp", metavar="PATTERN", help="Layers that are not quantised; may be repeated."),
    ] = None
    group: Annotated[
        list[str] | None,
        typer.Option(
            "--group",
            metavar="PATTERN",
            help="Layers that share a format: a pattern, shared-input or block; may be repeated.",
        ),
    ] = None
    role: Annotated[
        list[str] | None,
        typer.Option("--role", metavar="ROLE=FORMATS", help="Formats of a role, e.g. mlp=int4,int3; may be repeated."),
    ] = None
    min_bits: Annotated[
        list[str] | None,
        typer.Option("--min-bits", metavar="ROLE=BITS", help="Least bits of a role's codes; may be repeated."),
    ] = None

    def constraints(self) -> Constraints:
        """The same, read."""
        return parse_constraints(
            pin=self.pin or (), keep_fp=self.keep_fp or (), group=self.group or (), role=self.role or (),
            min_bits=self.min_bits or (),
        )  # fmt: skip


@dataclass(frozen=True)
class Beyond:
    """What is measured or drawn beyond the choice itself."""

    max_drop: Annotated[
        str | None,
        typer.Option(
            "--max-drop",
            metavar="LIMITS",
            help="Smallest file whose figures drop by no more on held-out scenes: auc30=0.5,absrel=2%.",
        ),
    ] = None
    max_damage: Annotated[
        float | None,
        typer.Option(
            "--max-damage", metavar="X", help="Smallest file of no more measured damage, instead of a budget."
        ),
    ] = None
    refine: Annotated[
        int,
        typer.Option("--refine", metavar="N", help="Measure N swaps of equal bytes on the calibration scenes."),
    ] = 0
    draw: Annotated[bool, typer.Option("--draw", help="Draw the model with bits as colours: plan.png.")] = False
    rounding: Annotated[
        str,
        typer.Option(
            "--rounding",
            metavar="NAME",
            help="How evaluate and export choose codes: nearest, mse, or from the profiled scenes gptq, descent, "
            "output_gptq, output_descent, joint_descent; auto: descent where the profile scored what gptq leaves, and "
            "the plan is made for that.",
        ),
    ] = AUTO_ROUNDING

    execute: Annotated[
        str,
        typer.Option(
            "--execute",
            metavar="NAME",
            help="Plan for a backend: layers whose rounded inputs would do too much damage under int8 keep floating "
            "point.",
        ),
    ] = "reference"
    inputs_add: Annotated[
        float | None,
        typer.Option(
            "--inputs-add",
            metavar="X",
            help="What rounded inputs may add under --execute, as a share of the plan's predicted damage; 0.1 by "
            "default. The more, the fewer layers keep floating point.",
        ),
    ] = None

    best_of: Annotated[
        int,
        typer.Option(
            "--best-of",
            metavar="K",
            help="Measure K plans (couplings, roundings) on scenes that are neither profiled nor judged on; keep the "
            "best.",
        ),
    ] = 0
    select_on: Annotated[
        str | None,
        typer.Option(
            "--select-on",
            metavar="SCENES",
            help="Scenes for --best-of, such as photos:DIR, of which one half is used; by default those of the "
            "profile's source after the profiled ones.",
        ),
    ] = None

    def extras(self, workers: Workers | None) -> Extras:
        """The same, read.

        Raises:
            InputError: something is asked for that only ``--best-of`` does.
        """
        if workers is not None and not self.best_of:
            raise InputError(f"{setting('workers')} rounds the candidates of --best-of K, which is not given")
        if self.select_on is not None and not self.best_of:
            raise InputError("--select-on is for --best-of K, which is not given")
        scenes = None if self.select_on is None else scene_source(None, self.select_on, count=SELECT_SCENES)
        return Extras(
            read_target(self.max_drop, self.max_damage), self.refine, self.draw, self.rounding, self.execute,
            self.inputs_add, self.best_of, scenes, workers,
        )  # fmt: skip


def plan(
    *,
    asked: PlanOptions,
    model: Annotated[
        str | None,
        model_option(
            "Plan for a model that the run has no profile of: exact bytes, damage guessed from weights and roles."
        ),
    ] = None,
    fixed: Fixed,
    beyond: Beyond,
    run: RunDir = DEFAULT_RUN,
    device: Device = "auto",
    workforce: Workforce,
    output: OutputOptions,
) -> None:
    """Choose a format for every layer under a budget of bytes, time and memory.

    Reads profile.h5, and kernels.json where time or memory is limited; writes plan.json. With --max-drop or
    --max-damage it seeks the smallest file instead.
    """
    with session(output, run) as screen:
        request, extras = asked.request(fixed.constraints()), beyond.extras(workforce.asked())
        with screen.progress() as progress:
            view = make_plan_of_run(
                run, request, model_name=model, score=asked.score, extras=extras, device=device, progress=progress
            )
        screen.show(view)
