"""What the reader of a dataset hands over: frames of one place, and what it left out.

Pictures have pinhole cameras in OpenCV axes and, where it was measured, depth; photographs have neither. Pixel k
has its centre at coordinate k, as everywhere in this project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError
from vggtkit.scenes.depth_files import DepthAt, Size
from vggtkit.scenes.naming import natural_key


@dataclass(frozen=True)
class Frame:
    """One picture of a recording and what is known about it.

    Attributes:
        image: the picture's file.
        intrinsics: ``[3, 3]`` in pixels of the stored picture; None of a photograph.
        extrinsics: world-to-camera ``[4, 4]``, OpenCV axes (x right, y down, z forward); None of a photograph.
        depth: gives z-depth in the unit of the poses, at any pixel coordinates; None where there is none.
        size: width and height that the intrinsics are made for; None where the dataset does not tell.
    """

    image: Path
    intrinsics: Array | None = None
    extrinsics: Array | None = None
    depth: DepthAt | None = None
    size: Size | None = None


@dataclass(frozen=True)
class Omission:
    """A frame that is left out.

    Attributes:
        place: file or line, such as a reader's error names it.
        reason: the same for all frames that are left out for the same reason.
    """

    place: str
    reason: str


@dataclass(frozen=True)
class Recording:
    """Frames of one place, in order; scenes never mix two recordings.

    Attributes:
        name: for people.
        frames: at least one.
        notes: what the user should know, such as how many frames were left out and why; a line each.
    """

    name: str
    frames: tuple[Frame, ...]
    notes: tuple[str, ...] = ()


def recording_of(
    name: str,
    folder: Path,
    entries: Iterable[Frame | Omission],
    *,
    needs: str = "a picture, depth and a pose",
    notes: Sequence[str] = (),
) -> Recording:
    """The recording of a reader's frames; those left out are counted in its notes.

    Args:
        name: of the recording.
        folder: where it was read.
        entries: frames in order, and omissions where they fall.
        needs: what every frame must have, for the error.
        notes: the reader's own.

    Raises:
        InputError: no frame is left, or a picture is listed twice (the halves of a split must not share it).

    >>> entries = [Frame(Path("a.png")), Omission("b.txt", "the pose is all zeros")]
    >>> recording_of("desk", Path("desk"), entries).notes
    ("recording 'desk': 1 of 2 frames is left out, the pose is all zeros (the first: b.txt)",)
    """
    everything = list(entries)
    frames = [entry for entry in everything if isinstance(entry, Frame)]
    omissions = [entry for entry in everything if isinstance(entry, Omission)]
    if not frames:
        first = f": {omissions[0].place}: {omissions[0].reason}" if omissions else ""
        raise InputError(f"the recording {str(folder)!r} has no frame with {needs}{first}")
    seen: set[Path] = set()
    for frame in frames:
        if frame.image in seen:
            raise InputError(f"the recording {str(folder)!r} lists the picture {str(frame.image)!r} twice: remove one")
        seen.add(frame.image)
    return Recording(name, tuple(frames), (*notes, *_count(name, len(everything), omissions)))


def _count(name: str, total: int, omissions: Sequence[Omission]) -> list[str]:
    """A line for each reason."""
    places: dict[str, list[str]] = {}
    for omission in omissions:
        places.setdefault(omission.reason, []).append(omission.place)
    return [
        f"recording {name!r}: {len(own)} of {total} frames {'is' if len(own) == 1 else 'are'} left out, {reason} "
        f"(the first: {own[0]})"
        for reason, own in places.items()
    ]


def find_recordings(
    folder: Path, holds: Callable[[Path], bool], read: Callable[[Path], list[Recording]], layout: str
) -> list[Recording]:
    """The recordings of a folder, or of its subfolders where the folder itself has none.

    Args:
        folder: where to look; one level deep.
        holds: whether a folder has the layout.
        read: reads one that has.
        layout: its description, for the error.

    Raises:
        InputError: there is no such folder, or nothing of this layout in it.
    """
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"the folder {str(folder)!r} {state}: give the folder of the recording")
    subfolders = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: natural_key(path.name))
    places = [folder] if holds(folder) else [path for path in subfolders if holds(path)]
    if not places:
        raise InputError(f"the folder {str(folder)!r} has no {layout}, nor has a subfolder: see docs/data.md")
    return [recording for place in places for recording in read(place)]


def check_exists(path: Path, what: str) -> None:
    """A file that a recording names must be there.

    Raises:
        InputError: it is not.
    """
    if not path.is_file():
        raise InputError(f"the {what} {str(path)!r} is missing: complete the recording or remove the frame")
