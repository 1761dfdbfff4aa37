"""Chunks overlap by one picture, are as few as can be, and as long as memory allows."""

import itertools

import pytest

from analysis.reconstruction.chunks import cut, most_at_once


@pytest.mark.parametrize("most", range(2, 9))
@pytest.mark.parametrize("count", range(1, 30))
def test_chunks_cover_all_pictures_and_share_one(count: int, most: int) -> None:
    chunks = cut(count, most)
    assert sorted({number for chunk in chunks for number in chunk}) == list(range(count))
    assert all(
        first[-1] == second[0] and len({*first} & {*second}) == 1 for first, second in itertools.pairwise(chunks)
    )
    assert max(map(len, chunks)) <= most
    reach = 1 + len(chunks) * (most - 1)  # what so many chunks could cover; one fewer could not
    assert reach >= count > reach - (most - 1) or len(chunks) == 1
    assert max(map(len, chunks)) - min(map(len, chunks)) <= 1


@pytest.mark.parametrize("allowed", [0, 5, 8, 20, 41, 100, 10**6])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_as_many_as_fit(count: int, allowed: int) -> None:
    def peak(pictures: int) -> int:
        return 3 + pictures * pictures

    fitting = [pictures for pictures in range(1, count + 1) if peak(pictures) <= allowed]
    expected = max(fitting, default=0)
    found = most_at_once(peak, allowed, count)
    assert found == (expected if expected >= min(2, count) else 0)
    assert most_at_once(peak, None, count) == count
