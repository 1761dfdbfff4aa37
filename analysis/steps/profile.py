"""Scenes and a model -> ``profile.h5``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from analysis.report.profile_tables import check_sentences, profile_summary, profile_tables
from analysis.steps.device import pick_device
from analysis.steps.run_folder import FOLDING, PICTURE_DIGESTS, PROFILE, SCENE_DIGESTS, check_writable, scenes_for
from analysis.steps.view import View
from mixedprec import parse_budget
from mixedprec.budget import FP32_BYTES
from sensitivity import Profile
from sensitivity import profile as profile_model
from sensitivity.estimate_check import check_estimates
from sensitivity.gradient_precision import gradient_dtype
from sensitivity.jacobian_sketch import DEFAULT_PROBES
from sensitivity.migration import choose_folding
from sensitivity.rounding_gain import CALIBRATED
from sensitivity.scrutiny import remarks
from vggtkit.core.errors import InputError, check_number
from vggtkit.core.executors import Workers
from vggtkit.core.memory import LARGE
from vggtkit.core.permits import permit
from vggtkit.core.program import command, setting
from vggtkit.core.provenance import Progress, provenance, silent
from vggtkit.model import model_fingerprint, pick_dtype, resolve_source
from vggtkit.model.folding import fold
from vggtkit.quant import read_roles
from vggtkit.quant.rounding import NEAREST
from vggtkit.scenes import Scene, SceneSource, check_source, fingerprint, picture_digests
from vggtkit.subject import INPUTS, Subject, is_factory, open_subject

AUTO_CALIBRATION = "auto"
SCORED_ROUNDINGS = (AUTO_CALIBRATION, CALIBRATED, NEAREST)
FOLDING_SCENES = 2
"""Scenes that decide what is folded."""
OVERHEAD_PER_LAYER = 20_000
"""Bytes that HDF5 and the scores add to the activations of a layer, measured: 15,500 with seven schemes."""


def make_profile(
    run: Path,
    model_name: str,
    weights: str,
    source: SceneSource,
    *,
    probes: int,
    disk_budget: str,
    device: str,
    seed: int,
    dtype: str = "auto",
    roles: str | None = None,
    folds: bool = False,
    workers: Workers | None = None,
    rounding: str = AUTO_CALIBRATION,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> Profile:
    """Profile a model on the calibration half of the scenes; writes ``profile.h5``.

    Args:
        run: folder of the run.
        model_name: as `load_vggt` takes it, or ``package.module:function`` that makes any other model.
        weights: ``"pretrained"`` or ``"random"``.
        source: of the scenes.
        probes: random vectors per output and scene; 0 for 4, and 1 for large networks.
        disk_budget: activations take at most this.
        device: as `pick_device` takes it.
        seed: of samples and probes.
        dtype: as `vggtkit.model.pick_dtype` takes it.
        roles: TOML file of name patterns, see `vggtkit.quant.roles`.
        folds: fold outliers of activations into weights first, where that lowers the predicted damage.
        workers: who does the steps; this process by default.
        rounding: the rounding that plans are to be made for: ``"gptq"`` scores what it leaves of the errors,
            ``"nearest"`` needs nothing; ``"auto"`` is the first but for large networks, where it takes long.
        progress: told about every step.
        say: told what is worth knowing beforehand.

    Raises:
        InputError: what the user can mend.
        KeyboardInterrupt: with the command that resumes.
    """
    check_number("probes", probes, 0)
    _check_rounding(rounding)
    check_writable(run)
    check_source(source)
    names = read_roles(roles) if roles else None
    progress("loading", 0, 1)
    precision = pick_dtype(dtype, place := pick_device(device))
    subject = open_subject(model_name, weights, place, names=names, say=say)
    scenes = scenes_for(subject, source, "calibration", say)
    parameters = subject.parameters
    activation_bytes = max(0, _disk_bytes(disk_budget, parameters) - OVERHEAD_PER_LAYER * len(subject.layers))
    probes = probes or (DEFAULT_PROBES if parameters <= LARGE else 1)
    _permit_functions(run, model_name, source)
    folding = _folded(subject, scenes[:FOLDING_SCENES], probes, seed, progress, say) if folds else {}
    facts = provenance(
        model=resolve_source(model_name),
        weights="random" if weights == "random" else "trained",
        config=subject.description(),
        parameters=parameters,
        model_fingerprint=model_fingerprint(subject.model),
        seed=seed,
        **_facts_of_scenes(source, scenes),
        **folding,
    )
    say(f"profiling {model_name} ({facts['weights']} weights, {parameters:,} parameters) on {_described(scenes)}")
    try:
        return profile_model(
            subject, scenes, run / PROFILE, facts=facts, probes=probes, seed=seed, activation_bytes=activation_bytes,
            dtype=precision, gradient_dtype=gradient_dtype(precision, place, parameters), workers=workers,
            calibrates=rounding == CALIBRATED or (rounding == AUTO_CALIBRATION and parameters <= LARGE),
            progress=progress, say=say,
        )  # fmt: skip
    except KeyboardInterrupt as error:
        again = command(*sys.argv[1:])
        raise type(error)(f"interrupted; what is done is kept, and this goes on from there: {again}") from error


def _check_rounding(rounding: str) -> None:
    if rounding not in SCORED_ROUNDINGS:
        raise InputError(f"{setting('rounding', rounding)}: must be one of {', '.join(SCORED_ROUNDINGS)}")


def _facts_of_scenes(source: SceneSource, scenes: Sequence[Scene]) -> dict[str, Any]:
    return {
        "scene_fingerprint": fingerprint(scenes),
        "scene_source": source.to_dict(),
        "scenes": [scene.name for scene in scenes],
        PICTURE_DIGESTS: sorted(picture_digests(source, "calibration")),
        SCENE_DIGESTS: [fingerprint([scene]) for scene in scenes],
    }


def _folded(
    subject: Subject, scenes: Sequence[Scene], probes: int, seed: int, progress: Progress, say: Callable[[str], None]
) -> dict[str, Any]:
    """The fact of what was folded, in place; nothing where nothing gains."""
    progress("choosing what to fold", 0, 1)
    folding = choose_folding(subject, scenes, probes=probes, seed=seed)
    if not folding.exponents:
        say("nothing to fold: no layer behind a norm of a VGGT gains by it")
        return {}
    fold(subject.model, folding.exponents)
    say(
        f"folded factors of {len(folding.exponents)} norms into the layers behind them: predicted damage of these with "
        f"INT8 inputs and 4-bit weights {folding.before:.1e} -> {folding.after:.1e}; in FP32 nothing changes"
    )
    return {FOLDING: folding.exponents}


def _permit_functions(run: Path, model_name: str, source: SceneSource) -> None:
    """The functions that the user has named may be called again for this folder."""
    if is_factory(model_name):
        permit(run, model_name)
    if source.kind == INPUTS and source.folder:
        permit(run, source.folder)


def profile_view(profile: Profile) -> View:
    """What a profile says."""
    lines = [f"written: {profile.path}"]
    if profile.facts["weights"] != "trained":
        lines.append("RANDOM WEIGHTS: these scores say nothing about a trained network.")
    lines += remarks(profile.facts, int(profile.facts["parameters"])) + check_sentences(check_estimates(profile))
    facts = {
        name: profile.facts.get(name)
        for name in (
            "expected_peak_bytes", "peak_resident_bytes", "probes", "dtype", "unreached", "silent", "uncovered",
            "left_out", "zero_outputs",
        )
    }  # fmt: skip
    return View(profile_summary(profile) | facts, profile_tables(profile), lines).of_weights(
        str(profile.facts["weights"])
    )


def _described(scenes: list[Scene]) -> str:
    images, count = scenes[0].images, f"{len(scenes)} scene{'s' * (len(scenes) > 1)}"
    if scenes[0].inputs is not None:
        shapes = [list(value.shape) for value in tree_leaves(scenes[0].inputs) if isinstance(value, torch.Tensor)]
        return f"{count} of inputs {shapes}"
    return f"{count} of {len(images)} picture{'s' * (len(images) > 1)} of {images.shape[-2]}x{images.shape[-1]}"


def _disk_bytes(text: str, parameters: int) -> int:
    try:
        return parse_budget(text, parameters=parameters, fp32_bytes=FP32_BYTES * parameters)
    except InputError as error:
        raise InputError(f"{setting('disk_budget')}: {error}") from None
