"""The folder of a run: names of its files, and reading them back only where they belong together."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from analysis.steps.device import pick_device
from mixedprec import Plan, load_plan
from mixedprec.evidence import output_weights, parse_weights
from sensitivity import Profile
from vggtkit.core.errors import InputError
from vggtkit.core.permits import check_permitted, permit
from vggtkit.core.program import command, setting
from vggtkit.core.provenance import require_same
from vggtkit.model import model_fingerprint, resolve_source
from vggtkit.model.folding import fold
from vggtkit.scenes import Scene, SceneSource, digest_pictures, fingerprint, load_scenes, pictures_of
from vggtkit.scenes.source import Split
from vggtkit.subject import INPUTS, Subject, is_factory, open_subject

DEFAULT_MODEL = "tiny"
"""Where a command is given none and the run has none."""

PROFILE, PLAN, KERNELS = "profile.h5", "plan.json", "kernels.json"
RESULTS, REPORT, CHARTS = (
    "comprehensive_results.json",
    "comprehensive_report.txt",
    "comprehensive_visualizations.png",
)

DEPTH_MAPS = "depth_maps.npz"
"""Depth of FP32 and every scheme on one scene of the evaluation, for the page of the report."""

DEPTH_DIFFERENCES, POINT_DIFFERENCES = "depth_differences.png", "point_differences.png"
"""How far every scheme is from FP32 on that scene, pixel by pixel."""

SCENE_DIGESTS = "scene_digests"
"""The fact of a profile that says what its scenes looked like to the model, one fingerprint each."""
FOLDING = "folding"
"""The fact of a profile that says by which powers of two the norms of the profiled model were multiplied, as
`vggtkit.model.folding.fold` takes them; its fingerprint is that of the folded weights."""
PICTURE_DIGESTS = "picture_digests"
"""The fact of a profile that says which pictures it was made from, as `vggtkit.scenes.picture_digests` has them."""


def check_writable(run: Path, name: str = "run") -> None:
    """Refuse a folder that cannot be written before minutes of work, not after them.

    Args:
        run: a run's folder, or another,
        name: that this setting names.
    """
    place = run
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"{setting(name, run)}: {place} cannot be written to ({reason}); name another folder"
        ) from error


def plan_of(run: Path, profile: Profile) -> Plan:
    """The run's plan; refused when it was made from another profile."""
    path = run / PLAN
    if not path.is_file():
        raise InputError(f"{path}: no such file; make it with `{command('plan', '--run', run)}`")
    plan = load_plan(path)
    facts = {**plan.provenance, "model_fingerprint": plan.model_fingerprint}
    require_same(str(path), profile.facts, facts, ("model_fingerprint", "scene_fingerprint"))
    _check_bytes(path, plan, profile)
    return plan


def _check_bytes(path: Path, plan: Plan, profile: Profile) -> None:
    """Refuse a plan that counts other bytes for a layer than were found when the profile was made."""
    rows = {layer.name: row for layer, row in zip(profile.layers, profile.size_bytes, strict=True)}
    for name, counted in plan.layer_bytes.items():
        key = plan.formats[name]
        if name in rows and key in profile.candidates and rows[name][profile.column(key)] != counted:
            raise InputError(
                f"{path}: {name} counts {counted} bytes at {key}, it takes {rows[name][profile.column(key)]}; the plan "
                f"was changed by hand or is damaged, make it again with `{command('plan', '--run', path.parent)}`"
            )


def subject_of_run(
    run: Path, profile: Profile, device: str, named: str | None = None, say: Callable[[str], None] = lambda _: None
) -> Subject:
    """The profiled model, folded as then, computing in the precision of the profile (on a processor FP32 for FP16).

    Args:
        run: folder of the run.
        profile: of it.
        device: as `pick_device` takes it.
        named: what the user gave as ``--model``, if anything.
        say: told what was done to make it loadable.

    Raises:
        InputError: its weights have changed since, it is another model, or it is made by a function that the user has
            not named for this folder.
    """
    source, place = str(profile.facts["model"]), pick_device(device)
    check_source_of_run(run, source, named)
    weights = "random" if profile.facts["weights"] == "random" else "pretrained"
    subject = open_subject(source, weights, place, say=say).reading(profile.layers)
    dtype = getattr(torch, str(profile.facts.get("dtype", torch.float32)).removeprefix("torch."))
    subject.precision = torch.float32 if (dtype, place.type) == (torch.float16, "cpu") else dtype
    fold(subject.model, profile.facts.get(FOLDING) or {})
    facts = {"model_fingerprint": model_fingerprint(subject.model)}
    require_same(f"{profile.path} and {setting('model', source)}", facts, profile.facts, ("model_fingerprint",))
    if subject.description() != profile.facts["config"]:
        raise InputError(
            f"{profile.path}: the config of {source} has changed since, so these weights are another network "
            "now: restore it, or profile again"
        )
    return subject


def check_source_of_run(run: Path, source: str, named: str | None) -> None:
    """Refuse another model than the run's, and a function that the user has not named for this folder.

    Raises:
        InputError: with both names, or the option that names it.
    """
    if named is not None and resolve_source(named) != source:
        raise InputError(
            f"{setting('model', named)}: the profile in {run} is of {source}; name that, or another {setting('run')}"
        )
    if named is None and is_factory(source):
        check_permitted(run, source, setting("model", source))


def check_held_out(profile: Profile, source: SceneSource) -> None:
    """Refuse scenes to judge on that show a picture which was profiled, whatever it is called now.

    Pictures are compared by their content, so that copies count, and so does a folder that has changed since the
    profile, whose halves are then cut elsewhere.

    Args:
        profile: its pictures are what must not be shown.
        source: of the scenes; their evaluation half is used.

    Raises:
        InputError: a picture is shared, or as the reader of the source.
    """
    held_out = pictures_of(source, "evaluation")
    digests = set(profile.facts.get(PICTURE_DIGESTS, ()))
    if shared := [path for digest, path in digest_pictures(held_out).items() if digest in digests]:
        raise InputError(
            f"{len(shared)} of the evaluation's pictures were profiled, {min(shared).name!r} is one (copies count, and"
            f" so does a folder that has changed since): profile again with the same {setting('views')},"
            f" {setting('max_images')}, {setting('stride')} and {setting('sampling')}, or judge on another folder"
        )


def held_out_scenes(run: Path, subject: Subject, profile: Profile, source: SceneSource) -> list[Scene]:
    """Scenes to judge on, none of which was profiled.

    Raises:
        InputError: a picture or an input of them was profiled, or as `load_scenes`.
    """
    check_held_out(profile, source)
    if source.kind == INPUTS and source.folder != SceneSource.from_dict(profile.facts["scene_source"]).folder:
        permit(run, source.folder or "")
    if source.kind == INPUTS:
        check_permitted(run, source.folder or "", setting("scenes", f"inputs:{source.folder}"))
    scenes = scenes_for(subject, source, "evaluation")
    check_not_profiled(profile, scenes)
    return scenes


def check_not_profiled(profile: Profile, scenes: Sequence[Scene]) -> None:
    """Refuse scenes to judge on that are those of the profile, all or some.

    Raises:
        InputError: with the name of one.
    """
    profiled = set(profile.facts.get(SCENE_DIGESTS, ()))
    if shared := [scene.name for scene in scenes if fingerprint([scene]) in profiled]:
        raise InputError(
            f"{len(shared)} of the {len(scenes)} scenes to judge on were profiled, {shared[0]} is one; give others "
            f"with {setting('images')} or {setting('scenes')}, or a function that yields others"
        )
    if fingerprint(scenes) == profile.facts["scene_fingerprint"]:
        raise InputError(
            "the scenes to judge on are those that were profiled; give others with "
            f"{setting('images')} or {setting('scenes')}"
        )


def profiled_scenes(run: Path, subject: Subject, profile: Profile) -> list[Scene]:
    """The scenes that were profiled.

    Raises:
        InputError: they are no longer the same, or as `load_scenes`.
    """
    source = SceneSource.from_dict(profile.facts["scene_source"])
    if source.kind == INPUTS:
        check_permitted(run, source.folder or "", setting("scenes", f"inputs:{source.folder}"))
    scenes = scenes_for(subject, source, "calibration")
    seen = {"scene_fingerprint": fingerprint(scenes)}
    require_same(f"{profile.path} and its pictures", seen, profile.facts, ("scene_fingerprint",))
    return scenes


def weights_of_plan(plan: Plan) -> dict[str, float]:
    """What each output counts for, as the plan was made; nothing where all count alike."""
    text = plan.provenance.get("weights_for")
    return output_weights(parse_weights(str(text)), tuple(plan.predicted_damage)) if text else {}


def scenes_for(
    subject: Subject, source: SceneSource, split: Split, say: Callable[[str], None] = lambda _: None
) -> list[Scene]:
    """Scenes of the size that the model takes; a model that does not say is taken to be made for VGGT's."""
    img_size, patch_size = subject.picture_sizes
    return load_scenes(source, split, img_size=img_size, patch_size=patch_size, say=say)
