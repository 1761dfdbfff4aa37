"""`reconstruct`, through the command line: what it writes, and what it refuses with nothing written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from PIL import Image

import vggtkit.core.atomic
from analysis.reconstruction.folder import INDEX
from mixedprec import apply_plan, load_plan
from tests.analysis.commands.running import Ran, cli, content, the_json
from vggtkit.model import load_vggt
from vggtkit.model.geometry import decode_pose
from vggtkit.scenes import load_photos

FILES = {"views.npz", "points.ply", "overview.png", INDEX, "colmap/cameras.txt", "colmap/images.txt"}
PICTURES = [str(number) for number in range(8)]


def refused(ran: Ran, *fragments: str) -> None:
    """As `assert_refused`; what it would take may have been said before."""
    said = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert (ran.code, ran.out, len(said)) == (2, "", 1), ran.err
    for fragment in fragments:
        assert fragment in said[0]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_the_plan_of_a_run_reconstructs_and_is_compared(
    run: Path, photo_folder: Path, out: Path, model_folder: Path
) -> None:
    """Against the published network's outputs under the same plan, simulated instead of packed."""
    ran = cli("reconstruct", "--images", photo_folder, "--run", run, "--against", "fp32", "--out", out, "--json")
    values = the_json(ran)
    written = content(out)
    assert {f"depth/{name}.png" for name in PICTURES} | {f"previews/{name}.png" for name in PICTURES} <= set(written)
    assert {f"differences/depth/{name}.png" for name in PICTURES} <= set(written)
    assert set(written) >= FILES
    assert "8 pictures in 1 pass: about " in ran.err
    model = load_vggt(model_folder)
    simulated = apply_plan(model, load_plan(run / "plan.json"))
    photos = load_photos(sorted(photo_folder.iterdir()), target_size=32, patch_size=8)
    with torch.no_grad():
        outputs, full = simulated(photos[None]), model(photos[None])
    with np.load(out / "views.npz") as file:
        np.testing.assert_allclose(file["depth"], outputs["depth"][0, ..., 0].numpy(), rtol=1e-5)
        expected = decode_pose(outputs["pose_enc"][0].double(), (24, 32))
        np.testing.assert_allclose(file["extrinsics"], expected[0].numpy(), atol=1e-5)
        np.testing.assert_allclose(file["intrinsics"], expected[1].numpy(), rtol=1e-5)
        step = json.loads((out / "depth" / "scale.json").read_text())["depth_per_step"]
        stored = np.asarray(Image.open(out / "depth" / "3.png")) * step
        np.testing.assert_allclose(stored, file["depth"][3], atol=step)
    difference = (outputs["depth"] - full["depth"]).abs() / full["depth"]
    assert values["differences"]["depth_abs_rel"] == pytest.approx(difference.mean().item(), rel=1e-3)
    assert values["points"] == pytest.approx(8 * 24 * 32 / 2, abs=2)


@pytest.mark.slow
def test_a_checkpoint_reconstructs_as_its_run(run: Path, photo_folder: Path, out: Path, model_folder: Path) -> None:
    """Packed from the run, and from a file alone, whatever the number of pictures in a pass."""
    checkpoint = shutil.move(run / "model-plan.safetensors", out.parent / "small.safetensors")
    asked = ("reconstruct", "--images", photo_folder, "--stride", 2, "--chunk", 3, "--json")
    first = cli(*asked, "--run", run, "--out", out)
    the_json(first)
    assert "has no checkpoint of its plan" in first.err
    assert "CHUNKS OF 3 PICTURES" in first.err
    there = out.parent / "again"
    the_json(cli(*asked, "--checkpoint", checkpoint, "--out", there))
    with np.load(out / "views.npz") as one, np.load(there / "views.npz") as other:
        np.testing.assert_array_equal(one["depth"], other["depth"])
    compared = cli(*asked, "--checkpoint", checkpoint, "--model", model_folder, "--against", "fp32", "--out", there)
    assert the_json(compared)["differences"]["depth_abs_rel"] > 0


def test_no_time_is_forecast_where_a_file_is_written_first(
    run: Path, photo_folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small passes would each write one, and would tell of that time alone."""
    asked = ("reconstruct", "--images", photo_folder, "--run", run, "--out", out)
    assert "s were forecast" in cli(*asked).out
    monkeypatch.setattr("vggtkit.runtime.reference._AsPacked.writes_files", True)
    monkeypatch.setattr("analysis.reconstruction.needs._seconds", None)
    ran = cli(*asked)
    assert "--execute reference first writes a file for every number of pictures" in ran.err
    assert "The passes took" in ran.out
    assert "were forecast" not in ran.out


def test_pictures_that_are_left_out_are_said_in_a_line(model_folder: Path, photo_folder: Path, out: Path) -> None:
    images = Path(shutil.copytree(photo_folder, out.parent / "photos"))
    (images / "gone.jpg").symlink_to(images / "nowhere.jpg")
    ran = cli("reconstruct", "--images", images, "--model", model_folder, "--max-images", 2, "--out", out)
    assert ran.code == 0
    assert [line for line in ran.err.splitlines() if "gone.jpg" in line] == [
        f"{images}: 'gone.jpg' skipped: a link to a file that is not there"
    ]


def test_a_model_alone_runs_in_fp32_and_a_room_is_rendered_for_it(model_folder: Path, out: Path) -> None:
    values = the_json(cli("reconstruct", "--model", model_folder, "--out", out, "--confidence", 0, "--json"))
    assert (values["points"], len(list((out / "depth").glob("*.png")))) == (4 * 32 * 32, 4)


def test_what_cannot_be_asked_for(run: Path, photo_folder: Path, model_folder: Path, out: Path) -> None:
    checkpoint, images = run / "model-plan.safetensors", ("--images", photo_folder)
    asked = {
        ("--run", run, "--checkpoint", checkpoint): "both given",
        ("--model", model_folder, "--execute", "int8"): "no packed weights",
        ("--model", model_folder, "--against", "fp32"): "runs in FP32 itself",
        ("--checkpoint", checkpoint, "--model", model_folder): "a checkpoint needs none",
        ("--run", run, "--against", "fp16"): "give fp32",
        ("--run", run, "--confidence", "100"): "below 100",
        ("--run", run, "--chunk", "1"): "--chunk 1: give a whole number, 2 to",
        ("--run", run, "--resolution", "33"): "--resolution 33 is no multiple of the patch size 8: give 32",
        ("--run", run, "--execute", "magic"): "magic",
        ("--checkpoint", checkpoint, "--model", "tiny", "--against", "fp32"): "was made from weights",
        ("--checkpoint", run / "profile.h5"): "not a complete safetensors file",
        ("--checkpoint", out / "absent.safetensors"): "no such file",
        ("--run", out.parent / "no-run"): "profile",
    }
    for options, reason in asked.items():
        refused(cli("reconstruct", *images, *options, "--out", out), reason)
    refused(cli("reconstruct", "--images", out, "--run", run, "--out", out), "does not exist")
    refused(cli("reconstruct", "--run", run, "--stride", 2, "--out", out), "--stride chooses among pictures")
    assert list(out.parent.glob("out*")) == []


def test_a_folder_of_something_else_is_left_alone(photo_folder: Path, model_folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("months of work")
    asked = ("reconstruct", "--images", photo_folder, "--model", model_folder, "--out")
    refused(cli(*asked, mine), "holds other files", "thesis.txt")
    refused(cli(*asked, mine / "thesis.txt"), "thesis.txt")
    refused(cli(*asked, mine / "thesis.txt" / "below"), "cannot be written to")
    assert content(tmp_path) == {"mine/thesis.txt": b"months of work"}


@pytest.mark.parametrize("head", ["camera", "depth"])
def test_a_plan_without_a_head_is_refused(run: Path, photo_folder: Path, out: Path, head: str) -> None:
    heads = ",".join(name for name in ("camera", "depth", "point") if name != head)
    assert cli("plan", "--run", run, "--heads", heads, "--budget", "60%").code == 0
    refused(cli("reconstruct", "--images", photo_folder, "--run", run, "--out", out), f"without its {head} head")


def test_a_model_that_is_no_vggt_is_refused(photo_folder: Path, out: Path) -> None:
    model = "tests.analysis.commands.other_models:pyramid"
    refused(cli("reconstruct", "--images", photo_folder, "--model", model, "--out", out), "only a VGGT can reconstruct")
    assert not out.exists()


@pytest.fixture(scope="module")
def made(photo_folder: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reconstruction of two pictures."""
    out = tmp_path_factory.mktemp("earlier") / "out"
    asked = ("reconstruct", "--images", photo_folder, "--model", model_folder, "--out", out)
    assert cli(*asked, "--max-images", 2).code == 0
    return out


@pytest.fixture
def earlier(made: Path, photo_folder: Path, model_folder: Path, out: Path) -> tuple[object, ...]:
    """A reconstruction that is there, and a command that makes one of the first and the last picture."""
    shutil.copytree(made, out)
    return "reconstruct", "--images", photo_folder, "--model", model_folder, "--out", out, "--stride", 7


def interrupted(*_arguments: object) -> NoReturn:
    raise KeyboardInterrupt


def full_disk(*_arguments: object) -> NoReturn:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("failure", "code", "place"),
    [
        (interrupted, 130, "analysis.reconstruction.folder.write_overview"),
        (interrupted, 130, "analysis.steps.reconstruction.see"),
        (full_disk, 2, "analysis.reconstruction.folder.write_ply"),
    ],
    ids=["writing", "computing", "full"],
)
def test_what_goes_wrong_leaves_the_earlier_folder(
    earlier: tuple[object, ...], out: Path, monkeypatch: pytest.MonkeyPatch, failure: Callable, code: int, place: str
) -> None:
    before = content(out)
    monkeypatch.setattr(place, failure)
    ran = cli(*earlier)
    assert (ran.code, ran.out) == (code, "")
    assert content(out) == before
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_disk_that_is_full_when_it_is_flushed(
    earlier: tuple[object, ...], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(out)
    monkeypatch.setattr(vggtkit.core.atomic.os, "fsync", full_disk)
    refused(cli(*earlier), "cannot write", "No space left on device")
    assert content(out) == before


def test_another_reconstruction_takes_the_place_of_the_earlier_one(earlier: tuple[object, ...], out: Path) -> None:
    assert cli(*earlier).code == 0
    assert sorted(path.name for path in (out / "depth").glob("*.png")) == ["0.png", "7.png"]


def test_a_picture_that_vanishes_meanwhile(
    earlier: tuple[object, ...], out: Path, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "fleeting"
    shutil.copytree(photo_folder, folder)
    monkeypatch.setattr(
        "analysis.steps.reconstruction.join", lambda parts: (folder.joinpath("7.png").unlink(), (parts[0], []))[1]
    )
    before = content(out)
    refused(cli("reconstruct", "--images", folder, *earlier[3:]), "7.png", "does not exist")
    assert content(out) == before


def test_a_damaged_picture_is_named(photo_folder: Path, model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(photo_folder, folder)
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:200])
    ran = cli("reconstruct", "--images", folder, "--model", model_folder, "--out", tmp_path / "out")
    refused(ran, "3.png", "repair or remove it")
    assert not (tmp_path / "out").exists()
