"""Go on with the bundled network in rooms and varied worlds: ``python -m training.finetune --folder F --steps 60000``.

The learning rate rises, stays, and comes down over the last third of the steps, so the same command with other
``--steps`` goes on from a checkpoint as long as it has not begun to come down. Whatever a step draws follows from its
number, and a checkpoint is written every few minutes: a run that is killed at any moment goes on from there as if
nothing had been, and its log is cut back to it (only its running means of losses begin anew). Rooms are every second
step, so that less of them is lost. Every `HELD_OUT_STEPS` the running average of the weights is judged on rooms and
on worlds that are never trained on, and, for the record, on a recording: ``--report rgbd:DIR``.
``torchrun --nproc-per-node 2 -m training.finetune`` shares each step between two processes.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from training.export import TRAINING_LOG
from training.heldout import figures_on
from training.train import CHECKPOINT_SECONDS, LOG_STEPS, SEED_STRIDE, Training, place
from training.worlds import make_bank, world_batch, world_scenes
from vggtkit.core.atomic import replacing
from vggtkit.model.config import BUNDLED
from vggtkit.model.loading import WEIGHTS_FILE, load_vggt
from vggtkit.scenes.loading import load_scenes
from vggtkit.scenes.scene import Scene
from vggtkit.scenes.source import SceneSource, parse_scenes
from vggtkit.scenes.synthetic import render_batch, synthetic_scenes

PEAK_RATE, FINAL_SHARE = 4e-4, 0.01
WARMUP_STEPS = 300
COOLING_SHARE = 1 / 3  # of the steps, at the end
PIXELS_PER_STEP = 32 * 64 * 64
ROOM_SIZE = (64, 64)  # that rooms are judged at: six in ten of their steps
SIZES = ((40, 64), (40, 64), (48, 64), (48, 64), (64, 64), (64, 48), (64, 96), (96, 96))
"""Height and width, equally often. Pictures of cameras are 3:2 or 4:3, mostly wide; larger ones teach more places."""
VIEWS = (2, 3, 4, 4, 4, 6)
HEADS: tuple[str | None, ...] = ("depth", "depth", "depth", "points", "track", None)
ROOMS_EVERY = 2
SUPERSAMPLED_EVERY = 8  # steps, by lot: it takes four times as long to render
BANK_STEPS = 1500  # after which surfaces show other pictures
PICTURES = 256  # in a bank
HELD_OUT_STEPS = 1000
HELD_OUT_SCENES = 48
HELD_OUT_VIEWS = 4


@dataclass(frozen=True)
class Turn:
    """What one step does.

    Attributes:
        rooms: rooms, in the place of worlds.
        size: height and width in pixels.
        views: of each scene.
        head: one of `training.train.HEADS`, or none.
        supersample: samples of colour per pixel and axis.
    """

    rooms: bool
    size: tuple[int, int]
    views: int
    head: str | None
    supersample: int


def turn_of(step: int, seed: int) -> Turn:
    """What a step does; rooms mostly have the size that they are judged at.

    >>> turn_of(3, 0) == turn_of(3, 0), turn_of(3, 0).rooms, turn_of(4, 0).rooms
    (True, False, True)
    """
    rng = np.random.default_rng([seed, step, SEED_STRIDE])
    rooms = step % ROOMS_EVERY == 0
    size = ROOM_SIZE if rooms and rng.random() < 0.6 else SIZES[rng.integers(len(SIZES))]
    supersample = 2 if rng.integers(SUPERSAMPLED_EVERY) == 0 else 1
    return Turn(rooms, size, VIEWS[rng.integers(len(VIEWS))], HEADS[rng.integers(len(HEADS))], supersample)


def batch_of(step: int, seed: int, turn: Turn) -> dict[str, Tensor]:
    """This process' part of a step's batch: as many scenes as have `PIXELS_PER_STEP` together."""
    rank, workers = place()
    count = max(1, PIXELS_PER_STEP // (turn.views * turn.size[0] * turn.size[1] * workers))
    if turn.rooms:
        number = (seed * SEED_STRIDE + step * workers + rank) % 2**30
        return render_batch(count, turn.views, turn.size, generator_seed=number, supersample=turn.supersample)
    bank = make_bank(seed * SEED_STRIDE + step // BANK_STEPS, PICTURES)
    draws = (seed, step, rank)
    return world_batch(count, turn.views, turn.size, seed=draws, bank=bank, supersample=turn.supersample)


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, constant, then half a cosine to `FINAL_SHARE` of the peak over the last `COOLING_SHARE`."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    cooled = max(0.0, 1 - (1 - step / steps) / COOLING_SHARE)
    return PEAK_RATE * warm * (FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * min(1.0, cooled))))


class Judge:
    """Judges weights on scenes that are never trained on.

    Args:
        report: a recording as ``--scenes`` takes it, judged for the record alone; or "".
        scenes: rooms, and worlds.
    """

    def __init__(self, report: str, scenes: int = HELD_OUT_SCENES) -> None:
        self.model = load_vggt("tiny").eval()
        side, views = self.model.config.img_size, HELD_OUT_VIEWS
        self.scenes: dict[str, list[Scene]] = {
            "rooms": synthetic_scenes(scenes, views, (side, side), seed=1, split="evaluation"),
            "worlds": world_scenes(scenes, views, (side, side), split="validation", pictures=PICTURES),
        }
        if report:
            kind, folder = parse_scenes(report)
            source = SceneSource(kind, folder, views=views)
            patch = self.model.config.patch_size
            self.scenes["report"] = load_scenes(source, "evaluation", img_size=side, patch_size=patch)

    def __call__(self, weights: dict[str, Tensor]) -> dict[str, dict[str, float]]:
        """`training.heldout.figures_on` of each group of scenes."""
        self.model.load_state_dict(weights)
        return {name: figures_on(self.model, scenes) for name, scenes in self.scenes.items()}


class Log:
    """A file of JSON lines, each with its step."""

    def __init__(self, path: Path, step: int) -> None:
        """Goes on after a step: what a killed run wrote of later ones is taken away."""
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        with replacing(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines if _step_of(line) <= step))

    def write(self, row: dict[str, object]) -> None:
        """Add a line."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _step_of(line: str) -> float:
    """Infinity of a line that was cut off."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return math.inf


def begin(folder: Path, seed: int) -> Training:
    """The bundled network before its first step; a copy of its weights and log is kept for `training.export`.

    The probes, which are not shipped with it, are drawn by the seed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (WEIGHTS_FILE, TRAINING_LOG):
        if place()[0] == 0 and not (folder / name).exists():
            with replacing(folder / name) as temporary:
                shutil.copyfile(BUNDLED / name, temporary)
    torch.manual_seed(seed)
    return Training(load_vggt("tiny").train(), folder)


def finetune(training: Training, steps: int, seed: int, judge: Judge) -> None:
    """Train up to so many steps in all, from the folder's checkpoint if it has one; seconds are of processor time."""
    if training.checkpoint.exists():
        training.load()
    progress, first = training.progress, place()[0] == 0
    log = Log(training.folder / "log.jsonl", progress.step) if first else None
    saved, average = time.monotonic(), dict[str, float]()
    if log and progress.step == 0:
        log.write({"step": 0, "held_out": _rounded(judge(training.averaged))})
    while progress.step < steps:
        begun, step = time.process_time(), progress.step
        turn = turn_of(step, seed)
        parts, norm = training.update(batch_of(step, seed, turn), turn.head, learning_rate(step, steps))
        progress.seconds += time.process_time() - begun
        if log is None:
            continue
        kind = "rooms" if turn.rooms else "worlds"
        for name, part in parts.items():
            key = f"{kind}_{name}"
            average[key] = average.get(key, part.item()) * 0.98 + 0.02 * part.item()
        if progress.step % LOG_STEPS == 0:
            log.write({**_rounded(vars(progress)), "gradient": round(norm, 3), **_rounded(average)})
        if progress.step % HELD_OUT_STEPS == 0 or progress.step == steps:
            log.write({"step": progress.step, "held_out": _rounded(judge(training.averaged))})
        if time.monotonic() - saved > CHECKPOINT_SECONDS or progress.step == steps:
            training.save()
            saved = time.monotonic()


def _rounded(values: dict[str, float] | dict[str, dict[str, float]]) -> dict[str, object]:
    """To four digits; None where there is no number, as JSON has no other."""
    return {
        k: _rounded(v) if isinstance(v, dict) else round(v, 4) if math.isfinite(v) else None for k, v in values.items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/finetune"))
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", default="", help="a recording, such as rgbd:DIR, judged but never trained on")
    arguments = parser.parse_args()
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
    finetune(begin(arguments.folder, arguments.seed), arguments.steps, arguments.seed, Judge(arguments.report))
