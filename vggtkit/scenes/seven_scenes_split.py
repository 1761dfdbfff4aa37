"""7-Scenes by its published split: ``TrainSplit.txt`` and ``TestSplit.txt`` in the folder of every scene.

Source: Shotton et al., "Scene Coordinate Regression Forests", CVPR 2013; the lists have a line ``sequence3`` for the
folder ``seq-03``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from vggtkit.core.errors import InputError
from vggtkit.scenes.naming import natural_key
from vggtkit.scenes.recording import Recording, recording_of
from vggtkit.scenes.seven_scenes import holds_seven_scenes, read_seven_scenes

LISTS = {"train": "TrainSplit.txt", "test": "TestSplit.txt"}
_SEQUENCE, _FOLDER = re.compile(r"sequence\s*(\d+)", re.IGNORECASE), re.compile(r"seq-?(\d+)", re.IGNORECASE)


def read_seven_scenes_train(folder: str | Path) -> list[Recording]:
    """The training sequences of a scene, or of all scenes in a folder; named ``chess/seq-01``."""
    return _read_split(Path(folder), "train")


def read_seven_scenes_test(folder: str | Path) -> list[Recording]:
    """The test sequences, likewise."""
    return _read_split(Path(folder), "test")


def _read_split(folder: Path, split: str) -> list[Recording]:
    """Those listed sequences that are there.

    Raises:
        InputError: no scene with a list, a list that cannot be read, or none of its sequences.
    """
    name = LISTS[split]
    if not folder.is_dir():
        raise InputError(f"the folder {str(folder)!r} does not exist: give the folder of 7-Scenes")
    scenes = [path for path in (folder, *_subfolders(folder)) if (path / name).is_file()]
    if not scenes:
        raise InputError(
            f"no scene with a {name} in {str(folder)!r}: give the folder of 7-Scenes or of one of its scenes, or any "
            "sequences as rgbd:DIR"
        )
    recordings = []
    for scene in scenes:
        listed = _listed(scene / name)
        for place in _subfolders(scene):
            number = _FOLDER.fullmatch(place.name)
            if number and int(number[1]) in listed and holds_seven_scenes(place):
                own = recording_of(place.name, place, read_seven_scenes(place))
                recordings.append(replace(own, name=f"{scene.resolve().name}/{place.name}"))
    if not recordings:
        raise InputError(
            f"none of the sequences that {name} lists is in {str(folder)!r}: unpack seq-01.zip and so on beside it"
        )
    return recordings


def _subfolders(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: natural_key(path.name))


def _listed(path: Path) -> set[int]:
    """Numbers of sequences."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise InputError(f"the list {str(path)!r} cannot be read ({error}): download it again") from error
    wrong = next((line for line in lines if line.strip() and not _SEQUENCE.fullmatch(line.strip())), None)
    if wrong is not None:
        raise InputError(
            f"the list {str(path)!r} has the line {wrong.strip()[:40]!r}, not as sequence3: fetch it again"
        )
    return {int(match[1]) for line in lines if (match := _SEQUENCE.fullmatch(line.strip()))}
