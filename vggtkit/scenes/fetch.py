"""One file over HTTP: looked up first, fetched into ``.part``, taken up again where it stopped."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggtkit.core.errors import InputError
from vggtkit.core.provenance import Progress

TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 20
MB = 10**6
_NO_HEAD = (405, 501)  # the server answers GET only


@dataclass(frozen=True)
class Remote:
    """What a server tells about a file.

    Attributes:
        url: where it is.
        size_bytes: None where the server does not tell.
        version: entity tag, or else date of the last change; "" where it tells neither.
    """

    url: str
    size_bytes: int | None
    version: str


def look_up(url: str) -> Remote:
    """Ask for a file's size and version without fetching it.

    Raises:
        InputError: the server cannot be reached, or has no such file.
    """
    try:
        with _open(url, method="HEAD") as answer:
            size = answer.headers["Content-Length"]
            version = answer.headers["ETag"] or answer.headers["Last-Modified"] or ""
            return Remote(url, int(size) if size else None, version)
    except urllib.error.HTTPError as error:
        if error.code in _NO_HEAD:
            return Remote(url, None, "")
        raise _refused(url, error) from error
    except (OSError, http.client.HTTPException) as error:
        raise _refused(url, error) from error


def fetch(remote: Remote, path: Path, progress: Progress) -> None:
    """Fetch a file; it has its name only when it is whole.

    What arrives goes to ``<name>.part``. A part of the same size and version is taken up where it stopped, where the
    server can (HTTP range requests); any other is started anew.

    Args:
        remote: what `look_up` found.
        path: the file; its folder is there.
        progress: called with megabytes.

    Raises:
        InputError: the connection broke (the part stays), or what came is not as large as promised.
    """
    part, origin = (path.with_name(path.name + ending) for ending in (".part", ".part.origin"))
    promised = f"{remote.size_bytes} {remote.version}"
    if not origin.exists() or origin.read_text(encoding="utf-8") != promised:
        part.unlink(missing_ok=True)
        origin.write_text(promised, encoding="utf-8")
    if _size(part) != remote.size_bytes:
        try:
            _receive(remote, part, progress)
        except (OSError, http.client.HTTPException) as error:
            raise _refused(remote.url, error, _size(part)) from error
    arrived = _size(part)
    if remote.size_bytes is not None and arrived != remote.size_bytes:
        if arrived > remote.size_bytes:
            part.unlink()
        raise InputError(
            f"{remote.url}: {arrived:,} bytes came of {remote.size_bytes:,}; run the command again, "
            f"{'from the start' if arrived > remote.size_bytes else 'it goes on from there'}"
        )
    part.replace(path)
    origin.unlink()


def _receive(remote: Remote, part: Path, progress: Progress) -> None:
    """Append what is missing, or write all where the server sends all; cut off what is more than was promised."""
    start = _size(part)
    with _open(remote.url, {"Range": f"bytes={start}-"} if start else {}) as answer:
        goes_on = answer.status == http.client.PARTIAL_CONTENT
        if goes_on and not (answer.headers["Content-Range"] or "").startswith(f"bytes {start}-"):
            raise http.client.HTTPException(f"not the range asked for: {answer.headers['Content-Range']}")
        done = start if goes_on else 0
        with part.open("ab" if goes_on else "wb") as file:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress(f"{part.stem}, MB", done // MB, (remote.size_bytes or done) // MB)
                if remote.size_bytes is not None and done > remote.size_bytes:
                    return  # a server may send without an end, and the disk has one


def _open(url: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Any:  # noqa: ANN401 - urllib's own
    own = {"User-Agent": "vggt-mixedprec", "Accept-Encoding": "identity"}
    return urllib.request.urlopen(
        urllib.request.Request(url, headers=own | dict(headers or {}), method=method), timeout=TIMEOUT
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _refused(url: str, error: Exception, part_bytes: int = 0) -> InputError:
    """What went wrong, in one line."""
    if isinstance(error, urllib.error.HTTPError):
        return InputError(f"{url}: the server answers {error.code} {error.reason}")
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    state = f"; {part_bytes:,} bytes are kept, the next run goes on from there" if part_bytes else ""
    return InputError(f"{url}: cannot be fetched ({str(reason) or type(error).__name__}){state}")
