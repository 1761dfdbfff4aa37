"""Small modules that are called and answer as the published networks do; their numbers are of no meaning."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

SIDE = 16


class Trunk(nn.Module):
    """Patches, and blocks over their tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, 8, 8, 8)
        self.blocks = nn.ModuleList(nn.ModuleDict({"attn": nn.Linear(8, 8), "mlp": nn.Linear(8, 8)}) for _ in range(2))

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.proj(images.flatten(0, 1)).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = tokens + block["mlp"](torch.tanh(block["attn"](tokens)))
        return tokens.unflatten(0, images.shape[:2])


class Head(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out = nn.Linear(8, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[B, S, H, W, channels]``, positive."""
        maps = self.out(tokens).exp().unflatten(2, (SIDE // 8, SIDE // 8))
        return maps.repeat_interleave(8, 2).repeat_interleave(8, 3)


class Pi3(nn.Module):
    def __init__(self, camera_to_world: Tensor) -> None:
        super().__init__()
        self.encoder, self.decoder = Trunk(), nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.point_head, self.conf_head = Head(3), Head(1)
        self.camera_head = nn.Linear(8, 1)
        self.register_buffer("cameras", camera_to_world)

    def forward(self, imgs: Tensor) -> dict[str, Tensor]:
        tokens = self.encoder(imgs)
        for block in self.decoder:
            tokens = tokens + block(tokens)
        points = self.point_head(tokens)
        tilt = 1e-6 * self.camera_head(tokens).mean((2, 3))[..., None, None]
        return {
            "points": points,
            "local_points": points + 1,
            "conf": self.conf_head(tokens),
            "camera_poses": self.cameras[None] + tilt * torch.eye(4),
        }


class DepthAnything3Net(nn.Module):
    def __init__(self, extrinsics: Tensor, intrinsics: Tensor, depth: Tensor) -> None:
        super().__init__()
        self.backbone, self.head, self.cam_dec = Trunk(), Head(1), nn.Linear(8, 1)
        for name, value in (("extrinsics", extrinsics), ("intrinsics", intrinsics), ("true_depth", depth)):
            self.register_buffer(name, value)

    def forward(self, x: Tensor, extrinsics: Tensor | None = None, infer_gs: bool = False) -> dict[str, object]:
        assert extrinsics is None
        assert not infer_gs
        tokens = self.backbone(x)
        small = 1e-6 * self.head(tokens)[..., 0]
        tilt = 1e-6 * self.cam_dec(tokens).mean((2, 3))[..., None, None]
        return {
            "depth": self.true_depth[None] + small,
            "depth_conf": small,
            "extrinsics": self.extrinsics[None] + tilt,
            "intrinsics": self.intrinsics[None] + 0 * tilt,
            "aux": {},
        }


class _VGGTLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.aggregator = nn.Module()
        self.aggregator.patch_embed = Trunk()
        self.aggregator.inter_frame_blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.camera_head, self.depth_head, self.point_head = nn.Linear(8, 9), Head(2), Head(4)

    def predictions(self, images: Tensor) -> dict[str, Tensor]:
        tokens = self.aggregator.patch_embed(images)
        for block in self.aggregator.inter_frame_blocks:
            tokens = tokens + block(tokens)
        depth, points = self.depth_head(tokens), self.point_head(tokens)
        return {
            "pose_enc": self.camera_head(tokens).mean(2),
            "depth": depth[..., :1],
            "depth_conf": depth[..., 1],
            "world_points": points[..., :3],
            "world_points_conf": points[..., 3],
        }


class VGGTOmega(_VGGTLike):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = self.predictions(images)
        return {name: found[name] for name in ("pose_enc", "depth", "depth_conf")} | {"images": images}


class VGGT(_VGGTLike):
    def forward(
        self, images: Tensor, query_points: Tensor | None = None, image_paths: list[str] | None = None
    ) -> dict[str, object]:
        assert image_paths is None
        assert query_points is not None
        assert query_points.ndim == 3
        found = self.predictions(images)
        return found | {"pose_enc_list": [found["pose_enc"]], "images": images}


@dataclass
class StreamVGGTOutput:
    ress: list[dict[str, Tensor]]
    views: list[dict[str, Tensor]]


class StreamVGGT(_VGGTLike):
    def forward(self, views: list[dict[str, Tensor]], query_points: Tensor | None = None) -> StreamVGGTOutput:
        assert query_points is not None
        found = self.predictions(torch.stack([view["img"] for view in views]).permute(1, 0, 2, 3, 4))
        names = {
            "pts3d_in_other_view": "world_points", "conf": "world_points_conf", "depth": "depth",
            "depth_conf": "depth_conf", "camera_pose": "pose_enc",
        }  # fmt: skip
        ress = [{key: found[name][:, s] for key, name in names.items()} for s in range(len(views))]
        return StreamVGGTOutput(ress, views)


for _class, _module in (
    (Pi3, "pi3.models.pi3"),
    (DepthAnything3Net, "depth_anything_3.model.da3"),
    (VGGTOmega, "vggt_omega.models.vggt_omega"),
    (VGGT, "vggt.models.vggt"),
    (StreamVGGT, "streamvggt.models.streamvggt"),
):
    _class.__module__ = _module
