"""Which score orders layers as their true damage does? JSON on the last line.

Run: ``python benchmarks/score_check.py --run runs/default``. True damage: NMSE of the outputs, averaged, with
only that layer quantised, measured on evaluation scenes, layer by layer. Scores: those of the profile, made on others.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.compare import compare_outputs
from analysis.evaluate import damage_of, predictions
from model import VGGT, load_vggt
from quant import dequantize_layer, quantize_layer, replaced_weights
from scenes import Scene, SceneSource, load_scenes
from sensitivity import Profile, open_profile

FORMATS = ("int4_group_128", "int8_per_channel_sym")


def true_damage(model: VGGT, profile: Profile, key: str, scenes: list[Scene]) -> np.ndarray:
    """Measured damage of each layer alone in one format."""
    references = [predictions(model, scene) for scene in scenes]
    found = []
    for layer in profile.layers:
        module = model.get_submodule(layer.name)
        weight = dequantize_layer(quantize_layer(module, key, layer.name), module)
        with replaced_weights(model, {layer.name: weight}):
            damages = [
                damage_of(compare_outputs(reference, predictions(model, scene)))
                for scene, reference in zip(scenes, references, strict=True)
            ]
        found.append(float(np.mean(damages)))
    return np.array(found)


def check(run: Path, count: int) -> dict[str, object]:
    """Rank correlations of every score of a run's profile with true damage."""
    profile = open_profile(run)
    model = load_vggt(str(profile.facts["model"]))
    source = SceneSource.from_dict(profile.facts["scene_source"])
    size = {"img_size": model.config.img_size, "patch_size": model.config.patch_size}
    scenes = load_scenes(source, "evaluation", **size)[:count]
    found: dict[str, object] = {
        "question": "rank correlation of scores with true damage",
        "layers": len(profile.layers),
    }
    start = time.perf_counter()
    for key in FORMATS:
        truth = true_damage(model, profile, key, scenes)
        column = profile.schemes.index(key)
        scores = {"damage at the outputs (sketch)": profile.total_damage[:, profile.column(key)]}
        scores |= {f"isolated {name}": values[:, column] for name, values in profile.scores["isolated"].items()}
        scores |= {f"accumulated {name}": values[:, column] for name, values in profile.scores["accumulated"].items()}
        found[key] = {
            "spearman": {name: _rank_correlation(name, values, truth) for name, values in scores.items()},
            "median_ratio_sketch_to_truth": float(np.median(profile.total_damage[:, profile.column(key)] / truth)),
        }
    return found | {"scenes": len(scenes), "seconds": time.perf_counter() - start, "torch": str(torch.__version__)}


def _rank_correlation(name: str, score: np.ndarray, truth: np.ndarray) -> float:
    """Spearman; similarities count as their distance from 1, and layers without a picture are left out of SSIM."""
    error = 1 - score if name.endswith(("cosine", "ssim")) else score
    there = np.isfinite(error)
    return float(spearmanr(error[there], truth[there]).statistic)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/default"))
    parser.add_argument("--scenes", type=int, default=2)
    arguments = parser.parse_args()
    print(json.dumps(check(arguments.run, arguments.scenes)))
