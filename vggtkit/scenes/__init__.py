"""Where input comes from, and the truth about it where it is known."""

from vggtkit.scenes.photos import list_photos, load_photos
from vggtkit.scenes.scene import GroundTruth, Scene, fingerprint
from vggtkit.scenes.source import SceneSource, load_scenes, parse_scenes, pictures_of
from vggtkit.scenes.synthetic import render_batch, render_scene, synthetic_scenes

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
