"""The command ``demo``."""

from __future__ import annotations

from analysis.commands.options import (
    DEFAULT_BUDGET,
    DEFAULT_RUN,
    BudgetText,
    Device,
    NumScenes,
    OutputOptions,
    RunDir,
    Seed,
    scene_source,
)
from analysis.commands.screen import session
from analysis.steps import make_evaluation, make_plan_of_run, make_profile, profile_view
from mixedprec import parse_request

EXAMPLES = (
    "demo",
    "demo --budget 6MB --run runs/demo",
)


def demo(
    *,
    run: RunDir = DEFAULT_RUN,
    budget: BudgetText = DEFAULT_BUDGET,
    num_scenes: NumScenes = 4,
    device: Device = "auto",
    seed: Seed = 0,
    output: OutputOptions,
) -> None:
    """Profile, plan and evaluate the bundled network on rendered rooms; codes are chosen on the profiled ones."""
    with session(output, run) as screen:
        source = scene_source(None, None, count=num_scenes, seed=seed)
        with screen.progress() as progress:
            made = make_profile(
                run, "tiny", "pretrained", source, probes=4, disk_budget="100MB", device=device, seed=seed,
                progress=progress, say=screen.say,
            )  # fmt: skip
        parts = {"profile": screen.tables(profile_view(made))}
        planned = make_plan_of_run(run, parse_request(budget))
        parts["plan"] = screen.tables(planned)
        with screen.progress() as progress:
            evaluated = make_evaluation(run, repeats=3, device=device, progress=progress, say=screen.say)
        parts["evaluate"] = screen.tables(evaluated)
        screen.json({name: view.values for name, view in parts.items()})
