"""Reconstructions side by side in a browser, by viser, the viewer of VGGT's own demonstration."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.reconstruction.cloud import Cloud
from analysis.reconstruction.differences import Differences, decades
from analysis.reconstruction.folder import Reconstruction
from analysis.reconstruction.views import Views
from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.model.geometry import quaternion_from_rotation

if TYPE_CHECKING:
    from viser import ViserServer

LOCALHOST = "127.0.0.1"
MOST_SENT = 400_000
"""Points of one side that a browser is sent."""
GAP = 0.15
"""Between two sides, as a share of their width."""
SHOWN = (0.02, 0.98)
"""Quantiles that count for the width of a side: the wildest points do not."""


@dataclass(frozen=True)
class Side:
    """A reconstruction, and what it is called.

    Attributes:
        title: above it.
        made: the reconstruction.
        differences: from the side at its left; None where there is none.
    """

    title: str
    made: Reconstruction
    differences: Differences | None = None


def check_viser() -> None:
    """Refuse to go on without viser.

    Raises:
        InputError: with the way to get it.
    """
    if importlib.util.find_spec("viser") is None:
        raise InputError("viser is not installed: get it with `pip install 'vggt-mixedprec[view]'`")


def serve(sides: Sequence[Side], host: str = LOCALHOST, port: int = 8080) -> ViserServer:
    """Show reconstructions side by side; the server runs in threads of its own until it is stopped.

    Args:
        sides: from left to right.
        host: address to listen on; the default is seen by this machine alone.
        port: to listen on; where it is taken, the next that is free.

    Returns:
        The server, which says its address by ``get_host`` and ``get_port``.

    Raises:
        InputError: viser is not installed, or the address cannot be listened on.
    """
    check_viser()
    import viser

    try:
        with redirect_stdout(io.StringIO()):  # it prints a banner where results go
            server = viser.ViserServer(host=host, port=port, verbose=False, label="Reconstruction")
    except (OSError, RuntimeError) as error:
        raise InputError(f"{setting('host', host)} {setting('port', port)}: {error}; name others") from error
    server.scene.set_up_direction("-y")
    server.gui.configure_theme(show_share_button=False)
    clouds, cameras = [], []
    for number, (side, left) in enumerate(zip(sides, lefts([side.made.cloud for side in sides]), strict=True)):
        clouds.append(_add_cloud(server, f"/{number}", side, left))
        cameras += _add_cameras(server, f"/{number}", side.made.views, left, side.made.images)
    _add_controls(server, sides, clouds, cameras)
    server.on_client_connect(lambda client: _look_at_all(client, sides))
    return server


def stop(server: ViserServer) -> None:
    """Stop serving."""
    with redirect_stdout(io.StringIO()):
        server.stop()


def _look_at_all(client: Any, sides: Sequence[Side]) -> None:  # noqa: ANN401
    """Begin above and behind the cameras, with all sides in sight."""
    points = [
        cloud.points + np.array([left, 0, 0])
        for cloud, left in zip((side.made.cloud for side in sides), lefts([s.made.cloud for s in sides]), strict=True)
    ]
    low, high = np.quantile(np.concatenate(points), SHOWN, axis=0)
    middle, width = (low + high) / 2, float(np.linalg.norm(high - low))
    client.camera.position = tuple(middle + width * np.array([0, -0.4, -1.0]))
    client.camera.look_at = tuple(middle)


def lefts(clouds: Sequence[Cloud]) -> list[float]:
    """How far every cloud is moved along x, so that none covers another."""
    moves, end = [], 0.0
    for cloud in clouds:
        low, high = (float(value) for value in np.quantile(cloud.points[:, 0], SHOWN)) if len(cloud) else (0.0, 1.0)
        moves.append(end - low)
        end += (1 + GAP) * max(high - low, 1e-6)
    return moves


def difference_colours(side: Side, cloud: Cloud) -> NDArray[np.uint8]:
    """Colours of points by how far they are from the other side's, from 0.01 % to 100 % of the spread of all."""
    assert side.differences is not None
    shares = side.differences.distances[cloud.views, cloud.pixels[:, 1], cloud.pixels[:, 0]]
    colours: NDArray[np.uint8] = decades(shares[None], np.ones((1, len(cloud)), dtype=np.bool_))[0]
    return colours


def _add_cloud(server: ViserServer, name: str, side: Side, left: float) -> Any:  # noqa: ANN401
    cloud = side.made.cloud.spread(MOST_SENT)
    top = float(np.quantile(cloud.points[:, 1], SHOWN[0])) if len(cloud) else 0.0
    centre = float(np.median(cloud.points[:, 0])) if len(cloud) else 0.0
    server.scene.add_label(f"{name}/title", side.title, position=(left + centre, 1.1 * top, 1.0))
    return server.scene.add_point_cloud(
        f"{name}/points", cloud.points, cloud.colours, point_size=_spacing(side.made.views), position=(left, 0.0, 0.0),
        precision="float32",
    )  # fmt: skip


def _spacing(views: Views) -> float:
    """About what two neighbouring pixels are apart."""
    typical = float(np.median(views.depth[views.depth > 0])) if (views.depth > 0).any() else 1.0
    return typical / float(views.intrinsics[:, 0, 0].mean())


def _add_cameras(server: ViserServer, name: str, views: Views, left: float, images: NDArray[np.uint8]) -> list[Any]:
    turned = torch.from_numpy(views.extrinsics[:, :, :3].transpose(0, 2, 1).copy())
    x, y, z, w = quaternion_from_rotation(turned).unbind(-1)
    wxyz, centres = torch.stack([w, x, y, z], -1).numpy(), views.centres
    height, width = views.depth.shape[1:]
    size = 0.1 * float(np.median(views.depth[views.depth > 0])) if (views.depth > 0).any() else 0.1
    return [
        server.scene.add_camera_frustum(
            f"{name}/cameras/{number + 1}", fov=2 * float(np.arctan(height / 2 / views.intrinsics[number, 1, 1])),
            aspect=width / height, scale=size, image=images[number], wxyz=wxyz[number],
            position=centres[number] + np.array([left, 0, 0]),
        )
        for number in range(len(views))
    ]  # fmt: skip


def _add_controls(server: ViserServer, sides: Sequence[Side], clouds: Sequence[Any], cameras: Sequence[Any]) -> None:
    """Size of points, cameras, and the colours of what differs."""
    size = server.gui.add_slider("Size of points", min=0.2, max=5.0, step=0.1, initial_value=1.0)
    sizes = [cloud.point_size for cloud in clouds]
    shows = server.gui.add_checkbox("Cameras", initial_value=True)

    def resize(_event: object) -> None:
        for cloud, own in zip(clouds, sizes, strict=True):
            cloud.point_size = own * size.value

    def show_cameras(_event: object) -> None:
        for camera in cameras:
            camera.visible = shows.value

    size.on_update(resize)
    shows.on_update(show_cameras)
    compared = [(side, cloud) for side, cloud in zip(sides, clouds, strict=True) if side.differences is not None]
    if not compared:
        return
    differs = server.gui.add_checkbox("Colour by distance from FP32 (dark 0.01 %, bright 100 %)", initial_value=False)

    def recolour(_event: object) -> None:
        for side, cloud in compared:
            sent = side.made.cloud.spread(MOST_SENT)
            cloud.colors = difference_colours(side, sent) if differs.value else sent.colours

    differs.on_update(recolour)
