"""The viewer starts, hands out its page on this machine alone, and stops."""

import socket
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from analysis.reconstruction.differences import decades, differences
from analysis.reconstruction.folder import reconstruction_of
from analysis.reconstruction.pictures import photographs
from analysis.reconstruction.viewer import Side, difference_colours, lefts, serve
from analysis.reconstruction.views import Views
from tests.analysis.reconstruction.known import known_views
from vggtkit.core.errors import InputError


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def sides(photo_folder: Path) -> list[Side]:
    pictures = photographs(photo_folder, (16, 4), most=5)
    views = known_views(5)
    other = Views(1.01 * views.depth, views.confidence, views.extrinsics, views.intrinsics)
    made = [reconstruction_of(pictures, each, 20) for each in (views, other)]
    found = differences(made[1].views, made[0].views, pictures.shown())
    return [Side("FP32", made[0]), Side("plan", made[1], found)]


def test_sides_stand_beside_each_other(sides: list[Side]) -> None:
    clouds = [side.made.cloud for side in sides]
    ends = [
        move + np.quantile(cloud.points[:, 0], (0.02, 0.98)) for move, cloud in zip(lefts(clouds), clouds, strict=True)
    ]
    assert ends[0][0] == pytest.approx(0, abs=1e-6)
    assert ends[1][0] > ends[0][1]


def test_points_have_the_colour_of_their_distance(sides: list[Side]) -> None:
    cloud, found = sides[1].made.cloud, sides[1].differences
    colours = difference_colours(sides[1], cloud)
    whole = decades(found.distances[2], sides[1].made.pictures.shown()[2])
    own = cloud.views == 2
    np.testing.assert_array_equal(colours[own], whole[cloud.pixels[own, 1], cloud.pixels[own, 0]])


def test_the_page_is_served_here_and_stops(sides: list[Side]) -> None:
    pytest.importorskip("viser", reason="viser is in the extra 'view'")
    server = serve(sides, port=free_port())
    address = f"http://127.0.0.1:{server.get_port()}"
    try:
        assert server.get_host() == "127.0.0.1"
        with urllib.request.urlopen(address, timeout=30) as answer:
            page = answer.read().decode()
        assert answer.status == 200
        assert "<html" in page.lower()
    finally:
        server.stop()
    with pytest.raises(OSError, match=r"refused|reset"), urllib.request.urlopen(address, timeout=5):
        pass


def test_without_viser_the_way_to_get_it_is_said(sides: list[Side], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.reconstruction.viewer.importlib.util.find_spec", lambda _name: None)
    with pytest.raises(InputError, match=r"pip install 'vggt-mixedprec\[view\]'"):
        serve(sides)
