"""RGB-D folders as people have them: numbers without padding, other endings, frames that lost their pose."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vggtkit.core.errors import InputError
from vggtkit.scenes import SceneSource, load_scenes, notes_on
from vggtkit.scenes.photos import read_photos
from vggtkit.scenes.recording import Recording
from vggtkit.scenes.rgbd import read_rgbd

SIZE = (56, 42)
COUNT = 12


def put_picture(index: int, path: Path) -> None:
    """Picture i is grey of shade 10 i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (10 * index,) * 3).save(path)


def put_depth(index: int, path: Path) -> None:
    """Depth i is 1000 + i millimetres."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(SIZE[::-1], 1000 + index, np.uint16)).save(path, "PNG")


def pose(index: int) -> np.ndarray:
    """Camera i stands at x = i."""
    matrix = np.eye(4)
    matrix[0, 3] = index
    return matrix


def write_plain(
    folder: Path,
    name: str = "{}.png",
    depth: str = "{}.png",
    place: Callable[[int], np.ndarray] = pose,
) -> None:
    for index in range(COUNT):
        put_picture(index, folder / "images" / name.format(index))
        put_depth(index, folder / "depth" / depth.format(index))
    (folder / "K.txt").write_text("60 60 27.5 20.5\n")
    np.savetxt(folder / "poses.txt", [place(index).ravel() for index in range(COUNT)])


def write_seven(
    folder: Path, colour: str = "frame-{:06}.color.png", depth: str = "frame-{:06}.depth.png", count: int = COUNT
) -> None:
    for index in range(count):
        put_picture(index, folder / colour.format(index))
        put_depth(index, folder / depth.format(index))
        np.savetxt(folder / f"frame-{index:06}.pose.txt", pose(index))


def assert_frames(recording: Recording, expected: list[int]) -> None:
    """Each frame has its own picture, depth and pose."""
    shown = []
    for frame in recording.frames:
        with Image.open(frame.image) as image:
            index = round(np.asarray(image)[0, 0, 0] / 10)
        assert frame.extrinsics is not None and frame.depth is not None
        assert np.linalg.inv(frame.extrinsics)[0, 3] == index
        assert frame.depth(np.zeros(1), np.zeros(1), SIZE).tolist() == [(1000 + index) / 1000]
        shown.append(index)
    assert shown == expected


@pytest.mark.parametrize("name", ["{}", "frame{}", "{:04}", "cam0_{}"])
@pytest.mark.parametrize("depth", ["same", "depth_{}", "{:06}"])
def test_numbered_frames_have_their_own_pose(tmp_path: Path, name: str, depth: str) -> None:
    write_plain(tmp_path, f"{name}.png", f"{name if depth == 'same' else depth}.png")
    assert_frames(read_rgbd(tmp_path)[0], list(range(COUNT)))


def test_photographs_and_sequences_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for index in range(COUNT):
        put_picture(index, tmp_path / "photos" / f"{index}.png")
        write_seven(tmp_path / "scene" / f"seq-{index}", count=1)
    scenes = load_scenes(SceneSource("photos", str(tmp_path / "photos")), "calibration", img_size=56, patch_size=14)
    assert [(scene.images[:, 0, 1, 1] * 25.5).round().tolist() for scene in scenes] == [[0, 1], [4, 5], [8, 9]]
    assert [recording.name for recording in read_rgbd(tmp_path / "scene")] == [f"seq-{index}" for index in range(COUNT)]


@pytest.mark.parametrize("ending", ["PNG", "Png"])
def test_upper_case_endings_of_depth_are_endings(tmp_path: Path, ending: str) -> None:
    write_plain(tmp_path, "{}.JPG", f"{{}}.{ending}")
    assert_frames(read_rgbd(tmp_path)[0], list(range(COUNT)))


@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "JPG", "JPEG", "PNG", "webp"])
def test_colour_beside_depth_is_of_any_common_kind(tmp_path: Path, ending: str) -> None:
    write_seven(tmp_path, f"frame-{{:06}}.color.{ending}", "frame-{:06}.depth.png")
    assert_frames(read_rgbd(tmp_path)[0], list(range(COUNT)))


def test_names_of_frames_are_the_same_in_any_case(tmp_path: Path) -> None:
    write_seven(tmp_path, "frame-{}.color.JPG", "frame-{}.depth.PNG", count=3)
    for index in range(3):
        (tmp_path / f"frame-{index:06}.pose.txt").rename(tmp_path / f"frame-{index}.pose.TXT")
    assert_frames(read_rgbd(tmp_path)[0], [0, 1, 2])


def test_two_pictures_of_one_frame_are_refused(tmp_path: Path) -> None:
    write_seven(tmp_path)
    put_picture(3, tmp_path / "frame-000003.color.jpg")
    with pytest.raises(InputError, match=r"frame-000003.color.jpg' and 'frame-000003.color.png' are two pictures"):
        read_rgbd(tmp_path)


@pytest.mark.parametrize("part", ["images", "depth"])
def test_two_files_of_one_stem_are_refused(tmp_path: Path, part: str) -> None:
    """Twelve pictures and twelve depths, but two of a kind have one name."""
    write_plain(tmp_path, "{}.JPG", "{}.png")
    (tmp_path / part / "11.JPG" if part == "images" else tmp_path / part / "11.png").unlink()
    (put_picture if part == "images" else put_depth)(3, tmp_path / part / "3.PNG")
    with pytest.raises(InputError, match="differ in their ending only"):
        read_rgbd(tmp_path)


def spoil_seven(text: str | None) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        write_seven(folder)
        for index in (4, 7):
            path = folder / f"frame-{index:06}.pose.txt"
            path.unlink() if text is None else path.write_text(text)

    return spoil


def spoil_plain(value: float) -> Callable[[Path], None]:
    return lambda folder: write_plain(
        folder, place=lambda index: np.full((4, 4), value) if index in (4, 7) else pose(index)
    )


LOST: dict[str, tuple[Callable[[Path], None], str]] = {
    "7-scenes-missing": (spoil_seven(None), "pose file is missing"),
    "7-scenes-empty": (spoil_seven(""), "pose file is empty"),
    "7-scenes-nan": (spoil_seven("nan nan nan nan\n" * 3 + "0 0 0 1\n"), "not finite"),
    "12-scenes-msvc": (spoil_seven("-1.#INF -1.#INF -1.#INF -1.#INF\n" * 4), "not finite"),
    "12-scenes-ind": (spoil_seven("-1.#IND 1.#QNAN -nan(ind) 0\n" * 4), "not finite"),
    "7-scenes-zeros": (spoil_seven("0 0 0 0\n" * 4), "all zeros"),
    "plain-minus-inf": (spoil_plain(-np.inf), "not finite"),
    "plain-nan": (spoil_plain(np.nan), "not finite"),
    "plain-zeros": (spoil_plain(0.0), "all zeros"),
}


@pytest.mark.parametrize(("write", "reason"), LOST.values(), ids=LOST)
def test_frames_that_lost_their_pose_are_left_out_and_counted(
    tmp_path: Path, write: Callable[[Path], None], reason: str
) -> None:
    write(tmp_path)
    (recording,) = read_rgbd(tmp_path)
    assert_frames(recording, [index for index in range(COUNT) if index not in (4, 7)])
    (note,) = recording.notes
    assert "2 of 12 frames are left out" in note and reason in note and "4" in note.split("the first:")[1]
    lines: list[str] = []
    load_scenes(SceneSource("rgbd", str(tmp_path)), "evaluation", img_size=56, patch_size=14, say=lines.append)
    assert lines == [note] == notes_on(SceneSource("rgbd", str(tmp_path)))


def test_a_recording_without_any_pose_is_refused(tmp_path: Path) -> None:
    write_seven(tmp_path)
    for path in tmp_path.glob("*.pose.txt"):
        path.unlink()
    with pytest.raises(InputError, match=r"no frame with .*: frame-000000.pose.txt: the pose file is missing"):
        read_rgbd(tmp_path)


def write_tum(folder: Path, image: float = 0.0, depth: float = 0.0, path: float = 0.0, scale: float = 1.0) -> None:
    """Lists whose clocks are off by so many seconds; ``scale`` of the unit."""
    lists: dict[str, list[str]] = {"rgb": [], "depth": [], "groundtruth": []}
    for index in range(COUNT):
        put_picture(index, folder / f"rgb/{index}.png")
        put_depth(5 * index + 4000, folder / f"depth/{index}.png")
        time = 1305031452 + index / 30
        lists["rgb"].append(f"{(time + image) * scale:.6f} rgb/{index}.png")
        lists["depth"].append(f"{(time + depth) * scale:.6f} depth/{index}.png")
        lists["groundtruth"].append(f"{(time + path) * scale:.6f} {index} 0 0 0 0 0 1")
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("# head\n" + "\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("clocks", "culprit", "gap"),
    [
        ({"path": 100}, "groundtruth.txt", 100 - 11 / 30),
        ({"path": -3600}, "groundtruth.txt", 3600 - 11 / 30),
        ({"depth": 5}, "depth.txt", 5 - 11 / 30),
        ({"image": 0.03 + 11 / 30}, "depth.txt", 0.03),
        ({"depth": 0.004, "scale": 1000}, "depth.txt", 4),
        ({"path": 0.004, "scale": 1e9}, "groundtruth.txt", 4e6),
    ],
)
def test_clocks_that_never_meet_are_named_with_their_gap_and_the_limit(
    tmp_path: Path, clocks: dict[str, float], culprit: str, gap: float
) -> None:
    write_tum(tmp_path, **clocks)
    with pytest.raises(InputError, match=rf"rgb.txt \(.* and {culprit} \(.* the limit is 0.02 s") as caught:
        read_rgbd(tmp_path)
    said = float(str(caught.value).split(") are ")[1].split(" s apart")[0])
    assert said == pytest.approx(gap, rel=1e-3)
    assert "\n" not in str(caught.value)


def test_tum_pictures_without_a_partner_are_counted(tmp_path: Path) -> None:
    write_tum(tmp_path)
    lines = (tmp_path / "groundtruth.txt").read_text().splitlines()
    (tmp_path / "groundtruth.txt").write_text("\n".join(lines[:4]))
    (recording,) = read_rgbd(tmp_path)
    assert [frame.image.name for frame in recording.frames] == ["0.png", "1.png", "2.png"]
    assert "9 of 12 frames are left out, no pose within 0.02 s of its time" in recording.notes[0]


def test_two_tum_pictures_do_not_share_a_depth_or_a_pose(tmp_path: Path) -> None:
    """A colour camera twice as fast as the depth camera: every depth is of the picture nearest in time."""
    write_tum(tmp_path)
    extra = []
    for index in range(COUNT):
        time = float((tmp_path / "rgb.txt").read_text().splitlines()[1 + index].split()[0])
        put_picture(20, tmp_path / f"rgb/later-{index}.png")
        extra.append(f"{time + 0.012:.6f} rgb/later-{index}.png")
    with (tmp_path / "rgb.txt").open("a") as file:
        file.write("\n".join(extra) + "\n")
    (recording,) = read_rgbd(tmp_path)
    assert_frames(recording, list(range(COUNT)))
    assert "12 of 24 frames are left out, its depth belongs to a picture nearer in time" in recording.notes[0]


def test_accents_are_letters_however_a_system_stores_them(tmp_path: Path) -> None:
    """In one letter they come after z, taken apart (as macOS does) before f: depth must not go to another picture."""
    names = ["zoo", "\u00e9t\u00e9", "fin"]
    for index, name in enumerate(sorted(names)):
        put_picture(index, tmp_path / "images" / f"{unicodedata.normalize('NFC', name)}.png")
        put_depth(index, tmp_path / "depth" / f"{unicodedata.normalize('NFD', name)}.png")
    (tmp_path / "K.txt").write_text("60 60 27.5 20.5\n")
    np.savetxt(tmp_path / "poses.txt", [pose(index).ravel() for index in range(3)])
    (recording,) = read_rgbd(tmp_path)
    assert_frames(recording, [0, 1, 2])


@pytest.mark.parametrize("text", ["0.9 1.2 0.5 0.5", "0.9 0 0.5\n0 1.2 0.5\n0 0 1"])
def test_intrinsics_in_parts_of_the_picture_are_refused(tmp_path: Path, text: str) -> None:
    write_plain(tmp_path)
    (tmp_path / "K.txt").write_text(text)
    with pytest.raises(InputError, match=r"focal lengths of 0.9 and 1.2, which look like parts .* give pixels"):
        read_rgbd(tmp_path)


def test_depth_of_another_kind_is_named(tmp_path: Path) -> None:
    write_plain(tmp_path)
    for path in (tmp_path / "depth").iterdir():
        path.rename(path.with_suffix(".TIFF"))
    with pytest.raises(InputError, match=r"12 pictures but 0 depth PNGs: .* of 16 bits; not read are 12 \.tiff"):
        read_rgbd(tmp_path)


@pytest.mark.parametrize("target", ["gone.png", "2.png"], ids=["dangling", "loop"])
def test_links_that_lead_nowhere_are_left_out_and_counted(tmp_path: Path, target: str) -> None:
    for index in range(4):
        put_picture(index, tmp_path / f"{index}.png")
    (tmp_path / "2.png").unlink()
    (tmp_path / "2.png").symlink_to(target)
    (recording,) = read_photos(tmp_path)
    assert [frame.image.name for frame in recording.frames] == ["0.png", "1.png", "3.png"]
    assert recording.notes == (f"{tmp_path}: '2.png' skipped: a link to a file that is not there",)
