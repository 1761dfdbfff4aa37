"""A relative of VGGT as a subject: any module, with what is published of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vggtkit.core.errors import InputError
from vggtkit.model.geometry import encode_pose
from vggtkit.quant import NameTable
from vggtkit.scenes import Scene
from vggtkit.subject.base import Call
from vggtkit.subject.family.description import Description, described
from vggtkit.subject.module import ModuleSubject
from vggtkit.subject.outputs import flatten_outputs

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours."""
WITH_CHANNEL = {"depth": 5, "world_points": 5}
"""Axes that published outputs have, batch and views included."""
AGREEMENT = "agreement"


class MemberSubject(ModuleSubject):
    """A module whose class is described.

    Args:
        model: in eval mode, not packed.
        source: as `open_subject` takes it.
        names: roles and blocks; the description's by default.

    Raises:
        ValueError: its class is not described.
    """

    def __init__(self, model: nn.Module, source: str = "", names: NameTable | None = None) -> None:
        description = described(model)
        if description is None:
            raise ValueError(f"{type(model).__name__} is not described")
        self.described: Description = description
        super().__init__(model, source, names or description.names)

    def arguments(self, scene: Scene, device: torch.device) -> Call:
        """As the network is published to be called; what a function yields is given as it is."""
        if scene.inputs is not None:
            return super().arguments(scene, device)
        images = scene.images.to(device, copy=True)
        if self.described.normalized:
            mean, deviation = (images.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
            images = (images - mean) / deviation
        queries = {"query_points": scene.query_points.to(device, copy=True)[None]} if self.described.queries else {}
        if self.described.pictures == "views":
            return Call(([{"img": image[None]} for image in images],), queries)
        return Call((images[None],), queries)

    def outputs(self, returned: object) -> dict[str, Tensor]:
        """Those of the description that are there, by its names and in the published shapes.

        Raises:
            InputError: none of them.
        """
        flattened = flatten_outputs(returned)
        outputs: dict[str, Tensor] = {}
        used: set[str] = set()
        for name, path in self.described.outputs.items():
            paths = self._paths(path, flattened.values)
            if paths:
                values = [flattened.values[each] for each in paths]
                outputs[name] = _in_published_shape(
                    name, torch.stack(values, 1) if self.described.per_view else values[0]
                )
                used |= set(paths)
        if not outputs:
            raise InputError(
                f"{self.source or type(self.model).__name__}: none of {', '.join(self.described.outputs.values())} is "
                f"among what it returns ({', '.join(flattened.values)}); its package has changed since it was described"
            )
        beside = {name: "not a described output" for name in flattened.values if name not in used}
        self.left_out = flattened.left_out | beside
        return outputs

    def figures(self, outputs: Mapping[str, Tensor], scene: Scene, **options: Any) -> dict[str, float]:  # noqa: ANN401
        """As `Subject.figures`, with cameras brought into VGGT's encoding.

        Without intrinsics nothing is said of how far depth, points and cameras agree.
        """
        seen = dict(outputs)
        name, size = self.described.poses, (scene.images.shape[-2], scene.images.shape[-1])
        if name in outputs and self.described.form != "encoding":
            seen["pose_enc"] = _encoded(
                outputs[name], outputs.get(self.described.intrinsics), self.described.form, size
            )
        figures = super().figures(seen, scene, **options)
        if self.described.form != "encoding" and not self.described.intrinsics:
            figures.pop(AGREEMENT, None)
        return figures

    @property
    def picture_sizes(self) -> tuple[int, int]:
        """As described."""
        return self.described.sizes

    def _paths(self, path: str, values: Mapping[str, Tensor]) -> list[str]:
        """Where an output is: one path, or one a view."""
        if not self.described.per_view:
            return [path] if path in values else []
        views = (f"{self.described.per_view}.{number}.{path}" for number in range(len(values)))
        return [each for each in views if each in values]


def _in_published_shape(name: str, value: Tensor) -> Tensor:
    """With the last axis of 1 that VGGT's depth has."""
    return value[..., None] if name in WITH_CHANNEL and value.ndim == WITH_CHANNEL[name] - 1 else value


def _encoded(poses: Tensor, intrinsics: Tensor | None, form: str, size: tuple[int, int]) -> Tensor:
    """Pose encodings ``[B, S, 9]`` of matrices ``[B, S, 3 or 4, 4]``; of 90 degrees where no field of view is known."""
    poses = poses.float()
    rotation, translation = poses[..., :3, :3], poses[..., :3, 3]
    if form == "camera_to_world":
        rotation = rotation.transpose(-1, -2)
        translation = -(rotation @ translation[..., None])[..., 0]
    if intrinsics is None:
        height, width = size
        intrinsics = torch.diag(poses.new_tensor([width / 2, height / 2, 1])).expand(*poses.shape[:-2], 3, 3)
    extrinsics = torch.cat([rotation, translation[..., None]], -1)
    return encode_pose(extrinsics, intrinsics.float(), size)
