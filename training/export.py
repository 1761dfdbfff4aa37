"""Ship a training run as the bundled network: ``python -m training.export --folder runs/training``.

``--to DIR`` writes it elsewhere, to be looked at first: ``python benchmarks/held_out.py --model DIR``. ``--share 0.6``
keeps 0.4 of the weights that the run began with, which are beside its checkpoint: between the two less of what was
known before is lost for what was learnt (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from training.heldout import held_out
from vggtkit.model.config import BUNDLED, PRESETS
from vggtkit.model.loading import CONFIG_FILE, WEIGHTS_FILE, load_vggt

TRAINING_LOG = "training_log.jsonl"
"""Of all runs that a network comes of, one after the other; each begins with its own step 0 or 1."""


def export(folder: Path, scenes: int, to: Path = BUNDLED, share: float = 1.0) -> dict[str, float]:
    """Write FP16 weights, config, training log and held-out figures into a folder.

    Args:
        folder: of the run.
        scenes: rooms that the figures are of.
        to: the folder.
        share: of the run's averaged weights; the rest is of those that it began with.

    Returns:
        The figures.
    """
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    weights = state["averaged"]
    if share < 1:
        start = load_file(folder / WEIGHTS_FILE)
        weights = {name: torch.lerp(start[name].float(), value.float(), share) for name, value in weights.items()}
    to.mkdir(parents=True, exist_ok=True)
    halves = {name: value.half().contiguous() for name, value in weights.items()}
    save_file(halves, to / WEIGHTS_FILE, metadata={"format": "pt"})
    (to / CONFIG_FILE).write_text(PRESETS["tiny"].to_json() + "\n")
    logs = [path.read_text() for path in (folder / TRAINING_LOG, folder / "log.jsonl") if path.is_file()]
    (to / TRAINING_LOG).write_text("".join(logs))
    figures = held_out(load_vggt(str(to)), scenes)
    facts = {"training": state["progress"], "share": share, "scenes": scenes, "held_out": figures}
    (to / "held_out.json").write_text(json.dumps(facts, indent=2) + "\n")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/training"))
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--to", type=Path, default=BUNDLED)
    parser.add_argument("--share", type=float, default=1.0, help="of the run; the rest is of what it began with")
    arguments = parser.parse_args()
    export(arguments.folder, arguments.scenes, arguments.to, arguments.share)
