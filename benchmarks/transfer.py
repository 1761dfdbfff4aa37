"""Does a sensitivity travel between kinds, views, resolutions and exposures, and with outliers? JSON on the last line.

Run: ``python benchmarks/transfer.py --data DIR [--scenes 2] [--budget int4_group_128] [--twin]``, where DIR has the
folders ``kitchen``, ``room`` (photographs) and ``hololens`` (a recording with depth).

*Places* are kinds of scenes as they are, and with one thing changed: four views for two, 96 or 48 pixels for 64, two
stops darker or one and a half brighter (in linear light, clipped as a camera does). Every place is profiled on its
calibration half, and a plan from every profile is judged on the evaluation half of every place by the gate of
``audit --transfer`` (`analysis.audit.transfer`).

*Mixes* are all sets of the unchanged kinds, each kind counting alike, judged on all places. The safest is the one whose
worst regret is least: damage over that of the plan that was made there. With ``--twin`` the network is the one that
computes the same in FP32 with outlier channels (`vggtkit.model.folding.outlier_twin`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.audit.transfer import CORRELATION, TIMES_BETTER, SceneSide, Transfer, mixed, transfer
from analysis.audit.transfer_view import transfer_sentences
from analysis.evaluation.evaluator import Evaluator
from analysis.search.measuring import measured_all
from mixedprec import Evidence, Request, parse_request, planned
from mixedprec.palette import runnable_formats
from sensitivity import profile
from vggtkit.model import load_vggt, model_fingerprint
from vggtkit.model.folding import outlier_twin
from vggtkit.quant import UNIFORM_SCHEMES
from vggtkit.quant import candidates as scored_formats
from vggtkit.scenes import Scene, SceneSource, fingerprint, load_scenes
from vggtkit.scenes.source import Split
from vggtkit.subject import Subject, subject_of

GAMMA = 2.2
"""Between pixels and linear light."""
SCHEMES = ("int8_per_channel_sym",)
"""Captured layer by layer, of which nothing is asked here."""
CANDIDATES = tuple(dict.fromkeys((*UNIFORM_SCHEMES, *runnable_formats(scored_formats()))))
"""Formats of the plans, as of ``audit --transfer``, and of the uniform schemes beside them."""


@dataclass(frozen=True)
class Place:
    """A kind of scenes, perhaps with one thing changed.

    Attributes:
        kind: ``rooms``, or the name of a folder of the data.
        views: pictures in a scene.
        pixels: width.
        stops: brighter; darker below 0.
    """

    kind: str
    views: int = 2
    pixels: int = 64
    stops: float = 0.0

    @property
    def name(self) -> str:
        """The kind, and what is changed.

        >>> Place("rooms", views=4).name, Place("rooms", stops=-2).name
        ('rooms, 4 views', 'rooms, -2 stops')
        """
        changes = [
            f"{self.views} views" if self.views != 2 else "",
            f"{self.pixels} px" if self.pixels != 64 else "",
            f"{self.stops:+g} stops" if self.stops else "",
        ]
        return ", ".join(part for part in (self.kind, *changes) if part)

    def scenes(self, data: Path, split: Split, count: int, patch_size: int) -> list[Scene]:
        """Of one half, at most ``count``."""
        readers = {"rooms": ("synthetic", None), "hololens": ("rgbd", str(data / "hololens"))}
        kind, folder = readers.get(self.kind, ("photos", str(data / self.kind)))
        source = SceneSource(kind, folder, count=count, views=self.views, resolution=self.pixels)
        scenes = load_scenes(source, split, img_size=self.pixels, patch_size=patch_size)[:count]
        return [replace(scene, images=exposed(scene.images, self.stops)) for scene in scenes]


KINDS = tuple(Place(kind) for kind in ("rooms", "kitchen", "hololens", "room"))
CHANGED = (
    Place("rooms", views=4),
    Place("hololens", views=4),
    Place("rooms", pixels=48),
    Place("hololens", pixels=96),
    Place("hololens", stops=-2),
    Place("kitchen", stops=1.5),
)


def exposed(images: torch.Tensor, stops: float) -> torch.Tensor:
    """Pictures in [0, 1] with ``2**stops`` times the light, clipped.

    >>> exposed(torch.tensor([0.5, 1.0]), 0), exposed(torch.tensor([0.5, 1.0]), 5)
    (tensor([0.5000, 1.0000]), tensor([1., 1.]))
    """
    return images if not stops else (images**GAMMA * 2**stops).clamp(0, 1) ** (1 / GAMMA)


def side_of(subject: Subject, place: Place, data: Path, count: int, folder: Path) -> SceneSide:
    """A place, profiled on one half, ready to judge on the other."""
    patch_size = subject.picture_sizes[1]
    calibration = place.scenes(data, "calibration", count, patch_size)
    facts = {
        "model": "tiny", "weights": "pretrained", "model_fingerprint": model_fingerprint(subject.model),
        "scene_fingerprint": fingerprint(calibration), "seed": 0,
    }  # fmt: skip
    known = profile(
        subject, calibration, folder / f"{place.name}.h5", facts=facts, schemes=SCHEMES, candidates=CANDIDATES
    )
    return SceneSide(
        place.name, Evidence.of(known), Evaluator(subject, place.scenes(data, "evaluation", count, patch_size))
    )


def mixes(sides: Sequence[SceneSide], kinds: Sequence[str], request: Request, own: Transfer) -> list[dict[str, Any]]:
    """Plans of every set of kinds, judged everywhere; the safest first."""
    by_name = {side.name: side for side in sides}
    sets = [names for size in range(1, len(kinds) + 1) for names in itertools.combinations(kinds, size)]
    subject = sides[0].evaluator.subject
    evidences = [mixed([by_name[name].evidence for name in names]) for names in sets]
    plans = [planned(evidence, subject, request).plan.formats for evidence in evidences]
    damages = {side.name: [each.damage for each in measured_all(side.evaluator, plans)] for side in sides}
    rows = []
    for number, names in enumerate(sets):
        regrets = {place: values[number] / own.of(place, place).damage for place, values in damages.items()}
        better = {place: own.uniform[place][1] / values[number] for place, values in damages.items()}
        elsewhere = [regret for place, regret in regrets.items() if place.partition(",")[0] not in names]
        rows.append(
            {
                "mix": list(names), "worst_regret": max(regrets.values()),
                "worst_at": max(regrets, key=regrets.__getitem__),
                "worst_regret_at_other_kinds": max(elsewhere, default=None),
                "least_times_better_than_uniform": min(better.values()),
            }
        )  # fmt: skip
    return sorted(rows, key=lambda row: row["worst_regret"])


def travelled(sides: Sequence[SceneSide], request: Request) -> dict[str, Any]:
    """Every move, by the gate, and what the changes alone do."""
    result = transfer(sides, request)
    moves = [
        {
            "from": row.calibration, "to": row.place, "damage": row.damage, "regret": row.regret,
            "times_better": row.times_better, "correlation": row.correlation, "within": row.within,
            "least_of_camera_depth_points": min(row.by_output[key] for key in ("pose_enc", "depth", "world_points")),
        }
        for row in result.moved
    ]  # fmt: skip
    kinds = [place.name for place in KINDS if place.name in result.places]
    return {
        "said": transfer_sentences(result),
        "scenes": {name: list(names) for name, names in result.scenes.items()},
        "size_bytes": result.size_bytes,
        "uniform": {place: list(pair) for place, pair in result.uniform.items()},
        "own_damage": {name: result.of(name, name).damage for name in result.places},
        "summary": summary(moves, kinds),
        "mixes": mixes(sides, kinds, request, result),
        "moves": moves,
    }


def summary(moves: Sequence[Mapping[str, Any]], kinds: Sequence[str]) -> dict[str, Any]:
    """Worst of the moves between kinds, and of those from a kind to itself with something changed."""

    def worst(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "moves": len(rows),
            "through_the_gate": sum(
                row["correlation"] >= CORRELATION and row["times_better"] >= TIMES_BETTER for row in rows
            ),
            "least_correlation": min(row["correlation"] for row in rows),
            "least_times_better": min(row["times_better"] for row in rows),
            "largest_regret": max(row["regret"] for row in rows),
        }

    groups = {"all": list(moves), "between kinds": [m for m in moves if m["from"] in kinds and m["to"] in kinds]}
    for what in ("views", "px", "stops"):
        own = [move for move in moves if move["to"].startswith(f"{move['from']}, ") and move["to"].endswith(what)]
        groups[f"to the same kind with other {what}"] = own
    return {name: worst(rows) for name, rows in groups.items() if rows}


def main() -> None:
    """Profile, move, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=2)
    parser.add_argument("--budget", default="int4_group_128")
    parser.add_argument("--twin", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.process_time()
    model = load_vggt("tiny")
    subject = subject_of(outlier_twin(model) if given.twin else model)
    with tempfile.TemporaryDirectory() as folder:
        sides = []
        for place in (*KINDS, *CHANGED):
            sides.append(side_of(subject, place, given.data, given.scenes, Path(folder)))
            print(f"{place.name}: {time.process_time() - begun:.0f} s", file=sys.stderr, flush=True)
        result = travelled(sides, parse_request(given.budget, formats="runnable"))
    facts = {
        "network": "outlier twin" if given.twin else "bundled", "budget": given.budget, "scenes_at_most": given.scenes,
        "threads": 1, "processor_seconds": round(time.process_time() - begun, 1), "torch": str(torch.__version__),
        "machine": platform.machine(),
    }  # fmt: skip
    print(json.dumps(facts | result))


if __name__ == "__main__":
    main()
