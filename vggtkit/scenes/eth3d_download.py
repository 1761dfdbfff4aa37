"""Fetching a scene of ETH3D: which archives, from where, and what to do where there is no network.

Source of names and places: Schoeps et al., https://www.eth3d.net/datasets (high-resolution multi-view). ETH3D publishes
neither sizes in machine-readable form nor checksums: sizes are asked of the server, damage is found by the checksums
inside the archives, and the SHA-256 of what came is recorded, so that two downloads can be compared.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.core.provenance import Progress
from vggtkit.scenes.fetch import MB, Remote, fetch, look_up

SITE = "https://www.eth3d.net/data"
WITH_DEPTH = (
    "courtyard", "delivery_area", "electro", "facade", "kicker", "meadow", "office", "pipes", "playground", "relief",
    "relief_2", "terrace", "terrains",
)  # fmt: skip
WITHOUT_DEPTH = (
    "botanical_garden", "boulders", "bridge", "door", "exhibition_hall", "lecture_room", "living_room", "lounge",
    "observatory", "old_computer", "statue", "terrace_2",
)  # fmt: skip
RECORD = "downloaded.json"


@dataclass(frozen=True)
class Archive:
    """One of a scene's archives.

    Attributes:
        scene: its scene.
        kind: ``undistorted``, ``depth`` or ``jpg``.
        holds: what for.
        folder: what is unpacked of it, below the scene; "" for all.
    """

    scene: str
    kind: str
    holds: str
    folder: str = ""

    @property
    def name(self) -> str:
        """Of the file."""
        return f"{self.scene}_dslr_{self.kind}.7z"

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{SITE}/{self.name}"


def archives_of(scene: str, *, with_depth: bool) -> list[Archive]:
    """The archives that a scene needs.

    Raises:
        InputError: ETH3D has no scene of that name.

    >>> [archive.name for archive in archives_of("statue", with_depth=True)]  # its depth is not public
    ['statue_dslr_undistorted.7z']
    """
    if scene not in WITH_DEPTH + WITHOUT_DEPTH:
        raise InputError(
            f"ETH3D has no scene {scene!r}: with depth there are {', '.join(WITH_DEPTH)}; "
            f"without {', '.join(WITHOUT_DEPTH)}"
        )
    needed = [Archive(scene, "undistorted", "pictures and cameras")]
    if with_depth and scene in WITH_DEPTH:
        needed.append(Archive(scene, "depth", "depth of the distorted pictures"))
        needed.append(Archive(scene, "jpg", "their lens model", "dslr_calibration_jpg"))
    return needed


def download_eth3d(
    scene: str, to: Path, *, with_depth: bool, progress: Progress, say: Callable[[str], None]
) -> tuple[Path, dict[str, Any]]:
    """Fetch and unpack what is missing of a scene; the archives stay beside it.

    An archive that is there already, by an earlier run or by hand, is not fetched; one that was unpacked is left alone.

    Args:
        scene: its name at ETH3D.
        to: folder that gets the archives and the scene's folder.
        with_depth: also the depth and what it needs, which is two archives more.
        progress: called with megabytes.
        say: told before anything is fetched what is, and how much.

    Returns:
        The scene's folder, as ``--scenes eth3d:`` takes it, and what is recorded of its archives.

    Raises:
        InputError: an unknown scene, no network, no room, a damaged archive, or py7zr is missing.
    """
    needed = archives_of(scene, with_depth=with_depth)
    unpack = _unpacker()
    folder = to / scene
    record = _read_record(folder / RECORD)
    todo = [archive for archive in needed if archive.name not in record]
    _make_folder(to)
    fetched = _looked_up([archive for archive in todo if not (to / archive.name).is_file()], to)
    _check_disk_of(fetched, to)
    say(_announcement(scene, todo, fetched, to))
    for archive, remote in fetched.items():
        try:
            fetch(remote, to / archive.name, progress)
        except InputError as error:
            raise InputError(f"{error}; {_by_hand([archive], to)}") from error
    for archive in todo:
        path = to / archive.name
        unpack(path, to, scene, f"{scene}/{archive.folder}" if archive.folder else "", progress=progress)
        record[archive.name] = {"url": archive.url, "size_bytes": path.stat().st_size, "sha256": _sha256(path)}
        _write_record(folder / RECORD, record)
    return folder, record


def _unpacker() -> Callable[..., list[Path]]:
    """Asked for before anything is fetched."""
    try:
        from vggtkit.scenes.unpack import unpack_archive
    except ModuleNotFoundError as error:
        raise InputError(
            "ETH3D comes in 7z archives, which need py7zr: install it with `pip install 'vggt-mixedprec[eth3d]'` or "
            "`pip install py7zr`"
        ) from error
    return unpack_archive


def _make_folder(to: Path) -> None:
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{setting('to', to)}: cannot be made ({error.strerror}); name another folder") from error


def _looked_up(archives: list[Archive], to: Path) -> dict[Archive, Remote]:
    try:
        return {archive: look_up(archive.url) for archive in archives}
    except InputError as error:
        raise InputError(f"{error}; {_by_hand(archives, to)}") from error


def _by_hand(archives: list[Archive], to: Path) -> str:
    urls = ", ".join(archive.url for archive in archives)
    return f"or fetch {urls} by hand, put {'them' if len(archives) > 1 else 'it'} into {to} and run the command again"


def _check_disk_of(fetched: dict[Archive, Remote], to: Path) -> None:
    """The archives, and about as much again for what is in them."""
    needed = 2 * sum(_missing(archive, remote, to) for archive, remote in fetched.items())
    free = shutil.disk_usage(to).free
    if free < needed:
        raise InputError(
            f"{setting('to', to)}: has {free / MB:,.0f} MB free, the archives and what is in them take about "
            f"{needed / MB:,.0f} MB; make room or name another folder"
        )


def _missing(archive: Archive, remote: Remote, to: Path) -> int:
    part = to / f"{archive.name}.part"
    return max(0, (remote.size_bytes or 0) - (part.stat().st_size if part.exists() else 0))


def _announcement(scene: str, todo: list[Archive], fetched: dict[Archive, Remote], to: Path) -> str:
    if not todo:
        return f"ETH3D {scene}: all of it is in {to / scene} already"
    parts = []
    for archive in todo:
        remote = fetched.get(archive)
        size = "unknown size" if remote and remote.size_bytes is None else ""
        size = size or (f"{(remote.size_bytes or 0) / MB:,.1f} MB" if remote else "there already")
        parts.append(f"{archive.name} ({size}: {archive.holds})")
    total = sum(_missing(archive, remote, to) for archive, remote in fetched.items())
    note = "" if scene in WITH_DEPTH else "; its depth is not public"
    return f"ETH3D {scene}: fetching {total / MB:,.1f} MB from {SITE} to {to}: {', '.join(parts)}{note}"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _write_record(path: Path, record: dict[str, Any]) -> None:
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    new.replace(path)
