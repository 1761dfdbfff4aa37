"""Where input comes from, and the truth about it where it is known."""

from scenes.photos import list_photos, load_photos
from scenes.scene import GroundTruth, Scene, fingerprint
from scenes.source import SceneSource, load_scenes, parse_scenes, pictures_of
from scenes.synthetic import render_batch, render_scene, synthetic_scenes

__all__ = [
    "GroundTruth",
    "Scene",
    "SceneSource",
    "fingerprint",
    "list_photos",
    "load_photos",
    "load_scenes",
    "parse_scenes",
    "pictures_of",
    "render_batch",
    "render_scene",
    "synthetic_scenes",
]
