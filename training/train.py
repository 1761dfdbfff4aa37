"""Train the bundled network on rendered rooms: ``python -m training.train --minutes 90``.

The schedule follows wall-clock time, so that the learning rate has come down when the time is over. First the trunk and
the camera head learn to match: some attention is shown the true correspondences, linear probes read displacements,
points and depths off the tokens, and poses are judged by the angles between views. Then the dense heads and the tracker
take turns beside that. Every few minutes a checkpoint is written; the same command goes on from it. What is shipped is
the running average of the weights. ``torchrun --nproc-per-node 2 -m training.train`` shares each step between two
processes, one core each.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.attention import written_out
from training.correspondence import matching_patches
from training.losses import (
    WEIGHTS,
    camera_loss,
    depth_loss,
    feature_loss,
    match_loss,
    points_loss,
    probe_losses,
    relative_loss,
    track_losses,
)
from training.probes import Probes
from vggtkit.core.atomic import replacing
from vggtkit.model.config import PRESETS
from vggtkit.model.loading import load_vggt
from vggtkit.model.vggt import VGGT
from vggtkit.runtime.kernels import bfloat16_gain
from vggtkit.scenes.synthetic import render_batch

MATCH_SHARE = 0.45  # of the time without the dense heads and the tracker
PAIRS_SHARE = 0.08  # of the time with two views, to begin with
VIEWS = (2, 3, 4, 4, 4, 4)
FRAMES_PER_STEP = 48
HEADS = ("depth", "points", "depth", "track")  # they take turns
TRACKED = 3  # the tracker, which costs as much as all the rest, sees every third scene of its batch
MATCHED_BLOCKS = (1, 2, 3)  # global blocks whose first attention head is shown the correspondences
PEAK_RATE, FINAL_SHARE, WARMUP_SHARE = 8e-4, 0.01, 0.01
AVERAGE_DECAY = 0.998
STEADY = 200.0  # a hundred times what else goes into the tracker's layer norm
CHECKPOINT_SECONDS = 180
LOG_STEPS = 50
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


@torch.no_grad()
def steady(model: VGGT) -> None:
    """Take the sines of displacements away from the tracker, which makes it a smooth function of its inputs.

    As published, they run at up to 1000 radians a pixel, so a hundredth of a pixel changes all of them: noise, through
    which every rounding error anywhere in the network moves the tracks. The displacement itself is also given, and so
    is what it leads to, the correlation. The sines must not come in through the statistics of the layer norm either:
    two constants on their channels hold its variance, and weights that sum to zero do not see its mean.
    """
    tracker, sines = model.track_head.tracker, model.config.track_features
    norm, linear = tracker.updateformer.input_norm, tracker.updateformer.input_transform
    linear.weight[:, :sines] = 0
    linear.weight[:, sines:] -= linear.weight[:, sines:].mean(1, keepdim=True)
    tracker.query_ref_token[..., 0], tracker.query_ref_token[..., 1] = STEADY, -STEADY
    norm.weight.fill_(STEADY * (2 / tracker.transformer_dim) ** 0.5)  # what is divided by the deviation of the two


def learning_rate(share: float) -> float:
    """Rate at a share of the time from 0 to 1: linear warm-up, then a cosine to `FINAL_SHARE` of the peak."""
    if share < WARMUP_SHARE:
        return PEAK_RATE * (share + 1e-3) / WARMUP_SHARE
    phase = min(1.0, (share - WARMUP_SHARE) / (1 - WARMUP_SHARE))
    return PEAK_RATE * (FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * phase)))


def place() -> tuple[int, int]:
    """Number of this process among those that share each step, and how many they are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def batch_of(step: int, seed: int, share: float) -> dict[str, Tensor]:
    """This process' part of the batch of a step: pairs of views first, then up to four."""
    rank, workers = place()
    views = 2 if share < PAIRS_SHARE else VIEWS[step % len(VIEWS)]
    number = (seed * SEED_STRIDE + step * workers + rank) % 2**30
    size = (PRESETS["tiny"].img_size,) * 2
    count = FRAMES_PER_STEP // views // workers
    return render_batch(count, views, size, generator_seed=number, supersample=1 + (step % 3 == 0))


def average_(values: list[Tensor]) -> None:
    """Mean over the processes of tensors of any shapes, in place."""
    _, workers = place()
    if workers > 1:
        flat = torch.cat([value.flatten() for value in values])
        dist.all_reduce(flat)
        parts = flat.div_(workers).split([value.numel() for value in values])
        torch._foreach_copy_(values, [part.view_as(value) for part, value in zip(parts, values, strict=True)])


def step_losses(model: VGGT, probes: Probes, batch: dict[str, Tensor], head: str | None) -> dict[str, Tensor]:
    """Losses of one step: those of the trunk and the camera head, and those of one of `HEADS`, where one is given."""
    config, images = model.config, batch["images"]
    size = (images.shape[-2], images.shape[-1])
    faster = bfloat16_gain(torch.get_num_threads()) > 1  # emulated, products take a hundred times as long
    with torch.autocast("cpu", torch.bfloat16, enabled=faster), written_out() as logits:
        tokens = model.aggregator(images)
        # Of every attention in the trunk: the backbone's come first, then frame and global ones in turn.
        attended = [logits[config.vit_depth + 2 * block + 1][:, 0] for block in MATCHED_BLOCKS]
        poses = [pose.float() for pose in model.camera_head(tokens[config.aggregator_depth - 1])]
        losses = _head_losses(model, tokens, size, batch, head)
    target = matching_patches(batch, config.patch_size)
    matches = [match_loss(one, target, config.patch_start) for one in attended]
    losses["match"] = torch.stack(matches).mean()
    losses |= probe_losses(probes(tokens, (size[0] // config.patch_size, size[1] // config.patch_size)), batch)
    losses["camera"] = camera_loss(poses, batch)
    losses["relative"] = relative_loss(poses[-1], batch["extrinsics"])
    return losses


def _head_losses(
    model: VGGT, tokens: dict[int, Tensor], size: tuple[int, int], batch: dict[str, Tensor], head: str | None
) -> dict[str, Tensor]:
    if head == "depth":
        depth, confidence = model.depth_head.predict(tokens, size)
        return {"depth": depth_loss(depth.float(), confidence.float(), batch)}
    if head == "points":
        points, confidence = model.point_head.predict(tokens, size)
        return {"points": points_loss(points.float(), confidence.float(), batch)}
    if head == "track":
        tracker = model.track_head.tracker
        tokens = {depth: some[::TRACKED] for depth, some in tokens.items()}
        batch = {name: some[::TRACKED] for name, some in batch.items()}
        maps = model.track_head.feature_extractor(tokens, size)
        tracks, visible, confident = tracker(batch["query_points"], maps)
        losses = track_losses([track.float() for track in tracks], visible.float(), confident.float(), batch)
        normal = tracker.fmap_norm(maps.movedim(2, -1)).movedim(-1, 2)
        return losses | {"feature": feature_loss(normal, batch, model.config.track_stride)}
    return {}


class Training:
    """A network in training, with all that a checkpoint holds."""

    def __init__(self, model: VGGT, folder: Path) -> None:
        steady(model)
        self.model, self.folder, self.progress = model, folder, Progress()
        self.probes = Probes(model.config)
        self.both = nn.ModuleDict({"model": model, "probes": self.probes})
        self.averaged = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self.both.parameters() if p.ndim > 1], "weight_decay": 0.02},
                {"params": [p for p in self.both.parameters() if p.ndim <= 1], "weight_decay": 0.0},
            ],
            betas=(0.9, 0.98),
            foreach=True,
        )
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub does not know it

    @property
    def checkpoint(self) -> Path:
        """File that the run goes on from."""
        return self.folder / "checkpoint.pt"

    def step(self, seed: int, share: float) -> tuple[dict[str, Tensor], float]:
        """One step at a share of the time; the losses and the norm of their gradient."""
        number = self.progress.step
        head = HEADS[number % len(HEADS)] if share >= MATCH_SHARE else None
        return self.update(batch_of(number, seed, share), head, learning_rate(share))

    def update(self, batch: dict[str, Tensor], head: str | None, rate: float) -> tuple[dict[str, Tensor], float]:
        """One step on a batch, with one of `HEADS` or none; the losses and the norm of their gradient."""
        parts = step_losses(self.model, self.probes, batch, head)
        loss = sum((WEIGHTS[name] * part for name, part in parts.items()), start=torch.zeros(()))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        # A head whose turn it is not has no gradients, in any process.
        average_([p.grad for p in self.both.parameters() if p.grad is not None])
        norm = torch.nn.utils.clip_grad_norm_(self.both.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if norm.isfinite():
            self.optimizer.step()
            steady(self.model)
            now = self.model.state_dict()
            torch._foreach_lerp_(list(self.averaged.values()), [now[name] for name in self.averaged], 1 - AVERAGE_DECAY)
        self.progress.step += 1
        self.progress.scenes += len(batch["images"]) * place()[1]
        return parts, float(norm)

    def save(self) -> None:
        """Write the checkpoint."""
        state = {
            "model": self.model.state_dict(),
            "averaged": self.averaged,
            "probes": self.probes.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": vars(self.progress),
        }
        with replacing(self.checkpoint) as temporary:
            torch.save(state, temporary)

    def load(self) -> None:
        """Go on from the checkpoint."""
        state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.probes.load_state_dict(state["probes"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.averaged = state["averaged"]
        self.progress = Progress(**state["progress"])


def train(folder: Path, minutes: float, seed: int, model: VGGT) -> None:
    """Train a network for so many minutes in all, resuming from ``folder`` when it holds a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    training = Training(model, folder)
    if training.checkpoint.exists():
        training.load()
    progress, saved = training.progress, time.monotonic()
    average: dict[str, float] = {}
    first = place()[0] == 0
    while progress.seconds < 60 * minutes:
        begun = time.monotonic()
        parts, norm = training.step(seed, progress.seconds / (60 * minutes))
        elapsed = torch.tensor([time.monotonic() - begun], dtype=torch.float64)
        average_([elapsed])
        progress.seconds += elapsed.item()
        if not first:
            continue
        for name, part in parts.items():
            average[name] = 0.98 * average.get(name, part.item()) + 0.02 * part.item()
        if progress.step % LOG_STEPS == 0:
            _log(folder, progress, average, norm)
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            training.save()
            saved = time.monotonic()
    if first:
        training.save()


def _log(folder: Path, progress: Progress, average: dict[str, float], norm: float) -> None:
    row = vars(progress) | {"rate_scenes": progress.scenes / progress.seconds, "gradient": norm} | average
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps({k: round(v, 5) for k, v in row.items()}) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/training"))
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", choices=("bundled", "fresh"), default="bundled", help="weights to start from")
    arguments = parser.parse_args()
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
    start = fresh(arguments.seed) if arguments.start == "fresh" else load_vggt("tiny").train()
    train(arguments.folder, arguments.minutes, arguments.seed, start)
