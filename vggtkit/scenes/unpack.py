"""Unpacking a 7z archive so that nothing lands outside its folder, and nothing half."""

from __future__ import annotations

import lzma
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from py7zr import SevenZipFile
from py7zr.callbacks import ExtractCallback
from py7zr.exceptions import ArchiveError, UnsupportedCompressionMethodError

from vggtkit.core.errors import InputError
from vggtkit.core.escaping import in_one_line
from vggtkit.core.program import setting
from vggtkit.scenes.fetch import MB

_DAMAGED = (ArchiveError, lzma.LZMAError, zlib.error, EOFError, ValueError)


class _Counter(ExtractCallback):
    """Tells how much is written."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self.tell, self.written = tell, 0

    def report_update(self, decompressed_bytes: str) -> None:
        self.written += int(decompressed_bytes)
        self.tell(self.written)

    def report_start_preparation(self) -> None:
        """Of no interest."""

    def report_start(self, processing_file_path: str, processing_bytes: str) -> None:
        """Of no interest."""

    def report_end(self, processing_file_path: str, wrote_bytes: str) -> None:
        """Of no interest."""

    def report_warning(self, message: str) -> None:
        """Of no interest."""

    def report_postprocess(self) -> None:
        """Of no interest."""


def unpack_archive(
    archive: Path, to: Path, top: str, inside: str = "", *, progress: Callable[[str, int, int], None]
) -> list[Path]:
    """Unpack the files of an archive that lie below one folder.

    They are unpacked and checked (the archive has a CRC for every file) beside the target first, and then moved there.

    Args:
        archive: a 7z file.
        to: folder that gets the archive's folder ``top``.
        top: the one folder that all members must lie in.
        inside: a folder in it, ``"top/inside"``; only what lies there is unpacked.
        progress: called with megabytes.

    Returns:
        The files, where they are now.

    Raises:
        InputError: a damaged archive, a member outside of ``top``, a link, nothing to unpack, or no room.
    """
    with tempfile.TemporaryDirectory(dir=to, prefix=".unpacking-") as place:
        try:
            with SevenZipFile(archive) as file:
                members = file.list()
                for member in members:
                    if not is_safe(member.filename, top) or not (member.is_file or member.is_directory):
                        raise InputError(
                            f"{archive}: {member.filename!r} would not stay inside {top}/, or is a link; nothing of it "
                            "is unpacked, delete the archive"
                        )
                wanted = [m for m in members if m.is_file and PurePosixPath(m.filename).is_relative_to(inside or top)]
                if not wanted:
                    raise InputError(f"{archive}: holds nothing in {inside or top}/; delete the archive")
                total = sum(member.uncompressed for member in wanted)
                _check_disk_for(to, total, archive)
                counter = _Counter(
                    lambda written: progress(f"unpacking {archive.name}, MB", written // MB, total // MB)
                )
                file.extract(place, targets=[member.filename for member in wanted], callback=counter)
        except InputError:
            raise
        except (UnsupportedCompressionMethodError, OSError) as error:
            raise InputError(
                f"{archive}: cannot be unpacked ({in_one_line(error)}); unpack it by hand, with `7z x` in {to}"
            ) from error
        except _DAMAGED as error:
            raise InputError(f"{archive}: is damaged ({in_one_line(error)}); delete it and fetch it again") from error
        return [_moved(Path(place), to, member.filename) for member in wanted]


def is_safe(name: str, top: str) -> bool:
    r"""Whether a member of that name stays inside the folder ``top``, on any system.

    >>> [is_safe(name, "room") for name in ("room/a.txt", "room/../../a", "/room/a", "other/a", "room\\..\\a")]
    [True, False, False, False, False]
    """
    path = PurePosixPath(name)
    return path.parts[:1] == (top,) and ".." not in path.parts and not set(name) & set("\\:\0")


def _check_disk_for(to: Path, needed: int, archive: Path) -> None:
    free = shutil.disk_usage(to).free
    if free < needed:
        raise InputError(
            f"{archive}: unpacked it takes {needed / MB:,.0f} MB, {to} has {free / MB:,.0f} MB free; make room or give "
            f"another {setting('to')}"
        )


def _moved(place: Path, to: Path, name: str) -> Path:
    target = to / name
    target.parent.mkdir(parents=True, exist_ok=True)
    return (place / name).replace(target)
