"""Which score orders layers as their true damage does? JSON on the last line.

Run: ``python benchmarks/score_check.py --run runs/default``. True damage: NMSE of the outputs with only
that layer quantised, measured on evaluation scenes, layer by layer. Scores: those of the profile, made on others.
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

from analysis.evaluate import predictions
from model import VGGT, load_vggt
from quant import dequantize_layer, quantize_layer, replaced_weights
from scenes import Scene, SceneSource, load_scenes
from sensitivity import Profile, open_profile
from sensitivity.metrics import nmse

FORMATS = ("int4_group_128", "int8_per_channel_sym")
GROUPS = {
    "camera, depth, points": ("pose_enc", "depth", "depth_conf", "world_points", "world_points_conf"),
    "tracks": ("track", "vis", "conf"),
}


def true_damage(model: VGGT, profile: Profile, key: str, scenes: list[Scene]) -> dict[str, np.ndarray]:
    """Measured NMSE of every output with each layer alone in one format, averaged over scenes."""
    references = [predictions(model, scene) for scene in scenes]
    found: dict[str, list[float]] = {}
    for layer in profile.layers:
        module = model.get_submodule(layer.name)
        weight = dequantize_layer(quantize_layer(module, key, layer.name), module)
        with replaced_weights(model, {layer.name: weight}):
            outputs = [predictions(model, scene) for scene in scenes]
        for name in references[0]:
            pairs = zip(references, outputs, strict=True)
            found.setdefault(name, []).append(float(np.mean([nmse(r[name], o[name]) for r, o in pairs])))
    return {name: np.array(values) for name, values in found.items()}


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
        found[key] = {title: _compared(profile, key, truth, names) for title, names in GROUPS.items()}
    return found | {"scenes": len(scenes), "seconds": time.perf_counter() - start, "torch": str(torch.__version__)}


def _compared(profile: Profile, key: str, truth: dict[str, np.ndarray], outputs: tuple[str, ...]) -> dict[str, object]:
    """Spearman of every score with the true damage of some outputs, over the layers that these depend on."""
    measured = np.mean([truth[name] for name in outputs], axis=0)
    sketched = np.mean([profile.damage[name][:, profile.column(key)] for name in outputs], axis=0)
    reached = sketched > 0
    column = profile.schemes.index(key)
    scores = {"sketch": sketched}
    for kind, metrics in profile.scores.items():
        scores |= {f"{kind} {name}": values[:, column] for name, values in metrics.items()}
    return {
        "layers": int(reached.sum()),
        "spearman": {name: _rank_correlation(name, s[reached], measured[reached]) for name, s in scores.items()},
        "median_ratio_sketch_to_truth": float(np.median(sketched[reached] / measured[reached])),
        "smallest_and_largest_true_damage": [float(measured[reached].min()), float(measured[reached].max())],
    }


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
