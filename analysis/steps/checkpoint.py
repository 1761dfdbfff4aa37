"""A plan or a scheme -> the packed checkpoint."""

from __future__ import annotations

import itertools
from pathlib import Path

from analysis.steps.run_folder import PROFILE, check_writable, model_of, plan_of
from analysis.steps.view import View
from mixedprec import check_plan, format_bytes, save_quantized, uniform_assignment
from quant import find_layers, get_format
from sensitivity import open_profile
from sensitivity.provenance import Progress, provenance, silent


def make_checkpoint(run: Path, scheme: str, progress: Progress = silent) -> View:
    """Write the packed checkpoint of the run's plan, or of a uniform scheme."""
    if scheme != "plan":
        get_format(scheme)
    check_writable(run)
    profile = open_profile(run / PROFILE)
    plan = plan_of(run, profile) if scheme == "plan" else None
    progress("loading", 0, 1)
    model = model_of(profile, "cpu")
    layers = find_layers(model)
    if plan:
        check_plan(model, plan)
    written = itertools.count(1)

    def on_layer(_name: str) -> None:
        progress("writing", next(written), len(layers))

    path = run / f"model-{scheme}.safetensors"
    size = save_quantized(
        model,
        plan.formats if plan else uniform_assignment(layers, scheme),
        path,
        keep=plan.keep if plan else "fp16",
        note=provenance(
            weights=profile.facts["weights"],
            scene_fingerprint=profile.facts["scene_fingerprint"],
            seed=profile.facts["seed"],
        ),
        on_layer=on_layer,
    )
    lines = [
        f"written: {path}, {format_bytes(size)} ({size:,} bytes)",
        f'load it with: from mixedprec import load_quantized; model = load_quantized("{path}")',
    ]
    if profile.facts["weights"] == "random":
        lines.append("RANDOM WEIGHTS: this checkpoint predicts nothing.")
    return View({"path": str(path), "size_bytes": size}, (), lines).of_weights(str(profile.facts["weights"]))
