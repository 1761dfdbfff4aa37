"""The folder of a run: names of its files, and reading them back only where they belong together."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from analysis.steps.device import pick_device
from mixedprec import Plan, load_plan
from sensitivity import Profile
from vggtkit.core.errors import InputError
from vggtkit.core.provenance import require_same
from vggtkit.model import VGGT, is_factory, load_vggt, model_fingerprint
from vggtkit.scenes import Scene, SceneSource, digest_pictures, load_scenes, pictures_of
from vggtkit.scenes.source import Split

PROFILE, PLAN = "profile.h5", "plan.json"
RESULTS, REPORT, CHARTS = (
    "comprehensive_results.json",
    "comprehensive_report.txt",
    "comprehensive_visualizations.png",
)

PICTURE_DIGESTS = "picture_digests"
"""The fact of a profile that says which pictures it was made from, as `vggtkit.scenes.picture_digests` has them."""
DEFAULT_SIZES = (("img_size", 518), ("patch_size", 14))


def check_writable(run: Path) -> None:
    """Refuse a folder that cannot be written before minutes of work, not after them."""
    place = run
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"--run {run}: {place} cannot be written to ({reason}); name another folder") from error


def plan_of(run: Path, profile: Profile) -> Plan:
    """The run's plan; refused when it was made from another profile."""
    path = run / PLAN
    if not path.is_file():
        raise InputError(f"{path}: no such file; make it with `python cli.py plan --run {run}`")
    plan = load_plan(path)
    facts = {**plan.provenance, "model_fingerprint": plan.model_fingerprint}
    require_same(str(path), profile.facts, facts, ("model_fingerprint", "scene_fingerprint"))
    return plan


def model_of(profile: Profile, device: str) -> VGGT:
    """The profiled VGGT, computing in the precision of the profile (on a processor FP32 for FP16).

    Raises:
        InputError: its weights have changed since, or it is another model.
    """
    if is_factory(str(profile.facts["model"])):
        raise InputError(
            f"{profile.path} is of {profile.facts['model']}: a model made by a function can be profiled and planned; "
            "evaluation and export know VGGT only"
        )
    weights = "random" if profile.facts["weights"] == "random" else "pretrained"
    place = pick_device(device)
    model = load_vggt(str(profile.facts["model"]), weights, place)
    dtype = getattr(torch, str(profile.facts.get("dtype", torch.float32)).removeprefix("torch."))
    model.trunk_dtype = torch.float32 if (dtype, place.type) == (torch.float16, "cpu") else dtype
    found = {"model_fingerprint": model_fingerprint(model)}
    require_same(f"{profile.path} and --model {profile.facts['model']}", found, profile.facts, ("model_fingerprint",))
    return model


def check_held_out(profile: Profile, source: SceneSource) -> None:
    """Refuse scenes to judge on that show a picture which was profiled, whatever it is called now.

    Pictures are compared by their content, so that copies count, and so does a folder that has changed since the
    profile, whose halves are then cut elsewhere. Profiles from before their digests were stored have paths compared.

    Args:
        profile: its pictures are what must not be shown.
        source: of the scenes; their evaluation half is used.

    Raises:
        InputError: a picture is shared, or as the reader of the source.
    """
    held_out = pictures_of(source, "evaluation")
    digests = set(profile.facts.get(PICTURE_DIGESTS, ()))
    if digests:
        shared = [path for digest, path in digest_pictures(held_out).items() if digest in digests]
    else:
        profiled = SceneSource.from_dict(profile.facts["scene_source"])
        same_folder = source.folder is not None and source.folder == profiled.folder
        shared = sorted(held_out & pictures_of(profiled, "calibration")) if same_folder else []
    if shared:
        raise InputError(
            f"{len(shared)} of the evaluation's pictures were profiled, {min(shared).name!r} is one (copies count, and"
            " so does a folder that has changed since): profile again with the same --views, --max-images, --stride and"
            " --sampling, or judge on another folder"
        )


def scenes_for(
    model: nn.Module, source: SceneSource, split: Split, say: Callable[[str], None] = lambda _: None
) -> list[Scene]:
    """Scenes of the size that the model takes; a model that does not say is taken to be made for VGGT's."""
    sizes = model.config if isinstance(model, VGGT) else model
    img_size, patch_size = (getattr(sizes, name, default) for name, default in DEFAULT_SIZES)
    return load_scenes(source, split, img_size=img_size, patch_size=patch_size, say=say)
