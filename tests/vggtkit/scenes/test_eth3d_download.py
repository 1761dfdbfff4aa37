"""A scene of ETH3D from a server on this machine to scenes with depth."""

import hashlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import py7zr
import pytest

from tests.vggtkit.scenes.serving import Site, serving
from vggtkit.core.errors import InputError
from vggtkit.scenes import eth3d_download
from vggtkit.scenes.eth3d import read_eth3d
from vggtkit.scenes.eth3d_download import WITH_DEPTH, WITHOUT_DEPTH, archives_of, download_eth3d
from vggtkit.scenes.unpack import unpack_archive

CAMERA = "1 PINHOLE 8 6 5 5 4 3\n"
LENS = "1 THIN_PRISM_FISHEYE 8 6 5 5 4 3 0 0 0 0 0 0 0 0\n"
POSE = "1 1 0 0 0 0 0 0 1 {}/DSC_1.JPG\n\n"
CONTENT = {
    "undistorted": {
        "room/dslr_calibration_undistorted/cameras.txt": CAMERA,
        "room/dslr_calibration_undistorted/images.txt": POSE.format("dslr_images_undistorted"),
        "room/images/dslr_images_undistorted/DSC_1.JPG": "a picture",
    },
    "depth": {"room/ground_truth_depth/dslr_images/DSC_1.JPG": "0" * 4 * 48},
    "jpg": {
        "room/dslr_calibration_jpg/cameras.txt": LENS,
        "room/dslr_calibration_jpg/images.txt": POSE.format("dslr_images"),
        "room/images/dslr_images/DSC_1.JPG": "a large picture that nobody needs",
    },
}


def packed(files: dict[str, str]) -> bytes:
    with io.BytesIO() as buffer:
        with py7zr.SevenZipFile(buffer, "w") as archive:
            for name, text in files.items():
                archive.writestr(text, name)
        return buffer.getvalue()


@pytest.fixture(scope="module")
def archives() -> dict[str, bytes]:
    return {f"/room_dslr_{kind}.7z": packed(files) for kind, files in CONTENT.items()}


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, archives: dict[str, bytes]) -> Iterator[Site]:
    """ETH3D with one scene, ``room``."""
    with serving() as site:
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr(eth3d_download, "SITE", site.url)
        monkeypatch.setattr(eth3d_download, "WITH_DEPTH", ("room",))
        site.files |= archives
        yield site


def downloaded(to: Path, *, with_depth: bool = True) -> tuple[Path, list[str]]:
    said: list[str] = []
    folder, _ = download_eth3d("room", to, with_depth=with_depth, progress=lambda *_: None, say=said.append)
    return folder, said


def files_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder.parent).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "downloaded.json"
    }


@pytest.mark.usefixtures("site")
def test_a_scene_arrives_ready_to_read(tmp_path: Path) -> None:
    folder, said = downloaded(tmp_path / "data")
    wanted = CONTENT["undistorted"] | CONTENT["depth"] | CONTENT["jpg"]
    del wanted["room/images/dslr_images/DSC_1.JPG"]
    assert files_of(folder) == wanted
    (recording,) = read_eth3d(folder)
    assert recording.frames[0].depth is not None
    assert len(said) == 1
    assert "fetching 0.0 MB from" in said[0]
    assert "room_dslr_depth.7z" in said[0]


@pytest.mark.usefixtures("site")
def test_what_came_is_recorded_with_its_checksum(tmp_path: Path, archives: dict[str, bytes]) -> None:
    folder, _ = downloaded(tmp_path)
    record = json.loads((folder / "downloaded.json").read_text())
    assert {name: (each["size_bytes"], each["sha256"]) for name, each in record.items()} == {
        path[1:]: (len(content), hashlib.sha256(content).hexdigest()) for path, content in archives.items()
    }


def test_cameras_alone_are_one_archive(site: Site, tmp_path: Path) -> None:
    folder, _ = downloaded(tmp_path, with_depth=False)
    assert files_of(folder) == CONTENT["undistorted"]
    site.asked.clear()
    downloaded(tmp_path)
    assert {path for _, path, _ in site.asked} == {"/room_dslr_depth.7z", "/room_dslr_jpg.7z"}


def test_what_is_there_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    downloaded(tmp_path)
    site.asked.clear()
    _, said = downloaded(tmp_path)
    assert site.asked == []
    assert "already" in said[0]


def test_archives_put_there_by_hand_need_no_network(site: Site, tmp_path: Path, archives: dict[str, bytes]) -> None:
    site.files.clear()
    for path, content in archives.items():
        (tmp_path / path[1:]).write_bytes(content)
    folder, _ = downloaded(tmp_path)
    assert site.asked == []
    assert read_eth3d(folder)


def test_an_interruption_leaves_no_scene_and_the_next_run_goes_on(site: Site, tmp_path: Path) -> None:
    site.break_after = 100
    with pytest.raises(InputError, match="100 bytes came"):
        downloaded(tmp_path)
    assert not (tmp_path / "room").exists()
    site.break_after = None
    folder, _ = downloaded(tmp_path)
    assert ("GET", "/room_dslr_undistorted.7z", "bytes=100-") in site.asked
    assert read_eth3d(folder)


def test_a_missing_archive_is_said_before_anything_is_fetched(site: Site, tmp_path: Path) -> None:
    del site.files["/room_dslr_jpg.7z"]
    with pytest.raises(InputError, match=r"room_dslr_jpg.7z: the server answers 404.*by hand, put them into"):
        downloaded(tmp_path)
    assert {method for method, _, _ in site.asked} == {"HEAD"}


@pytest.mark.parametrize("spoil", ["truncated", "flipped", "text"])
def test_a_damaged_archive_is_not_unpacked(site: Site, tmp_path: Path, spoil: str) -> None:
    whole = site.files["/room_dslr_undistorted.7z"]
    middle = 40
    spoiled = {
        "truncated": whole[:-20],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :],
        "text": b"<html>moved</html>",
    }
    site.files["/room_dslr_undistorted.7z"] = spoiled[spoil]
    with pytest.raises(
        InputError, match=r"room_dslr_undistorted.7z: is damaged .*delete it and fetch it again"
    ) as caught:
        downloaded(tmp_path)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {path[1:] for path in site.files}


@pytest.mark.parametrize("name", ["other/a.txt", "a.txt", "room\\..\\a.txt", "room/c:a.txt"])
def test_members_outside_the_scene_are_refused(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "evil.7z"
    archive.write_bytes(packed({"room/fine.txt": "fine", name: "evil"}))
    with pytest.raises(InputError, match="would not stay inside room/"):
        unpack_archive(archive, tmp_path, "room", progress=lambda *_: None)
    assert [path.name for path in tmp_path.iterdir()] == ["evil.7z"]


@pytest.mark.parametrize("name", ["../a.txt", "room/../../a.txt", "/tmp/a.txt"])
def test_climbing_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """py7zr does not write such archives, so the name is put into a whole one."""
    archive = tmp_path / "evil.7z"
    archive.write_bytes(packed({"room/fine.txt": "fine"}))
    members = py7zr.SevenZipFile.list

    def renamed(file: py7zr.SevenZipFile) -> list[py7zr.FileInfo]:
        found = members(file)
        found[0].filename = name
        return found

    monkeypatch.setattr(py7zr.SevenZipFile, "list", renamed)
    with pytest.raises(InputError, match="would not stay inside room/"):
        unpack_archive(archive, tmp_path, "room", progress=lambda *_: None)


def test_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with py7zr.SevenZipFile(tmp_path / "evil.7z", "w") as archive:
        archive.write(tmp_path / "link", "room/link")
    with pytest.raises(InputError, match="or is a link"):
        unpack_archive(tmp_path / "evil.7z", tmp_path, "room", progress=lambda *_: None)


@pytest.mark.parametrize(
    "error",
    [py7zr.UnsupportedCompressionMethodError(b"", "BCJ2"), OSError(28, "No space left on device")],
    ids=["kind", "disk"],
)
def test_what_is_whole_but_cannot_be_unpacked_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    (tmp_path / "room.7z").write_bytes(packed({"room/a.txt": "a"}))
    monkeypatch.setattr(py7zr.SevenZipFile, "extract", fail)
    with pytest.raises(InputError, match=r"room.7z: cannot be unpacked \(.*(BCJ2|No space).*7z x"):
        unpack_archive(tmp_path / "room.7z", tmp_path, "room", progress=lambda *_: None)
    assert [path.name for path in tmp_path.iterdir()] == ["room.7z"]


def test_no_room_is_said_before_anything_is_fetched(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = eth3d_download.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(eth3d_download.shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(InputError, match=r"--to .*: has 0 MB free"):
        downloaded(tmp_path)
    assert {method for method, _, _ in site.asked} == {"HEAD"}


def test_without_py7zr_nothing_is_fetched(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "vggtkit.scenes.unpack")
    monkeypatch.setitem(sys.modules, "py7zr", None)
    with pytest.raises(InputError, match=r"need py7zr: install it with .*vggt-mixedprec\[eth3d\]"):
        downloaded(tmp_path)
    assert site.asked == []


def test_scenes_are_those_of_eth3d() -> None:
    assert len(set(WITH_DEPTH + WITHOUT_DEPTH)) == 13 + 12
    assert [archive.kind for archive in archives_of("courtyard", with_depth=True)] == ["undistorted", "depth", "jpg"]
    assert (
        archives_of("courtyard", with_depth=True)[0].url == "https://www.eth3d.net/data/courtyard_dslr_undistorted.7z"
    )
    with pytest.raises(InputError, match=r"no scene 'garden': with depth there are courtyard, .* without botanical_"):
        archives_of("garden", with_depth=True)
