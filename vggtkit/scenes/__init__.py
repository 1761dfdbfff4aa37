"""Where input comes from, and the truth about it where it is known.

| module | holds |
|---|---|
| `source` | which scenes: a typed, storable choice |
| `kinds` | the registry of scene kinds |
| `loading` | a source -> scenes of one half; digests of its pictures |
| `sampling` | which frames make a scene, and which half it belongs to |
| `scene` | a scene, its ground truth, its fingerprint |
| `recording` | what a reader hands over: frames of one place, notes on what was left out |
| `ground_truth` | frames -> views for the model, with cameras, depth and points that fit |
| `photos` | photographs in a folder, prepared as VGGT was trained to see them |
| `rgbd` | RGB-D folders: the plain layout, and which layout a folder has |
| `tum` | sequences of the TUM RGB-D benchmark |
| `seven_scenes` | sequences of 7-Scenes and 12-Scenes |
| `eth3d` | ETH3D scenes and other COLMAP models of undistorted pictures |
| `colmap` | cameras and pictures of a COLMAP model, from text |
| `colmap_binary` | the same from its binary files |
| `co3d` | CO3Dv2 categories |
| `seven_scenes_split` | those of 7-Scenes by their published split into training and test sequences |
| `co3d_split` | the same by their published split into training and test sequences |
| `drawn` | one scene of so many frames, drawn by lot, from each recording |
| `cameras` | pinhole cameras and poses as matrices |
| `depth_files` | depth beside pictures, read when it is asked for |
| `text_files` | text files of numbers |
| `naming` | the order of numbered files |
| `synthetic` | rooms rendered here |
| `layout` | where the solids and cameras of a room stand |
| `raycast` | what rays meet |
| `textures` | patterns and shading of surfaces |
| `eth3d_download` | fetching ETH3D scenes |
| `fetch` | one file over HTTP, resumed where it stopped |
| `unpack` | a 7z archive, kept inside its folder |
"""

from vggtkit.scenes.drawn import DrawnScene, draw_scenes
from vggtkit.scenes.kinds import SCENE_KINDS, SceneKind, scene_choices
from vggtkit.scenes.loading import check_source, digest_pictures, load_scenes, notes_on, picture_digests, pictures_of
from vggtkit.scenes.photos import list_photos, load_photos
from vggtkit.scenes.recording import Frame, Recording
from vggtkit.scenes.scene import GroundTruth, Scene, fingerprint
from vggtkit.scenes.source import SceneSource, parse_scenes
from vggtkit.scenes.synthetic import render_batch, render_scene, synthetic_scenes

__all__ = [
    "SCENE_KINDS",
    "DrawnScene",
    "Frame",
    "GroundTruth",
    "Recording",
    "Scene",
    "SceneKind",
    "SceneSource",
    "check_source",
    "digest_pictures",
    "draw_scenes",
    "fingerprint",
    "list_photos",
    "load_photos",
    "load_scenes",
    "notes_on",
    "parse_scenes",
    "picture_digests",
    "pictures_of",
    "render_batch",
    "render_scene",
    "scene_choices",
    "synthetic_scenes",
]
