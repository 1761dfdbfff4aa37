"""Rendered rooms written in the layouts of published test sets."""

import gzip
import json
from pathlib import Path

import numpy as np
from PIL import Image

from vggtkit.scenes import Scene, synthetic_scenes

SIZE = 32
LEFT_UP = np.array([-1.0, -1.0, 1.0])


def rooms(count: int, views: int) -> list[Scene]:
    return synthetic_scenes(count, views, (SIZE, SIZE), seed=7, split="evaluation")


def picture(scene: Scene, view: int) -> Image.Image:
    return Image.fromarray((scene.images[view].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))


def write_co3d(folder: Path, categories: dict[str, dict[str, str]], views: int) -> None:
    """Sequences by category, each in the list ``train`` or ``test``, or ``poor``: in the test list, of low quality."""
    made = iter(rooms(sum(map(len, categories.values())), views))
    for category, sequences in categories.items():
        frames, annotations = [], []
        lists: dict[str, list[tuple[str, int, str]]] = {"train": [], "val": [], "test": []}
        for sequence, where in sequences.items():
            annotations.append({"sequence_name": sequence, "viewpoint_quality_score": 0.4 if where == "poor" else 0.9})
            scene = next(made)
            for view in range(views):
                name = f"{category}/{sequence}/images/frame{view:06}.png"
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                picture(scene, view).save(folder / name)
                lists["test" if where == "poor" else where].append((sequence, view, name))
                frames.append(
                    {
                        "sequence_name": sequence,
                        "frame_number": view,
                        "image": {"path": name, "size": [SIZE, SIZE]},
                        "viewpoint": viewpoint(scene, view),
                    }
                )
        place = folder / category
        for name, entries in (("frame_annotations.jgz", frames), ("sequence_annotations.jgz", annotations)):
            (place / name).write_bytes(gzip.compress(json.dumps(entries).encode()))
        (place / "set_lists").mkdir()
        (place / "set_lists" / "set_lists_fewview_dev.json").write_text(json.dumps(lists))


def viewpoint(scene: Scene, view: int) -> dict[str, object]:
    """As PyTorch3D has cameras: row vectors, x left, y up; one unit is half the shorter side."""
    assert scene.truth is not None
    pose, camera = scene.truth.extrinsics[view].numpy(), scene.truth.intrinsics[view].numpy()
    unit = SIZE / 2
    return {
        "R": (LEFT_UP[:, None] * pose[:, :3]).T.tolist(),
        "T": (LEFT_UP * pose[:, 3]).tolist(),
        "focal_length": [float(camera[0, 0]) / unit, float(camera[1, 1]) / unit],
        "principal_point": [float(unit - 0.5 - camera[axis, 2]) / unit for axis in (0, 1)],
        "intrinsics_format": "ndc_isotropic",
    }


def write_seven_scenes(folder: Path, sequences: int, views: int) -> None:
    """A scene, ``chess``, whose last sequence is for test and the others for training."""
    folder = folder / "chess"
    folder.mkdir(parents=True)
    for name, listed in (("TrainSplit.txt", range(1, sequences)), ("TestSplit.txt", [sequences])):
        (folder / name).write_text("".join(f"sequence{number}\r\n" for number in listed))
    for number, scene in enumerate(rooms(sequences, views)):
        assert scene.truth is not None
        place = folder / f"seq-{number + 1:02}"
        place.mkdir(parents=True)
        np.savetxt(place / "K.txt", scene.truth.intrinsics[0].numpy())
        for view in range(views):
            picture(scene, view).save(place / f"frame-{view:06}.color.png")
            depth = (1000 * scene.truth.depth[view].numpy()).astype(np.uint16)
            Image.fromarray(depth).save(place / f"frame-{view:06}.depth.png")
            pose = np.vstack([scene.truth.extrinsics[view].numpy(), [0, 0, 0, 1]])
            np.savetxt(place / f"frame-{view:06}.pose.txt", np.linalg.inv(pose))
