"""CO3Dv2 by its published few-view split: which sequences, and which of their frames, are for training and for test.

As the published evaluation of VGGT reads it: the lists ``train`` and ``test`` of ``set_lists_fewview_dev.json``,
without sequences whose viewpoint quality is 0.5 or less (Wang et al., CVPR 2025, and Lin et al., "RelPose++", 3DV 2024,
whose preprocessing it is).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vggtkit.core.errors import InputError
from vggtkit.core.escaping import in_one_line
from vggtkit.scenes.co3d import SEQUENCES, read_annotations, read_co3d
from vggtkit.scenes.recording import Recording

SET_LISTS = Path("set_lists", "set_lists_fewview_dev.json")
LEAST_QUALITY = 0.5
"""Viewpoint quality that a sequence must exceed."""


def read_co3d_train(folder: str | Path) -> list[Recording]:
    """The training sequences of a category, or of all categories in a folder; as `read_co3d` otherwise."""
    return _read_split(Path(folder), "train")


def read_co3d_test(folder: str | Path) -> list[Recording]:
    """The test sequences, likewise."""
    return _read_split(Path(folder), "test")


def _read_split(folder: Path, split: str) -> list[Recording]:
    """Recordings with the frames that are listed.

    Raises:
        InputError: as `read_co3d`; or no list, or one of another form, or no listed sequence that is there.
    """
    recordings = read_co3d(folder)
    listed: dict[Path, dict[str, set[str]]] = {}
    chosen = []
    for recording in recordings:
        sequence = recording.frames[0].image.parent.parent
        category = sequence.parent
        if category not in listed:
            listed[category] = _listed_frames(category, split)
        names = listed[category].get(sequence.name, set())
        frames = tuple(frame for frame in recording.frames if frame.image.name in names)
        if frames:
            chosen.append(replace(recording, frames=frames))
    if not chosen:
        raise InputError(
            f"none of the {len(recordings)} sequences in {str(folder)!r} is in the {split} list of {SET_LISTS}: "
            "download those that are"
        )
    return chosen


def _listed_frames(category: Path, split: str) -> dict[str, set[str]]:
    """Names of pictures by sequence."""
    path = category / SET_LISTS
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))[split]
        pairs = [(str(sequence), Path(str(picture)).name) for sequence, _, picture in entries]
    except FileNotFoundError:
        raise InputError(f"the list {str(path)!r} is missing: it comes with CO3Dv2, see docs/data.md") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"the list {str(path)!r} is damaged ({in_one_line(error)}): download it again") from error
    good = {str(entry.get("sequence_name")) for entry in read_annotations(category / SEQUENCES) if _is_good(entry)}
    frames: dict[str, set[str]] = {}
    for sequence, picture in pairs:
        if sequence in good:
            frames.setdefault(sequence, set()).add(picture)
    return frames


def _is_good(entry: Mapping[str, Any]) -> bool:
    quality = entry.get("viewpoint_quality_score")
    return isinstance(quality, int | float) and quality > LEAST_QUALITY
