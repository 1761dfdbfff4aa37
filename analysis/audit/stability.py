"""Is a score the same on other scenes, with more views, at another size? How many scenes and probes are enough?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.audit.ranks import rank_correlation
from sensitivity.jacobian_sketch import sketch_damage
from sensitivity.replay import passes_over
from sensitivity.weight_errors import WeightErrors
from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError
from vggtkit.metrics.tensors import nmse
from vggtkit.quant import Layer, weight_of
from vggtkit.scenes import Scene, SceneSource, load_scenes
from vggtkit.subject import Subject

VIEWS = (1, 2, 4, 8)
REPEATS = 6
"""Single probes of one scene, for their variance."""
OTHER_SCENES = 2
"""Scenes of every other number of views and size."""
FLOOR_LAYERS = 12
ENOUGH = 0.99
"""Rank correlation with the mean over the other scenes from which on more scenes change nothing that matters."""


@dataclass(frozen=True)
class Stability:
    """What repetitions of the sketch say.

    Attributes:
        probe_deviation: relative standard deviation of a single probe's estimate on one scene, median over pairs.
        scene_deviation: the same over scenes, without the part that is due to the probes.
        probes: as used.
        scenes: rank correlation of the sketch on single scenes, mean over pairs of scenes.
        by_count: with the first n scenes against the mean over all others, by n.
        enough: the smallest n whose correlation reaches `ENOUGH`; 0 where none does.
        views: rank correlation with the sketch of the profile, by number of views.
        sizes: the same by side of the pictures in pixels.
        floors: true damage per output of a change by one rounding error; below it nothing is told apart.
        resolution: factor by which two layers' sketches must differ to be told apart at 95 %.
    """

    probe_deviation: float
    scene_deviation: float
    probes: int
    scenes: float
    by_count: Mapping[int, float]
    enough: int
    views: Mapping[int, float]
    sizes: Mapping[int, float]
    floors: Mapping[str, float]
    resolution: float


class Sketcher:
    """Sketches of one model in some formats, as ``[layers, formats]``, mean over outputs."""

    def __init__(self, subject: Subject, layers: Sequence[Layer], schemes: Sequence[str], probes: int) -> None:
        self.subject, self.layers, self.probes = subject, layers, probes
        self.errors = WeightErrors(subject.model, layers, schemes)

    def __call__(self, scene: Scene, seed: int, probes: int = 0) -> Array:
        """The sketch on one scene."""
        damage = sketch_damage(self.subject, self.layers, self.errors, scene, probes=probes or self.probes, seed=seed)
        return np.asarray(np.mean([value.numpy() for value in damage.values()], axis=0))

    def mean(self, scenes: Sequence[Scene], seed: int) -> Array:
        """Mean over scenes."""
        return np.asarray(np.mean([self(scene, seed + number) for number, scene in enumerate(scenes)], axis=0))


def stability(
    sketcher: Sketcher,
    source: SceneSource,
    count: int,
    step: Callable[[str], None] = lambda _: None,
) -> Stability:
    """Repeat the sketch on ``count`` scenes, on other numbers of views and other sizes.

    Args:
        sketcher: of the profiled model.
        source: the profiled one; more scenes of its calibration half are taken.
        count: of scenes.
        step: told what comes next.
    """
    scenes = _scenes(sketcher.subject, dataclasses.replace(source, count=count))
    singles = []
    for repeat in range(REPEATS):
        step("single probes")
        singles.append(sketcher(scenes[0], 1000 + repeat, probes=1))
    whole = []
    for number, scene in enumerate(scenes):
        step("scene by scene")
        whole.append(sketcher(scene, number))
    reference = np.mean(whole, axis=0)
    views, sizes = {}, {}
    for number in VIEWS:
        step(f"{number} views")
        if number == source.views:
            views[number] = _self_correlation(whole)
        elif other := _other(sketcher.subject, source, views=number):
            views[number] = rank_correlation(sketcher.mean(other, 2000), reference)
    side = sketcher.subject.picture_sizes[0]
    for factor in (0.75, 1.25):
        step("other sizes")
        patch = sketcher.subject.picture_sizes[1]
        size = max(patch, round(factor * side / patch) * patch)
        if other := _other(sketcher.subject, source, size=size):
            sizes[size] = rank_correlation(sketcher.mean(other, 3000), reference)
    step("noise floor")
    probe, scene_part = _deviations(singles, whole, sketcher.probes)
    by_count = _by_count(whole)
    spread = np.sqrt(scene_part**2 + probe**2 / sketcher.probes) / np.sqrt(max(1, source.count))
    return Stability(
        probe_deviation=probe,
        scene_deviation=scene_part,
        probes=sketcher.probes,
        scenes=_self_correlation(whole),
        by_count=by_count,
        enough=next((n for n, value in by_count.items() if value >= ENOUGH), 0),
        views=views,
        sizes=sizes,
        floors=rounding_floors(sketcher.subject, sketcher.layers, scenes[0]),
        resolution=float(np.exp(1.96 * np.sqrt(2) * np.sqrt(np.log1p(spread**2)))),
    )


def rounding_floors(subject: Subject, layers: Sequence[Layer], scene: Scene) -> dict[str, float]:
    """True damage per output of changing a layer's weight by a rounding error of FP32 (one part in 2^23).

    Median over some layers that the output depends on; what quantisation does below it is not told from rounding.
    """
    passes = passes_over(subject, scene)
    damages: dict[str, list[float]] = {name: [] for name in passes.outputs}
    for layer in layers[:: max(1, len(layers) // FLOOR_LAYERS)]:
        weight = weight_of(subject.model, layer).detach()
        for name, value in passes.changed(layer, [weight * (1 + 2.0**-23)]).items():
            damage = nmse(passes.outputs[name].cpu(), value.cpu())
            if damage > 0:
                damages[name].append(damage)
    return {name: float(np.median(values)) if values else 0.0 for name, values in damages.items()}


def _other(subject: Subject, source: SceneSource, *, views: int = 0, size: int = 0) -> list[Scene]:
    """Scenes of another kind; none where the source has not enough pictures for them."""
    other = dataclasses.replace(source, count=OTHER_SCENES, views=views or source.views)
    try:
        return _scenes(subject, other, size)
    except InputError:
        return []


def _scenes(subject: Subject, source: SceneSource, size: int = 0) -> list[Scene]:
    side, patch = subject.picture_sizes
    return load_scenes(source, "calibration", img_size=size or side, patch_size=patch)


def _self_correlation(whole: Sequence[Array]) -> float:
    pairs = [rank_correlation(a, b) for number, a in enumerate(whole) for b in whole[:number]]
    return float(np.mean(pairs)) if pairs else float("nan")


def _by_count(whole: Sequence[Array]) -> dict[int, float]:
    """The first n scenes against all others; at least half of them are the others."""
    counts = range(1, len(whole) // 2 + 1)
    return {n: rank_correlation(np.mean(whole[:n], axis=0), np.mean(whole[n:], axis=0)) for n in counts}


def _deviations(singles: Sequence[Array], whole: Sequence[Array], probes: int) -> tuple[float, float]:
    """Relative standard deviation of one probe, and of scenes once the probes' part is taken off."""
    probe = _relative(singles)
    scene = _relative(whole)
    return probe, float(np.sqrt(max(0.0, scene**2 - probe**2 / probes)))


def _relative(samples: Sequence[Array]) -> float:
    if len(samples) < 2:
        return 0.0
    mean, deviation = np.mean(samples, axis=0), np.std(samples, axis=0, ddof=1)
    return float(np.median(deviation[mean > 0] / mean[mean > 0]))
