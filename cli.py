"""Command line: parse, call one function, show the result.

Exit codes: 0 done, 1 our fault, 2 the user's input, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from analysis import pipeline
from analysis.results import null_if_not_finite
from errors import InputError
from quant import CANDIDATES, FORMATS, UNIFORM_SCHEMES

PROGRAM = "python cli.py"
HELP_WIDTH = 100
WIDTH_OF_FILES = 120
DEFAULT_RUN = Path("runs/default")
DEFAULT_BUDGET = "int4_group_128"
UsageError: Any = typer.BadParameter.__mro__[1]
"""What a command line that cannot be parsed raises: a class of click, or of Typer's own, by Typer's age."""


def examples(*commands: str) -> str:
    """The end of a help text: commands to try, unwrapped."""
    return "\n".join(("\b", "Examples:", *(f"  {PROGRAM} {command}" for command in commands)))


app = typer.Typer(
    epilog=examples("demo", "profile --images photos/", "plan --budget 600MB", "evaluate"),
    context_settings={"max_content_width": HELP_WIDTH},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RunDir = Annotated[
    Path,
    typer.Option(
        "--run", "--output_dir", metavar="DIR", help="Folder of the run; commands find each other's files there."
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "--model_name",
        metavar="SOURCE",
        help="tiny (bundled), vggt-1b, a Hugging Face id, a folder or a checkpoint file.",
    ),
]
Weights = Annotated[
    str,
    typer.Option("--weights", metavar="KIND", help="pretrained, or random to try the machinery without a download."),
]
Images = Annotated[
    str | None,
    typer.Option(
        "--images", "--image_folder", metavar="DIR", help="Folder of photographs; short for --scenes photos:DIR."
    ),
]
Scenes = Annotated[
    str | None,
    typer.Option("--scenes", metavar="KIND", help="synthetic, or photos:, rgbd:, eth3d: or co3d: and a folder."),
]
NumScenes = Annotated[
    int, typer.Option("--num-scenes", metavar="N", help="Scenes in calibration and in evaluation, at most.")
]
Views = Annotated[
    int,
    typer.Option("--views", metavar="N", help="Pictures in a scene; 0: 4 for synthetic scenes, 2 for photographs."),
]
MaxImages = Annotated[
    int | None,
    typer.Option("--max-images", "--max_images", metavar="N", help="Photographs used of the folder, at most."),
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or mps.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Of scenes, samples and probes.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, and warnings.")]
Budget = Annotated[
    str,
    typer.Option(
        "--budget",
        metavar="SIZE",
        help="Size of the whole file: 600MB, 0.6GB, 572MiB, 4.2bpw, 15%, or a scheme's name for its size.",
    ),
]


@app.callback()
def common(context: typer.Context, as_json: AsJson = False, debug: Debug = False) -> None:
    """How small can VGGT be made, which layers pay for it, and what happens to cameras, depth and points?"""
    # Given before the command, they become the defaults of the same options after it.
    context.default_map = {str(context.invoked_subcommand): {"as_json": as_json, "debug": debug}}


@app.command(
    epilog=examples(
        "profile",
        "profile --images photos/ --run runs/photos",
        "profile --model vggt-1b --images photos/ --max-images 8",
    )
)
def profile(
    run: RunDir = DEFAULT_RUN,
    model: Model = "tiny",
    weights: Weights = "pretrained",
    images: Images = None,
    scenes: Scenes = None,
    num_scenes: NumScenes = 4,
    views: Views = 0,
    max_images: MaxImages = None,
    probes: Annotated[
        int,
        typer.Option(
            "--probes", metavar="N", help="Random vectors per output and scene that damage is estimated with."
        ),
    ] = 4,
    disk_budget: Annotated[
        str, typer.Option("--disk-budget", metavar="SIZE", help="Activations take at most this much of the disk.")
    ] = "100MB",
    device: Device = "auto",
    seed: Seed = 0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure every layer under FP32 and the uniform schemes.

    Writes profile.h5 into the run's folder.
    """
    with session(as_json, debug) as screen:
        source = pipeline.scene_source(images, scenes, count=num_scenes, views=views, seed=seed, max_images=max_images)
        with screen.progress() as progress:
            made = pipeline.make_profile(
                run, model, weights, source, probes=probes, disk_budget=disk_budget, device=device, seed=seed,
                progress=progress, say=screen.say,
            )  # fmt: skip
        screen.show(pipeline.profile_view(made))


@app.command(
    epilog=examples(
        "plan --budget 600MB", "plan --budget 4.2bpw --formats +int3", "plan --budget 15% --policy sensitive"
    )
)
def plan(
    budget: Budget = DEFAULT_BUDGET,
    policy: Annotated[
        str,
        typer.Option(
            "--policy",
            metavar="NAME",
            help="optimal (proven least damage) or sensitive (INT8 for sensitive attention and heads).",
        ),
    ] = "optimal",
    formats: Annotated[
        str,
        typer.Option(
            "--formats",
            metavar="KEYS",
            help="auto, or e.g. int8,int4 or +int3; auto adds 3-bit groups where the budget is tight.",
        ),
    ] = "auto",
    run: RunDir = DEFAULT_RUN,
    keep: Annotated[
        str,
        typer.Option("--keep", metavar="FORMAT", help="How norms, biases and tokens are stored: fp16 or fp32."),
    ] = "fp16",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Choose a format for every layer under a byte budget.

    Reads profile.h5 and writes plan.json.
    """
    with session(as_json, debug) as screen:
        with screen.progress() as progress:
            view = pipeline.make_plan(run, budget, policy=policy, formats=formats, keep=keep, progress=progress)
        screen.show(view)


@app.command(epilog=examples("evaluate", "evaluate --images other-photos/ --repeats 5", "evaluate --json"))
def evaluate(
    run: RunDir = DEFAULT_RUN,
    images: Images = None,
    scenes: Scenes = None,
    num_scenes: Annotated[
        int, typer.Option("--num-scenes", metavar="N", help="Evaluation scenes, at most; 0: as many as were profiled.")
    ] = 0,
    views: Views = 0,
    max_images: MaxImages = None,
    repeats: Annotated[
        int, typer.Option("--repeats", metavar="N", help="Timed repeats of each scheme; 0 leaves out timing.")
    ] = 3,
    device: Device = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare the plan with FP32 and the uniform schemes.

    Runs them on scenes that were not profiled, and writes comprehensive_results.json, comprehensive_report.txt
    and comprehensive_visualizations.png.
    """
    with session(as_json, debug) as screen:
        with screen.progress() as progress:
            view = pipeline.make_evaluation(
                run, images, scenes, num_scenes=num_scenes, views=views, max_images=max_images, repeats=repeats,
                device=device, progress=progress,
            )  # fmt: skip
        screen.show(view)


@app.command(epilog=examples("export", "export --scheme int8_per_channel_sym"))
def export(
    run: RunDir = DEFAULT_RUN,
    scheme: Annotated[
        str, typer.Option("--scheme", metavar="NAME", help="plan, or a format's name for every layer.")
    ] = "plan",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a packed checkpoint that loads without the original.

    Writes model-<scheme>.safetensors and a summary beside it.
    """
    with session(as_json, debug) as screen:
        with screen.progress() as progress:
            view = pipeline.export(run, scheme, progress)
        screen.show(view)


@app.command(epilog=examples("report", "report --run runs/photos"))
def report(run: RunDir = DEFAULT_RUN, as_json: AsJson = False, debug: Debug = False) -> None:
    """Show the last evaluation again.

    Redraws its text report and its charts too.
    """
    with session(as_json, debug) as screen:
        screen.show(pipeline.show_evaluation(run))


@app.command(epilog=examples("formats", "formats --json"))
def formats(as_json: AsJson = False, debug: Debug = False) -> None:
    """List the weight formats."""
    with session(as_json, debug) as screen:
        screen.show(pipeline.formats_view(FORMATS, UNIFORM_SCHEMES, CANDIDATES))


@app.command(epilog=examples("demo", "demo --budget 6MB --run runs/demo"))
def demo(
    run: RunDir = DEFAULT_RUN,
    budget: Budget = DEFAULT_BUDGET,
    num_scenes: NumScenes = 4,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Profile, plan and evaluate the bundled network on rendered rooms."""
    with session(as_json, debug) as screen:
        source = pipeline.scene_source(None, None, count=num_scenes, views=0, seed=seed, max_images=None)
        with screen.progress() as progress:
            made = pipeline.make_profile(
                run, "tiny", "pretrained", source, probes=4, disk_budget="100MB", device=device, seed=seed,
                progress=progress, say=screen.say,
            )  # fmt: skip
        parts = {"profile": screen.tables(pipeline.profile_view(made))}
        planned = pipeline.make_plan(run, budget, policy="optimal", formats="auto", keep="fp16")
        parts["plan"] = screen.tables(planned)
        with screen.progress() as progress:
            evaluated = pipeline.make_evaluation(
                run, None, None, num_scenes=0, views=0, max_images=None, repeats=3, device=device, progress=progress
            )
        parts["evaluate"] = screen.tables(evaluated)
        screen.json({name: view.values for name, view in parts.items()})


@dataclass(frozen=True)
class Screen:
    """Where results go: tables on standard output, or one JSON document there; the rest on standard error."""

    as_json: bool
    errors: Console = field(default_factory=lambda: Console(stderr=True))

    def show(self, view: pipeline.View) -> None:
        """Show a result."""
        self.tables(view)
        self.json(view.values)

    def tables(self, view: pipeline.View) -> pipeline.View:
        """Show a result to people, unless machines listen; returns it."""
        if self.as_json:
            return view
        console = Console()
        if not console.is_terminal:
            console.width = WIDTH_OF_FILES
        for table in view.tables:
            console.print(table)
            console.print()
        for line in view.lines:
            console.print(line, highlight=False, soft_wrap=True, markup=False)
        return view

    def json(self, values: object) -> None:
        """Show values to machines, if they listen."""
        if self.as_json:
            sys.stdout.write(json.dumps(null_if_not_finite(values), allow_nan=False) + "\n")

    def say(self, line: str) -> None:
        """Something to know beforehand; above the progress bar."""
        self.errors.print(line, highlight=False, soft_wrap=True, markup=False)

    @contextmanager
    def progress(self) -> Iterator[Callable[[str, int, int], None]]:
        """A bar with the time left, in a terminal."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        hidden = not self.errors.is_terminal
        with Progress(*columns, console=self.errors, transient=True, disable=hidden) as bar:
            task = bar.add_task("starting", total=None, visible=False)

            def step(stage: str, done: int, total: int) -> None:
                bar.update(task, description=stage, completed=done, total=total, visible=True)

            yield step


@contextmanager
def session(as_json: bool, debug: bool) -> Iterator[Screen]:
    """What a command runs in: gives it the screen, and turns what goes wrong into a line and an exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("default" if debug else "ignore")
        try:
            yield Screen(as_json)
        except (typer.Exit, BrokenPipeError):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if debug:
                traceback.print_exc()
            line, code = explained(error)
            sys.stderr.write(f"{line}\n")
            raise typer.Exit(code) from error


def explained(error: BaseException) -> tuple[str, int]:
    """What to say about an error, in one line, and the exit code.

    >>> explained(InputError("--probes 0: at least 1 is needed"))
    ('error: --probes 0: at least 1 is needed', 2)
    """
    said = " ".join(str(error).split())
    if isinstance(error, InputError):
        return f"error: {said}", 2
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "error: out of memory; give a lower --max-images, --num-scenes or --views, or --device cpu", 2
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the files that were there before are as they were", 130
    return f"internal error: {type(error).__name__}: {said}; --debug shows where", 1


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    >>> main(["plan", "--run", "no/such/run"])
    2
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code: Any = app(arguments or ["--help"], prog_name=PROGRAM, standalone_mode=False)
    except UsageError as error:
        command = getattr(getattr(error, "ctx", None), "command_path", PROGRAM)
        said = " ".join(error.format_message().split()).rstrip(".")
        sys.stderr.write(f"error: {said}; `{command} --help` shows what there is\n")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 130
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main())
