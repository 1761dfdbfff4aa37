"""Groups of frames: disjoint, of one recording, as many and as long as asked."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vggtkit.scenes.sampling import label, split_pictures


@settings(max_examples=100)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    views=st.integers(1, 6),
    count=st.integers(1, 6),
    stride=st.integers(1, 4),
    most=st.none() | st.integers(2, 40),
    sampling=st.sampled_from(["runs", "random"]),
    seed=st.integers(0, 5),
)
def test_splits_and_scenes_never_share_a_frame(lengths, views, count, stride, most, sampling, seed) -> None:
    options = {"stride": stride, "max_images": most, "sampling": sampling, "seed": seed}
    splits = split_pictures(lengths, views=views, count=count, **options)
    groups = splits["calibration"] + splits["evaluation"]
    frames = [(recording, index) for recording, indices in groups for index in indices]
    assert len(frames) == len(set(frames))
    assert all(0 <= index < lengths[recording] and index % stride == 0 for recording, index in frames)
    assert most is None or len(frames) <= most
    assert len({len(indices) for _, indices in groups}) == 1
    assert all(list(indices) == sorted(indices) and len(indices) <= views for _, indices in groups)
    assert all(len(own) <= count for own in splits.values())
    assert splits == split_pictures(lengths, views=views, count=count, **options)


@pytest.mark.parametrize(
    ("lengths", "options", "calibration", "evaluation"),
    [
        ([10], {"views": 2, "stride": 2}, [(0, (0, 2))], [(0, (4, 6))]),
        ([4, 4], {"views": 4}, [(0, (0, 1, 2, 3))], [(1, (0, 1, 2, 3))]),
        ([3, 3], {"views": 4}, [(0, (0, 1, 2))], [(1, (0, 1, 2))]),
        ([2, 6], {"views": 3}, [(1, (0, 1, 2))], [(1, (3, 4, 5))]),
        ([9], {"views": 2, "stride": 2, "max_images": 4}, [(0, (0, 2))], [(0, (4, 6))]),
        ([1], {"views": 2}, [(0, (0,))], []),
    ],
    ids=["stride", "two-recordings", "both-shorter", "one-too-short", "stride-then-max", "single"],
)
def test_runs_are_split_in_turn(lengths, options, calibration, evaluation) -> None:
    assert split_pictures(lengths, count=4, **options) == {"calibration": calibration, "evaluation": evaluation}


def test_random_groups_follow_the_seed_and_reach_over_the_recording() -> None:
    first, again, other = (split_pictures([100], views=4, count=5, sampling="random", seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    spans = [indices[-1] - indices[0] for own in first.values() for _, indices in own]
    assert min(spans) > 3  # neighbours would span 3
    assert sum(spans) / len(spans) > 30


@pytest.mark.parametrize(
    ("frames", "expected"),
    [([7], "[7:8]"), ([2, 3], "[2:4]"), ([0, 5, 10], "[0:11:5]"), ([3, 4, 9], "[3,4,9]")],
    ids=str,
)
def test_labels_tell_the_frames(frames: list[int], expected: str) -> None:
    assert label(frames) == expected
