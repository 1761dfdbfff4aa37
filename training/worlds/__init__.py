"""Varied worlds for training: furnished and open, smooth and rough, of all textures, seen by cameras like real ones.

`scripts/worlds.py` is a plugin that makes them scenes of the tool.

| module | holds |
|---|---|
| `render` | worlds as batches for training and as scenes for judging |
| `layout` | a random world: walls, things, looks, lamps |
| `furniture` | parts of things |
| `motion` | how cameras move |
| `solids` | what rays meet |
| `textures` | a bank of pictures to put on surfaces |
| `shading` | light of what rays meet |
| `developing` | from light to pictures |
"""

from training.worlds.render import world_batch, world_scenes
from training.worlds.textures import make_bank

__all__ = ["make_bank", "world_batch", "world_scenes"]
