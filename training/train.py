"""Train the bundled network on rendered rooms: ``python -m training.train --minutes 60``.

The schedule follows wall-clock time, so that the learning rate has come down when the time is over: first single
pictures for depth and points, which needs no correspondence, then several views for all heads. Every few minutes a
checkpoint is written; the same command goes on from it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.config import PRESETS
from model.vggt import VGGT
from scenes.synthetic import render_batch
from sensitivity.atomic import replacing
from training.losses import WEIGHTS, camera_loss, dense_losses, track_losses

VIEWS = (2, 3, 4)
SINGLE_SHARE = 0.45  # of the time with single pictures; depth is learnt several times faster without other heads
FRAMES_PER_STEP = 24
TRACK_EVERY = 3  # steps; the tracker doubles the cost of a step
BFLOAT16_SHARE = 0.8  # of the time; the rest is float32, for the last digits
PEAK_RATE, FINAL_SHARE, WARMUP_SHARE = 6e-4, 0.02, 0.02
CHECKPOINT_SECONDS = 180
SEED_STRIDE = 1_000_003


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    scenes: int = 0
    seconds: float = 0.0


def fresh(seed: int) -> VGGT:
    """A ``tiny`` VGGT whose residual gains and camera tokens start large enough to learn from in a short training."""
    torch.manual_seed(seed)
    model = VGGT(PRESETS["tiny"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.5)
            elif name.endswith(("camera_token", "register_token", "register_tokens", "cls_token")):
                parameter.normal_(std=0.2)
            elif name.endswith("pos_embed"):
                parameter.normal_(std=0.05)
            elif name.endswith(("flow_head.weight", "pose_branch.fc2.weight")):
                parameter.mul_(0.1)
        model.camera_head.pose_branch.fc2.bias[6] = 0.25  # four iterations add up to the identity rotation
        model.camera_head.pose_branch.fc2.bias[7:] = 0.25
    return model


def learning_rate(share: float) -> float:
    """Rate at a share of the time from 0 to 1: linear warm-up, then a cosine to `FINAL_SHARE` of the peak."""
    if share < WARMUP_SHARE:
        return PEAK_RATE * (share + 1e-3) / WARMUP_SHARE
    phase = min(1.0, (share - WARMUP_SHARE) / (1 - WARMUP_SHARE))
    return PEAK_RATE * (FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * phase)))


def batch_of(step: int, seed: int, share: float) -> dict[str, Tensor]:
    """The batch of a step: single pictures first, then several views that move apart as training goes on."""
    views = 1 if share < SINGLE_SHARE else VIEWS[step % len(VIEWS)]
    number = (seed * SEED_STRIDE + step) % 2**30
    return render_batch(
        FRAMES_PER_STEP // views,
        views,
        (64, 64),
        generator_seed=number,
        baseline=0.3 + 0.7 * min(1.0, max(0.0, 2 * (share - SINGLE_SHARE))),
        supersample=1 + step % 2,
    )


def step_losses(model: VGGT, batch: dict[str, Tensor], *, tracks: bool, bfloat16: bool) -> dict[str, Tensor]:
    """Losses of one step; with single pictures those of the depth and point heads alone."""
    images, size = batch["images"], (batch["images"].shape[-2], batch["images"].shape[-1])
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        tokens = model.aggregator(images)
        depth, points = model.depth_head.predict(tokens, size), model.point_head.predict(tokens, size)
        poses = model.camera_head(tokens[model.config.aggregator_depth - 1]) if images.shape[1] > 1 else []
        track = model.track_head(tokens, size, batch["query_points"]) if tracks and poses else None
    found = dense_losses((depth[0].float(), depth[1].float()), (points[0].float(), points[1].float()), batch)
    if poses:
        found["camera"] = camera_loss([pose.float() for pose in poses], batch)
    if track:
        found |= track_losses([t.float() for t in track[0]], track[1].float(), track[2].float(), batch)
    return found


def train(folder: Path, minutes: float, seed: int) -> None:
    """Train for so many minutes in all, resuming from ``folder`` when it holds a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    model, progress = fresh(seed), Progress()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub does not know it
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}], betas=(0.9, 0.98)
    )
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        progress = Progress(**state["progress"])

    saved = time.monotonic()
    average: dict[str, float] = {}
    while progress.seconds < 60 * minutes:
        begun = time.monotonic()
        share = progress.seconds / (60 * minutes)
        batch = batch_of(progress.step, seed, share)
        parts = step_losses(model, batch, tracks=progress.step % TRACK_EVERY == 0, bfloat16=share < BFLOAT16_SHARE)
        loss = sum((WEIGHTS[name] * part for name, part in parts.items()), start=torch.zeros(()))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(share)
        if norm.isfinite():
            optimizer.step()
        progress.step += 1
        progress.scenes += len(batch["images"])
        progress.seconds += time.monotonic() - begun
        for name, part in parts.items():
            average[name] = 0.98 * average.get(name, part.item()) + 0.02 * part.item()
        if progress.step % 50 == 0:
            _log(folder, progress, average, float(norm))
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save(checkpoint, model, optimizer, progress)
            saved = time.monotonic()
    _save(checkpoint, model, optimizer, progress)


def _save(path: Path, model: VGGT, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "progress": vars(progress)}
    with replacing(path) as temporary:
        torch.save(state, temporary)


def _log(folder: Path, progress: Progress, average: dict[str, float], norm: float) -> None:
    row = vars(progress) | {"rate_scenes": progress.scenes / progress.seconds, "gradient": norm} | average
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps({k: round(v, 5) for k, v in row.items()}) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/training"))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    train(arguments.folder, arguments.minutes, arguments.seed)
