"""The command ``download``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.commands.options import OutputOptions
from analysis.commands.screen import session
from analysis.steps import View
from vggtkit.core.errors import InputError
from vggtkit.core.program import command
from vggtkit.scenes.eth3d_download import download_eth3d

EXAMPLES = (
    "download eth3d courtyard",
    "download eth3d courtyard --to data/eth3d --no-depth",
)


def download(
    *,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="eth3d.", show_default=False)],
    scene: Annotated[str, typer.Argument(metavar="SCENE", help="A scene's name, as courtyard.", show_default=False)],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder for the archives and the scene.")] = Path(
        "data"
    ),
    depth: Annotated[
        bool, typer.Option("--depth/--no-depth", help="With depth, or cameras alone, which is one archive of three.")
    ] = True,
    output: OutputOptions,
) -> None:
    """Fetch a scene with ground truth.

    Says first what it fetches and how much. An interrupted download goes on where it stopped; an archive that was put
    into the folder by hand is not fetched.
    """
    with session(output) as screen:
        if dataset != "eth3d":
            raise InputError(f"download {dataset}: only eth3d can be fetched; docs/data.md tells where the others are")
        with screen.progress() as progress:
            folder, archives = download_eth3d(scene, to, with_depth=depth, progress=progress, say=screen.say)
        lines = (f"written: {folder}", f"use it with: {command('profile', '--scenes', f'eth3d:{folder}')}")
        screen.show(View({"path": str(folder), "archives": archives}, (), lines))
