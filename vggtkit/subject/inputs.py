"""The scene kind ``inputs``: what a user's function yields, in the place of pictures."""

from __future__ import annotations

import torch

from vggtkit.scenes import SCENE_KINDS, Scene, SceneKind, SceneSource
from vggtkit.scenes.sampling import Split
from vggtkit.subject.factory import load_inputs

INPUTS = "inputs"


def load_input_scenes(source: SceneSource, split: Split, _img_size: int = 0, _patch_size: int = 0) -> list[Scene]:
    """The first items of the function for calibration, those after them for evaluation; one item is one scene.

    Raises:
        InputError: as `load_inputs`.
    """
    place, nothing = source.folder or "", torch.zeros(0)
    first = 0 if split == "calibration" else source.count
    items = load_inputs(place, source.count, first)
    return [Scene(f"{place}[{first + row}]", nothing, nothing, inputs=item) for row, item in enumerate(items)]


SCENE_KINDS.register(
    INPUTS,
    SceneKind(INPUTS, "what a function yields", 1, load=load_input_scenes, metavar="package.module:function"),
)
