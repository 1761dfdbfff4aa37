"""Memory decides how many pictures are seen at once, and what does not fit is refused with both numbers."""

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from torch.utils.flop_counter import FlopCounterMode

from analysis.reconstruction import needs as needs_module
from analysis.reconstruction.needs import LONG, QUICK_PASS, ReconstructionNeeds, needs_of
from analysis.reconstruction.pictures import Pictures, photographs
from analysis.reconstruction.views import SEEN_HEADS
from analysis.timing.activations import ShapeCosts, shape_costs
from tests.random_vggt import random_vggt
from vggtkit.core.errors import InputError
from vggtkit.model import VGGTConfig
from vggtkit.subject import VGGTSubject

KEPT = 8 * 2 * 4 * 24 * 32
"""Depth and confidence of eight pictures."""


@pytest.fixture(scope="module")
def subject(tiniest_config: VGGTConfig) -> VGGTSubject:
    return VGGTSubject(random_vggt(tiniest_config).eval()).with_heads(SEEN_HEADS)


@pytest.fixture(scope="module")
def pictures(photo_folder: Path) -> Pictures:
    return photographs(photo_folder, (32, 8))


@pytest.fixture(scope="module")
def costs(subject: VGGTSubject, pictures: Pictures) -> Callable[[int], ShapeCosts]:
    """Of a pass on so many pictures."""

    @cache
    def of(count: int) -> ShapeCosts:
        found = shape_costs(subject, pictures.scene(range(count)))
        assert found
        return found

    return of


def needed(
    subject: VGGTSubject, pictures: Pictures, free: int | None, at_once: int | None = None
) -> ReconstructionNeeds:
    return needs_of(subject, subject, pictures, weights=(100, 0), at_once=at_once, free=lambda _device: free)


def test_all_pictures_go_together_where_there_is_room(
    subject: VGGTSubject, pictures: Pictures, costs: Callable[[int], ShapeCosts]
) -> None:
    needs = needed(subject, pictures, 10**12)
    assert needs.chunks == (range(8),)
    assert needs.forecast.activation_bytes == costs(8).peak_bytes
    assert needs.kept_bytes == KEPT
    assert needs.forecast.seconds is not None
    assert needs.forecast.seconds > 0
    assert len(needs.sentences()) == 1


def test_chunks_stay_within_what_is_free_and_are_told(
    subject: VGGTSubject, pictures: Pictures, costs: Callable[[int], ShapeCosts]
) -> None:
    free = int((costs(4).peak_bytes + KEPT) / 0.8) + 2
    needs = needed(subject, pictures, free)
    assert [len(chunk) for chunk in needs.chunks] == [3, 3, 4]
    assert f"CHUNKS OF {max(map(len, needs.chunks))} PICTURES" in needs.sentences()[1]


def test_what_does_not_fit_is_refused(
    subject: VGGTSubject, pictures: Pictures, costs: Callable[[int], ShapeCosts]
) -> None:
    with pytest.raises(InputError, match=r"2 pictures of 24x32 need .* of memory, 1\.000 kB are free: give a lower"):
        needed(subject, pictures, 1000)
    with pytest.raises(InputError, match=r"4 pictures of 24x32 need"):
        needed(subject, pictures, int(costs(3).peak_bytes / 0.8), at_once=4)


def test_operations_are_those_that_torch_counts(
    subject: VGGTSubject, pictures: Pictures, costs: Callable[[int], ShapeCosts]
) -> None:
    """On the processor, but for products of attention, which are counted there in another way."""
    with FlopCounterMode(display=False) as counter:
        subject.run(pictures.scene(range(3)))
    counted = counter.get_flop_counts()["Global"]
    products = sum(count for operation, count in counted.items() if "attention" not in str(operation))
    assert products <= costs(3).operations == pytest.approx(products, rel=0.1)


def test_the_sentence_has_the_numbers(subject: VGGTSubject, pictures: Pictures) -> None:
    needs = needed(subject, pictures, 2 * 10**9, at_once=4)
    timed = dataclasses.replace(needs, forecast=dataclasses.replace(needs.forecast, seconds=12.34))
    assert timed.sentences()[0].startswith("8 pictures in 3 passes: about ")
    assert timed.sentences()[0].endswith("of weights, about 12.3 s")


@pytest.mark.parametrize("speed", [1e9, 1e5], ids=["quick", "slow"])
def test_the_forecast_follows_a_network_that_is_quicker_on_more(
    subject: VGGTSubject,
    pictures: Pictures,
    monkeypatch: pytest.MonkeyPatch,
    speed: float,
    costs: Callable[[int], ShapeCosts],
) -> None:
    """Seconds as a power of operations below 1, and a constant: products get quicker the larger they are."""
    seen = []

    def seconds(views: int) -> float:
        return 0.01 + (costs(views).operations / speed) ** 0.7

    def timed(_subject: object, _pictures: object, views: int) -> float:
        seen.append(views)
        return seconds(views)

    monkeypatch.setattr(needs_module, "_timed", timed)
    forecast = needed(subject, pictures, 10**12).forecast.seconds
    if seconds(1) > LONG:
        assert seen == [1]
    else:
        assert seconds(8) < QUICK_PASS
        assert set(seen) == {1, 2, 4, 8}
        assert forecast == pytest.approx(seconds(8))
