"""Command line: parse, call one function, show the result; exit codes 0 done, 2 the user's input, 1 ours, 130 interrupted."""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import click
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
from errors import InputError
from quant import CANDIDATES, FORMATS, UNIFORM_SCHEMES

app = typer.Typer(
    help="How small can VGGT be made, which layers pay for it, and what happens to cameras, depth and points?",
    epilog="Start with: python cli.py demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RunDir = Annotated[
    Path,
    typer.Option("--run", "--output_dir", help="Folder of the run; commands find each other's files there."),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "--model_name",
        help="tiny (bundled), vggt-1b, a Hugging Face id, a folder or a checkpoint file.",
    ),
]
Weights = Annotated[
    str, typer.Option("--weights", help="pretrained, or random to try the machinery without a download.")
]
Images = Annotated[
    str | None,
    typer.Option("--images", "--image_folder", help="Folder of photographs; short for --scenes photos:DIR."),
]
Scenes = Annotated[str | None, typer.Option("--scenes", help="synthetic, or photos:DIR.")]
NumScenes = Annotated[int, typer.Option("--num-scenes", help="Scenes in calibration and in evaluation, at most.")]
Views = Annotated[
    int, typer.Option("--views", help="Pictures in a scene; 0: 4 for synthetic scenes, 2 for photographs.")
]
MaxImages = Annotated[
    int | None, typer.Option("--max-images", "--max_images", help="Photographs used of the folder, at most.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
Seed = Annotated[int, typer.Option("--seed", help="Of scenes, samples and probes.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Budget = Annotated[
    str,
    typer.Option(
        "--budget",
        help="Size of the whole file: 600MB, 0.6GB, 572MiB, 4.2bpw, 15%, or a scheme's name for its size.",
    ),
]
Policy = Annotated[
    str,
    typer.Option(
        "--policy",
        help="optimal (proven least damage) or sensitive (INT8 for sensitive attention and heads).",
    ),
]
Formats = Annotated[
    str,
    typer.Option(
        "--formats",
        help="auto, or e.g. int8,int4 or +int3; auto adds 3-bit groups where the budget is tight.",
    ),
]
Repeats = Annotated[int, typer.Option("--repeats", help="Timed repeats of each scheme; 0 leaves out timing.")]

DEFAULT_RUN = Path("runs/default")
DEFAULT_BUDGET = "int4_group_128"
WIDTH_OF_FILES = 120


@app.command(epilog="Example: python cli.py profile --images photos/ --run runs/photos")
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
        typer.Option("--probes", help="Random vectors per output and scene that damage is estimated with."),
    ] = 4,
    disk_budget: Annotated[
        str, typer.Option("--disk-budget", help="Activations take at most this much of the disk.")
    ] = "100MB",
    device: Device = "auto",
    seed: Seed = 0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure every layer under FP32 and the seven uniform schemes; writes profile.h5."""
    source = pipeline.scene_source(images, scenes, count=num_scenes, views=views, seed=seed, max_images=max_images)
    screen = Screen(as_json)
    with screen.progress() as progress:
        made = pipeline.make_profile(
            run, model, weights, source, probes=probes, disk_budget=disk_budget, device=device, seed=seed,
            progress=progress, say=screen.say,
        )  # fmt: skip
    screen.show(pipeline.profile_view(made))


@app.command(epilog="Example: python cli.py plan --budget 600MB")
def plan(
    budget: Budget = DEFAULT_BUDGET,
    policy: Policy = "optimal",
    formats: Formats = "auto",
    run: RunDir = DEFAULT_RUN,
    keep: Annotated[
        str, typer.Option("--keep", help="How norms, biases and tokens are stored: fp16 or fp32.")
    ] = "fp16",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Choose a format for every layer under a byte budget; writes plan.json."""
    screen = Screen(as_json)
    screen.show(pipeline.make_plan(run, budget, policy=policy, formats=formats, keep=keep))


@app.command(epilog="Example: python cli.py evaluate --images other-photos/")
def evaluate(
    run: RunDir = DEFAULT_RUN,
    images: Images = None,
    scenes: Scenes = None,
    num_scenes: Annotated[
        int, typer.Option("--num-scenes", help="Evaluation scenes, at most; 0: as many as were profiled.")
    ] = 0,
    views: Views = 0,
    max_images: MaxImages = None,
    repeats: Repeats = 3,
    device: Device = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run FP32, the seven uniform schemes and the plan on scenes that were not profiled; writes three reports."""
    screen = Screen(as_json)
    with screen.progress() as progress:
        view = pipeline.make_evaluation(
            run, images, scenes, num_scenes=num_scenes, views=views, max_images=max_images, repeats=repeats,
            device=device, progress=progress,
        )  # fmt: skip
    screen.show(view)


@app.command(epilog="Example: python cli.py export --scheme int8_per_channel_sym")
def export(
    run: RunDir = DEFAULT_RUN,
    scheme: Annotated[str, typer.Option("--scheme", help="plan, or a format's name for every layer.")] = "plan",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write the packed checkpoint of the plan, or of a uniform scheme; it loads without the original."""
    Screen(as_json).show(pipeline.export(run, scheme))


@app.command()
def report(run: RunDir = DEFAULT_RUN, as_json: AsJson = False, debug: Debug = False) -> None:
    """Show the last evaluation again, and redraw its text report and charts."""
    Screen(as_json).show(pipeline.show_evaluation(run))


@app.command()
def formats(as_json: AsJson = False, debug: Debug = False) -> None:
    """List the weight formats."""
    Screen(as_json).show(pipeline.formats_view(FORMATS, UNIFORM_SCHEMES, CANDIDATES))


@app.command()
def demo(
    run: RunDir = DEFAULT_RUN,
    budget: Budget = DEFAULT_BUDGET,
    num_scenes: NumScenes = 4,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Profile, plan and evaluate the bundled network on rendered rooms, one after the other."""
    screen = Screen(as_json)
    source = pipeline.scene_source(None, None, count=num_scenes, views=0, seed=seed, max_images=None)
    with screen.progress() as progress:
        made = pipeline.make_profile(
            run, "tiny", "pretrained", source, probes=4, disk_budget="100MB", device=device, seed=seed,
            progress=progress, say=screen.say,
        )  # fmt: skip
    screen.show(pipeline.profile_view(made))
    screen.show(pipeline.make_plan(run, budget, policy="optimal", formats="auto", keep="fp16"))
    with screen.progress() as progress:
        view = pipeline.make_evaluation(
            run,
            None,
            None,
            num_scenes=0,
            views=0,
            max_images=None,
            repeats=3,
            device=device,
            progress=progress,
        )
    screen.show(view)


@dataclass(frozen=True)
class Screen:
    """Where results go: tables on standard output, or JSON there and nothing else."""

    as_json: bool

    def show(self, view: pipeline.View) -> None:
        """Show a result."""
        if self.as_json:
            sys.stdout.write(json.dumps(view.values) + "\n")
            return
        console = Console()
        if not console.is_terminal:
            console.width = WIDTH_OF_FILES
        for table in view.tables:
            console.print(table)
        for line in view.lines:
            console.print(line, highlight=False, soft_wrap=True, markup=False)

    def say(self, line: str) -> None:
        """Something to know beforehand; on standard error, so that JSON stays clean."""
        Console(stderr=True).print(line, highlight=False, soft_wrap=True, markup=False)

    @contextmanager
    def progress(self) -> Iterator[Callable[[str, int, int], None]]:
        """A bar with the time left, on standard error."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
        )
        with Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
        ) as bar:
            task = bar.add_task("starting", total=None)

            def step(stage: str, done: int, total: int) -> None:
                bar.update(task, description=stage, completed=done, total=total)

            yield step


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    >>> main(["plan", "--run", "no/such/run"])
    2
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    warnings.filterwarnings("default" if debug else "ignore")
    try:
        code: Any = app(arguments, standalone_mode=False)
        return int(code or 0)
    except click.ClickException as error:
        error.show()
        return 2
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("interrupted; files that were complete before are as they were\n")
        return 130
    except InputError as error:
        if debug:
            traceback.print_exc()
        sys.stderr.write(f"error: {error}\n")
        return 2
    except (torch.OutOfMemoryError, MemoryError) as error:
        if debug:
            traceback.print_exc()
        sys.stderr.write(f"error: out of memory ({str(error).splitlines()[0]}); give --max-images or fewer --views\n")
        return 2
    except Exception as error:
        if debug:
            traceback.print_exc()
        sys.stderr.write(f"internal error: {type(error).__name__}: {error}; --debug shows where\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
