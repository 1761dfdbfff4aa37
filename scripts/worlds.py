"""The worlds of training as scenes of the tool: ``python cli.py profile --plugin scripts/worlds.py --scenes worlds``.

A plugin and not a kind of the tool's own: what the tool renders has to stay as it is, because results are told apart by
fingerprints of scenes, and what is trained on has to change with every experiment.
"""

from __future__ import annotations

from training.worlds import world_scenes
from vggtkit.scenes import SCENE_KINDS, Scene, SceneKind, SceneSource
from vggtkit.scenes.sampling import Split


def _load(source: SceneSource, split: Split, img_size: int, patch_size: int) -> list[Scene]:
    del patch_size  # divides img_size
    return world_scenes(source.count, source.views, (img_size, img_size), seed=source.seed, split=split)


SCENE_KINDS.register("worlds", SceneKind("worlds", "varied worlds rendered here", needs_folder=False, load=_load))
