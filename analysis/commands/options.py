"""Options that commands share, single and in groups, and the scenes that they ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from analysis.steps.network import NetworkChoice
from analysis.steps.reconstruction import PictureChoice
from analysis.steps.run_folder import PLAN
from vggtkit.core.errors import InputError, check_number
from vggtkit.core.executors import Workers, parse_workers
from vggtkit.core.program import setting
from vggtkit.scenes import SCENE_KINDS, SceneSource, parse_scenes, scene_choices

DEFAULT_RUN = Path("runs/default")
DEFAULT_BUDGET = "int4_group_128"
LARGEST_SEED = 2**32 - 1


def model_option(text: str) -> Any:  # noqa: ANN401 - as typer has it
    """The option that names a model; every command says what it is to that command."""
    return typer.Option("--model", "--model_name", metavar="SOURCE", help=text)


RunDir = Annotated[
    Path,
    typer.Option(
        "--run", "--output_dir", metavar="DIR", help="Folder of the run; commands find each other's files there."
    ),
]
Model = Annotated[
    str,
    model_option(
        "tiny (bundled), vggt-1b, a Hugging Face id, a folder, a checkpoint file, or package.module:function."
    ),
]
RunModel = Annotated[
    str | None,
    model_option("The run's model; a function of yours runs only if you name it here, or did when you profiled."),
]
WeightsKind = Annotated[
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
    typer.Option("--scenes", metavar="KIND", help=f"Where scenes come from: {scene_choices()}."),
]
NumScenes = Annotated[
    int, typer.Option("--num-scenes", metavar="N", help="Scenes in calibration and in evaluation, at most.")
]
ViewsPerScene = Annotated[
    int,
    typer.Option("--views", metavar="N", help="Pictures in a scene; 0: 4 for synthetic scenes, 2 for photographs."),
]
MaxImages = Annotated[
    int | None,
    typer.Option("--max-images", "--max_images", metavar="N", help="Photographs used of the folder, at most."),
]
Resolution = Annotated[
    int | None,
    typer.Option(
        "--resolution",
        metavar="N",
        help="Width of pictures in pixels, if not what the model is made for; less is faster.",
    ),
]
Stride = Annotated[
    int | None,
    typer.Option("--stride", metavar="N", help="Use every N-th picture of a folder; counts before --max-images."),
]
SamplingMode = Annotated[
    str | None,
    typer.Option(
        "--sampling",
        metavar="HOW",
        help="How a folder's pictures make scenes: runs of neighbours, or random groups, by --seed.",
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or mps.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Of scenes, samples and probes.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, and warnings.")]
NoVerify = Annotated[
    bool, typer.Option("--no-verify", help="Compare no digests, and do not try to read a profile in a child process.")
]
Plugin = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="Your Python file or module that registers formats, scores, metrics, scenes or backends; may be repeated.",
    ),
]
ScoreName = Annotated[
    str,
    typer.Option("--score", metavar="NAME", help="Score that damage is taken from; `audit` compares them all."),
]
BudgetText = Annotated[
    str,
    typer.Option(
        "--budget",
        metavar="SIZE",
        help="Size of the whole file: 600MB, 0.6GB, 572MiB, 4.2bpw, 15%, or a scheme's name for its size.",
    ),
]


@dataclass(frozen=True)
class OutputOptions:
    """How results are shown, and what is loaded beforehand; all commands share it."""

    as_json: AsJson = False
    debug: Debug = False
    plugin: Plugin = None
    no_verify: NoVerify = False


@dataclass(frozen=True)
class Workforce:
    """Who does the work."""

    workers: Annotated[
        str | None,
        typer.Option(
            "--workers",
            metavar="WHO",
            help="A number of processes, `processes` for as many as fit, `ray`, or ray://HOST:PORT of a Ray cluster.",
        ),
    ] = None
    threads: Annotated[
        int,
        typer.Option(
            "--threads",
            metavar="N",
            help="Of each worker; 0: one. It decides the last bits, the number of workers does not.",
        ),
    ] = 0

    def asked(self) -> Workers | None:
        """The workers that were asked for; None where nobody did.

        Raises:
            InputError: they cannot be had by these words.
        """
        if self.workers is None and self.threads:
            return parse_workers("1", self.threads)
        return None if self.workers is None else parse_workers(self.workers, self.threads)


@dataclass(frozen=True)
class PictureOptions:
    """Which pictures make the scenes."""

    images: Images = None
    scenes: Scenes = None
    views: ViewsPerScene = 0
    max_images: MaxImages = None
    stride: Stride = None
    sampling: SamplingMode = None

    def held_out(self, profiled: SceneSource, count: int) -> SceneSource:
        """Where evaluation scenes come from, see `evaluation_source`."""
        return evaluation_source(
            profiled, self.images, self.scenes, count=count, views=self.views, max_images=self.max_images,
            stride=self.stride, sampling=self.sampling,
        )  # fmt: skip


BackendName = Annotated[
    str,
    typer.Option(
        "--execute",
        metavar="NAME",
        help="What executes the packed network: reference (exact), int8, onnxruntime or openvino.",
    ),
]


@dataclass(frozen=True)
class Photographs:
    """Which pictures are reconstructed."""

    images: Annotated[
        str | None,
        typer.Option(
            "--images",
            "--image_folder",
            metavar="DIR",
            help="Folder of photographs of one place; a rendered room by default.",
        ),
    ] = None
    max_images: MaxImages = None
    stride: Stride = None
    resolution: Resolution = None

    @property
    def choice(self) -> PictureChoice:
        """As the steps take it."""
        return PictureChoice(self.images, self.max_images, self.stride, self.resolution)


@dataclass(frozen=True)
class NetworkOptions:
    """Which network looks at pictures, and how it is executed."""

    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", metavar="FILE", help="A packed checkpoint that `export` wrote.")
    ] = None
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            "--output_dir",
            metavar="DIR",
            help=f"Folder of a run, for its plan; {DEFAULT_RUN} if that has one.",
        ),
    ] = None
    model: Annotated[
        str | None,
        model_option(
            "A VGGT to run in FP32, tiny by default; with --checkpoint or --run the one that they are made from."
        ),
    ] = None
    execute: BackendName = "reference"
    device: Device = "auto"

    @property
    def choice(self) -> NetworkChoice:
        """As the steps take it; where nothing is named, the plan of the usual run, if there is one."""
        named = self.checkpoint is not None or self.model is not None
        usual = DEFAULT_RUN if not named and (DEFAULT_RUN / PLAN).is_file() else None
        return NetworkChoice(self.run or usual, self.checkpoint, self.model, self.execute, self.device)


MOST_SCENES, MOST_VIEWS, MOST_PIXELS = 10**6, 10**4, 2**15
"""Beyond what any machine can do; what this one can is asked before pictures are made."""


def scene_source(
    images: str | None,
    scenes: str | None,
    *,
    count: int,
    views: int = 0,
    seed: int = 0,
    max_images: int | None = None,
    stride: int | None = None,
    sampling: str | None = None,
    resolution: int | None = None,
) -> SceneSource:
    """The scenes that ``--images`` or ``--scenes`` ask for; rendered rooms where neither is given.

    Raises:
        InputError: both are given, or one is not usable, a number is out of range, or pictures are to be chosen where
            scenes are rendered.

    >>> scene_source(None, None, count=2).views
    4
    """
    if images is not None and scenes is not None:
        raise InputError("--images and --scenes are both given; --images DIR is short for --scenes photos:DIR")
    check_number("num_scenes", count, 1, MOST_SCENES)
    check_number("seed", seed, 0, LARGEST_SEED)
    if resolution is not None:
        check_number("resolution", resolution, 1, MOST_PIXELS)
    kind, folder = parse_scenes((scenes or "synthetic") if images is None else f"photos:{images}")
    chosen = _choice_of_pictures(kind, views, max_images, stride, sampling)
    is_path = SCENE_KINDS[kind].read is not None
    absolute = str(Path(folder).expanduser().resolve()) if folder and is_path else folder
    fields = {"kind": kind, "folder": absolute, "count": count, "seed": seed, "resolution": resolution}
    return SceneSource.from_dict(fields | chosen)


def evaluation_source(
    profiled: SceneSource,
    images: str | None,
    scenes: str | None,
    *,
    count: int = 0,
    views: int = 0,
    max_images: int | None = None,
    stride: int | None = None,
    sampling: str | None = None,
) -> SceneSource:
    """Where evaluation scenes come from: what was profiled, unless other scenes or numbers are asked for.

    Raises:
        InputError: as `scene_source`.

    >>> evaluation_source(SceneSource("photos", "kitchen", stride=2), None, None, count=8).stride
    2
    """
    check_number("num_scenes", count, 0, MOST_SCENES)
    count = count or profiled.count
    if images is not None or scenes is not None:
        return scene_source(
            images, scenes, count=count, views=views, seed=profiled.seed, max_images=max_images, stride=stride,
            sampling=sampling, resolution=profiled.resolution,
        )  # fmt: skip
    chosen = _choice_of_pictures(profiled.kind, views, max_images, stride, sampling)
    return SceneSource.from_dict(profiled.to_dict() | {"count": count} | chosen)


def _choice_of_pictures(
    kind: str, views: int, max_images: int | None, stride: int | None, sampling: str | None
) -> dict[str, int | str]:
    """Those of the options that were given, checked; the defaults and the check of ``sampling`` are `SceneSource`'s."""
    check_number("views", views, 0, MOST_VIEWS)
    chosen: dict[str, int | str] = {"views": views} if views else {}
    for option, number in (("max_images", max_images), ("stride", stride), ("sampling", sampling)):
        if number is None:
            continue
        if SCENE_KINDS[kind].read is None:
            raise InputError(
                f"{setting(option)} chooses among pictures, and rooms are rendered; give --images or --scenes KIND:DIR"
            )
        if isinstance(number, int):
            check_number(option, number, 1)
        chosen[option] = number
    return chosen
