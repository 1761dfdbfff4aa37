"""Moving plans between kinds of scenes, where what has to come out is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from analysis.audit.transfer import EVERYTHING, OTHERS, SceneSide, Transfer, mixed, transfer
from analysis.audit.transfer_view import transfer_sentences, transfer_tables, transfer_values
from analysis.evaluation.evaluator import Evaluator
from analysis.report.charts.transfer_chart import draw_transfer
from mixedprec import Evidence, data_free, parse_request, planned, uniform_assignment
from vggtkit.core.errors import InputError
from vggtkit.model import load_vggt
from vggtkit.scenes import SceneSource, load_scenes
from vggtkit.subject import subject_of

KEYS = ("int8_per_channel_sym", "int4_group_128", "int4_two_level_16", "int3_group_32", "fp16")
REQUEST = parse_request("int4_group_128", formats="all")


@pytest.fixture(scope="module")
def places(model_folder: Path) -> list[SceneSide]:
    """One network on three rooms; the scores of the third say the opposite of those of the first."""
    subject = subject_of(load_vggt(str(model_folder)))
    rooms = load_scenes(SceneSource(count=3, views=2), "evaluation", img_size=32, patch_size=8)
    first = data_free(str(model_folder), candidates=KEYS)
    noise = np.random.default_rng(0)
    second = {name: values * noise.uniform(0.9, 1.1, values.shape) for name, values in first.damage.items()}
    third = {name: values.max() / (1 + values / values.max()) ** 9 for name, values in first.damage.items()}
    evidences = [replace(first, changes={}, damage=damage) for damage in (first.damage, second, third)]
    return [
        SceneSide(name, evidence, Evaluator(subject, [room]))
        for name, evidence, room in zip(("rooms", "photos", "opposite"), evidences, rooms, strict=True)
    ]


@pytest.fixture(scope="module")
def found(places: list[SceneSide]) -> Transfer:
    return transfer(places, REQUEST)


def test_every_plan_is_judged_on_every_place(places: list[SceneSide], found: Transfer) -> None:
    """Damage, regret and correlation by plans that are made and measured here, and by scipy."""
    rooms, photos = places[:2]
    plan = planned(rooms.evidence, rooms.evaluator.subject, REQUEST).plan
    own = planned(photos.evidence, photos.evaluator.subject, REQUEST).plan
    damage, damage_of_own = (photos.evaluator.measure(each.formats).damage for each in (plan, own))
    row = found.of("rooms", "photos")
    assert row.damage == pytest.approx(damage)
    assert row.regret == pytest.approx(damage / damage_of_own)
    expected = spearmanr(rooms.evidence.total_damage.ravel(), photos.evidence.total_damage.ravel()).statistic
    assert row.correlation == pytest.approx(expected)
    assert row.by_output["depth"] == pytest.approx(
        spearmanr(rooms.evidence.damage["depth"].ravel(), photos.evidence.damage["depth"].ravel()).statistic
    )
    uniform = uniform_assignment(rooms.evidence.layers, "int4_group_128")  # INT8 is much larger
    assert found.uniform["photos"] == ("INT4 g128", pytest.approx(photos.evaluator.measure(uniform).damage))
    assert row.times_better == pytest.approx(found.uniform["photos"][1] / damage)
    assert [found.of(name, name).regret for name in found.places] == [1, 1, 1]


def test_the_gate_is_passed_or_failed_in_words(found: Transfer, tmp_path: Path) -> None:
    assert not found.passes
    assert len(found.moved) == 6
    failing = {(row.calibration, row.place) for row in found.moved if row.correlation < 0.9}
    assert failing == {
        pair for pair in ((a, b) for a in found.places for b in found.places if a != b) if "opposite" in pair
    }
    said, safest = transfer_sentences(found)
    assert said.startswith("GATE FAILED by")
    assert "opposite to rooms: correlation -" in said
    assert found.safest == min(found.worst, key=found.worst.__getitem__)
    assert safest.startswith(f"Safest calibration: {found.safest}")
    assert set(found.worst) == {"rooms", "photos", "opposite", EVERYTHING, OTHERS}
    assert len(transfer_tables(found)[0].rows) == 15
    assert transfer_values(found)["gate"] == {"correlation": 0.9, "times_better": 3.0, "passed": False}
    passing = replace(found, rows=tuple(replace(row, correlation=0.9, times_better=3.0) for row in found.rows))
    assert transfer_sentences(passing)[0].startswith("Gate passed by all 6 moves")
    barely = replace(found, rows=tuple(replace(row, correlation=0.9, times_better=2.99) for row in found.rows))
    assert not barely.passes
    draw_transfer(found, tmp_path / "transfer.png")
    assert (tmp_path / "transfer.png").read_bytes()[:4] == b"\x89PNG"


def test_a_mix_counts_every_profile_alike(places: list[SceneSide]) -> None:
    """Signed changes of 1 and 4 scenes: their mean square is the mean of both damages, as it is for each alone."""
    generator = np.random.default_rng(1)
    own = []
    for scenes in (1, 4):
        shape = (*places[0].evidence.size_bytes.shape, scenes, 2)
        changes = {name: generator.standard_normal(shape).astype(np.float32) for name in places[0].evidence.damage}
        damage = {name: np.square(values, dtype=np.float64).mean((2, 3)) for name, values in changes.items()}
        own.append(replace(places[0].evidence, changes=changes, damage=damage))
    both = mixed(own)
    assert both.joint_changes is not None
    np.testing.assert_allclose(np.square(both.joint_changes).sum((2, 3)), both.total_damage, rtol=1e-5)
    np.testing.assert_allclose(both.total_damage, (own[0].total_damage + own[1].total_damage) / 2)


def test_what_cannot_be_compared_is_refused(places: list[SceneSide]) -> None:
    def other(evidence: Evidence) -> Evidence:
        return replace(evidence, facts={**evidence.facts, "model_fingerprint": "f" * 16})

    with pytest.raises(InputError, match="two runs or more"):
        transfer(places[:1], REQUEST)
    with pytest.raises(InputError, match="rooms is named twice"):
        transfer([places[0], places[0]], REQUEST)
    with pytest.raises(InputError, match="different networks"):
        transfer([places[0], replace(places[1], evidence=other(places[1].evidence))], REQUEST)
