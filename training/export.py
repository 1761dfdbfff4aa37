"""Ship a training run as the bundled network: ``python -m training.export --folder runs/training``.

``--to DIR`` writes it elsewhere, to be looked at first: ``python benchmarks/held_out.py --model DIR``.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from training.heldout import held_out
from vggtkit.model.config import BUNDLED, PRESETS
from vggtkit.model.loading import CONFIG_FILE, WEIGHTS_FILE, load_vggt


def export(folder: Path, scenes: int, to: Path = BUNDLED) -> dict[str, float]:
    """Write FP16 weights, config, training log and held-out figures into a folder; returns the figures."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    to.mkdir(parents=True, exist_ok=True)
    weights = {name: value.half().contiguous() for name, value in state["averaged"].items()}
    save_file(weights, to / WEIGHTS_FILE, metadata={"format": "pt"})
    (to / CONFIG_FILE).write_text(PRESETS["tiny"].to_json() + "\n")
    if (folder / "log.jsonl").is_file():
        shutil.copy(folder / "log.jsonl", to / "training_log.jsonl")
    figures = held_out(load_vggt(str(to)), scenes)
    facts = {"training": state["progress"], "scenes": scenes, "held_out": figures}
    (to / "held_out.json").write_text(json.dumps(facts, indent=2) + "\n")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/training"))
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--to", type=Path, default=BUNDLED)
    arguments = parser.parse_args()
    export(arguments.folder, arguments.scenes, arguments.to)
