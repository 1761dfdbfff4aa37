"""How much memory tuning will take, said before it starts, from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

from mixedprec.tuning.reconstruction import tuned_blocks
from sensitivity.footprint import ALLOCATOR, TENSORS_ALIVE, graphs_of
from vggtkit.scenes import Scene
from vggtkit.subject import Subject

FLOAT = 4
LEARNING = 9
"""Numbers for each weight that is learned: what it stands for, its gradient, the latent weight with its gradient and
two averages, and three on the way."""
HANDED = 3
"""How often what a block is given and hands on is there, for each scene twice."""


@dataclass(frozen=True)
class TuningForecast:
    """Bytes of memory that tuning takes beside the model's weights.

    Attributes:
        blocks: block by block; None where the model cannot be taken apart so.
        whole: of the whole model at once.
    """

    blocks: int | None
    whole: int


def forecast_tuning(subject: Subject, scene: Scene, scenes: int, output_bytes: int) -> TuningForecast | None:
    """What tuning will take.

    Args:
        subject: to be tuned.
        scene: any of the scenes.
        scenes: how many there are to tune on.
        output_bytes: of the model's outputs for one scene.

    Returns:
        The estimate; None for a large model that cannot run on the meta device.
    """
    count = graphs_of(subject, scene)
    if count is None:
        return None
    alive = TENSORS_ALIVE * count.largest
    passes = sum(count.graphs.values()) + count.between + alive
    weights = LEARNING * FLOAT * sum(layer.weights for layer in subject.layers)
    whole = weights + passes + scenes * output_bytes
    blocks = None
    if subject.segments_are_known:
        handed = max(count.handed.values(), default=0)
        waiting = 2 * scenes * (HANDED * handed + count.trunk_bytes + output_bytes)
        moments = [
            LEARNING * FLOAT * sum(layer.weights for layer in block.layers) + count.graphs.get(block.name, 0)
            for block in tuned_blocks(subject)
        ]
        blocks = int(ALLOCATOR * (waiting + alive + max(moments)))
    return TuningForecast(blocks, int(ALLOCATOR * whole))
