"""Places that something is changed of, and what is said of the moves between them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.audit.transfer import SceneSide, transfer
from analysis.evaluation.evaluator import Evaluator
from benchmarks.transfer import KINDS, Place, exposed, mixes, summary
from mixedprec import data_free, parse_request
from vggtkit.model import load_vggt
from vggtkit.scenes import SceneSource, load_scenes
from vggtkit.subject import subject_of


def test_places_are_what_their_names_say() -> None:
    """Half the light is half of the linear values; what would be above white is white."""
    plain, dark, wide = (Place("rooms", stops=-1), Place("rooms", pixels=32), Place("rooms", views=3, pixels=32))
    assert [place.name for place in (plain, dark, wide)] == ["rooms, -1 stops", "rooms, 32 px", "rooms, 3 views, 32 px"]
    (scene,), (darker,) = (
        Place("rooms", pixels=32, stops=stops).scenes(Path(), "evaluation", 1, 8) for stops in (0, -1)
    )
    assert scene.images.shape == (2, 3, 32, 32)
    np.testing.assert_allclose(darker.images**2.2, scene.images**2.2 / 2, rtol=1e-4)
    assert exposed(torch.tensor([0.9]), 3) == 1
    (three,) = wide.scenes(Path(), "evaluation", 1, 8)
    assert len(three.images) == 3


def test_the_worst_of_every_group_of_moves_is_told() -> None:
    rows = [
        ("rooms", "kitchen", 0.95, 5.0, 1.2),
        ("kitchen", "rooms", 0.85, 6.0, 1.1),
        ("rooms", "rooms, 4 views", 0.99, 2.0, 1),
        ("rooms", "rooms, 96 px", 0.97, 9.0, 1),
        ("kitchen", "rooms, 96 px", 0.5, 0.5, 9.0),
        ("rooms, 96 px", "rooms", 0.9, 3.0, 2.0),
    ]
    moves = [
        {"from": a, "to": b, "correlation": correlation, "times_better": better, "regret": regret}
        for a, b, correlation, better, regret in rows
    ]
    said = summary(moves, ["rooms", "kitchen"])
    assert [(name, row["moves"], row["through_the_gate"]) for name, row in said.items()] == [
        ("all", 6, 3), ("between kinds", 2, 1), ("to the same kind with other views", 1, 0),
        ("to the same kind with other px", 1, 1),
    ]  # fmt: skip
    assert said["between kinds"] == {
        "moves": 2, "through_the_gate": 1, "least_correlation": 0.85, "least_times_better": 5.0, "largest_regret": 1.2,
    }  # fmt: skip


def test_mixes_of_all_kinds_are_judged_everywhere_the_safest_first(model_folder: Path) -> None:
    """A mix of one kind is that kind: its worst regret is that of its own moves."""
    subject = subject_of(load_vggt(str(model_folder)))
    rooms = load_scenes(SceneSource(count=2, views=2), "evaluation", img_size=32, patch_size=8)
    evidence = data_free(str(model_folder), candidates=("int8_per_channel_sym", "int4_group_128", "int4_two_level_16"))
    sides = [
        SceneSide(name, evidence, Evaluator(subject, [room]))
        for name, room in zip(("rooms", "kitchen"), rooms, strict=True)
    ]
    request = parse_request("int4_group_128", formats="all")
    own = transfer(sides, request)
    rows = mixes(sides, ["rooms", "kitchen"], request, own)
    assert [len(row["mix"]) for row in sorted(rows, key=lambda row: len(row["mix"]))] == [1, 1, 2]
    assert rows == sorted(rows, key=lambda row: row["worst_regret"])
    alone = next(row for row in rows if row["mix"] == ["kitchen"])
    assert alone["worst_regret"] == pytest.approx(max(own.of("kitchen", place).regret for place in own.places))
    assert alone["worst_regret_at_other_kinds"] == pytest.approx(own.of("kitchen", "rooms").regret)
    assert math.isfinite(alone["least_times_better_than_uniform"])
    assert {place.kind for place in KINDS} == {"rooms", "kitchen", "hololens", "room"}
