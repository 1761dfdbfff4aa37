"""Fetching a file from a server that breaks off, lies about sizes, or is not there."""

import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.vggtkit.scenes.serving import Site, serving
from vggtkit.core.errors import InputError
from vggtkit.scenes import fetch as module
from vggtkit.scenes.fetch import fetch, look_up

BODY = np.random.default_rng(0).bytes(100_000)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "CHUNK", 1000)
    with serving() as site:
        site.files["/a.7z"] = BODY
        yield site


def fetched(site: Site, path: Path) -> list[tuple[str, int, int]]:
    told: list[tuple[str, int, int]] = []
    fetch(look_up(f"{site.url}/a.7z"), path, lambda *step: told.append(step))
    return told


def only(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_arrives_whole_and_progress_ends_at_its_size(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MB", 1000)
    told = fetched(site, tmp_path / "a.7z")
    assert only(tmp_path) == {"a.7z": BODY}
    assert [done for _, done, _ in told] == list(range(1, 101))
    assert {(stage, total) for stage, _, total in told} == {("a.7z, MB", 100)}


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on_where_it_stopped(site: Site, tmp_path: Path, ranges: bool) -> None:
    """From a server without ranges it starts anew, and is whole all the same."""
    site.break_after, site.ranges = 30_000, ranges
    with pytest.raises(InputError, match=r"30,000 bytes came of 100,000; run the command again, it goes on"):
        fetched(site, tmp_path / "a.7z")
    assert only(tmp_path)["a.7z.part"] == BODY[:30_000]
    assert "a.7z" not in only(tmp_path)
    site.break_after = None
    fetched(site, tmp_path / "a.7z")
    assert only(tmp_path) == {"a.7z": BODY}
    assert site.asked[-1] == ("GET", "/a.7z", "bytes=30000-")


def test_a_part_of_another_version_is_thrown_away(site: Site, tmp_path: Path) -> None:
    site.break_after = 30_000
    with pytest.raises(InputError):
        fetched(site, tmp_path / "a.7z")
    site.break_after, site.version = None, '"2"'
    site.files["/a.7z"] = BODY[::-1]
    fetched(site, tmp_path / "a.7z")
    assert only(tmp_path) == {"a.7z": BODY[::-1]}


def test_a_part_that_is_whole_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.7z.part").write_bytes(BODY)
    (tmp_path / "a.7z.part.origin").write_text('100000 "1"')
    fetched(site, tmp_path / "a.7z")
    assert only(tmp_path) == {"a.7z": BODY}
    assert [method for method, _, _ in site.asked] == ["HEAD"]


def test_a_killed_run_resumes(site: Site, tmp_path: Path) -> None:
    """Ctrl-C in the middle leaves the part, and the file has no name yet."""

    def interrupt(*_step: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(look_up(f"{site.url}/a.7z"), tmp_path / "a.7z", interrupt)
    assert set(only(tmp_path)) == {"a.7z.part", "a.7z.part.origin"}
    fetched(site, tmp_path / "a.7z")
    assert only(tmp_path) == {"a.7z": BODY}
    assert site.asked[-1][2] == "bytes=1000-"


def test_a_server_that_tells_nothing_is_believed(site: Site, tmp_path: Path) -> None:
    site.tell = False
    assert look_up(f"{site.url}/a.7z").size_bytes is None
    fetched(site, tmp_path / "a.7z")
    assert only(tmp_path) == {"a.7z": BODY}


def test_more_than_promised_is_thrown_away(site: Site, tmp_path: Path) -> None:
    promised = look_up(f"{site.url}/a.7z")
    site.files["/a.7z"] = BODY + b"more"
    with pytest.raises(InputError, match=r"100,004 bytes came of 100,000; .* from the start"):
        fetch(promised, tmp_path / "a.7z", lambda *_: None)
    assert not (tmp_path / "a.7z.part").exists()


def test_a_server_that_sends_without_an_end_is_cut_off(site: Site, tmp_path: Path) -> None:
    """At the first chunk beyond what was promised, not when the disk is full."""
    promised = look_up(f"{site.url}/a.7z")
    site.files["/a.7z"] = BODY * 30
    chunks: list[str] = []
    with pytest.raises(InputError, match=r"101,000 bytes came of 100,000; .* from the start"):
        fetch(promised, tmp_path / "a.7z", lambda stage, *_: chunks.append(stage))
    assert len(chunks) == 101
    assert only(tmp_path).keys() == {"a.7z.part.origin"}


def test_what_is_not_there_is_said(site: Site) -> None:
    with pytest.raises(InputError, match=rf"^{site.url}/b.7z: the server answers 404"):
        look_up(f"{site.url}/b.7z")


def test_no_server_and_no_network_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as gone:
        pass
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(InputError, match=r"cannot be fetched \(.*[Rr]efused"):
        look_up(f"{gone.url}/a.7z")

    def no_name(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    with pytest.raises(InputError, match=r"cannot be fetched \(.*Name or service not known"):
        look_up("https://www.eth3d.net/data/a.7z")
