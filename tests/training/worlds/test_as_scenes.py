"""The plugin that makes worlds scenes of the tool."""

import runpy
from pathlib import Path

import pytest
import torch

from training.worlds import render
from vggtkit.scenes import SCENE_KINDS, SceneSource, load_scenes

PLUGIN = Path(__file__).parents[3] / "scripts" / "worlds.py"


def test_worlds_are_scenes_of_both_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SCENE_KINDS, "_values", dict(SCENE_KINDS._values))  # nobody else is to know the kind
    monkeypatch.setattr(render, "make_bank", lambda seed, count, make=render.make_bank: make(seed, min(count, 4)))
    runpy.run_path(str(PLUGIN))
    source = SceneSource("worlds", count=2, views=2)
    halves = [load_scenes(source, split, img_size=16, patch_size=8) for split in ("calibration", "evaluation")]
    assert [len(half) for half in halves] == [2, 2]
    assert all(scene.truth is not None for half in halves for scene in half)
    pictures = [scene.images for half in halves for scene in half]
    assert not any(torch.equal(one, other) for i, one in enumerate(pictures) for other in pictures[:i])
