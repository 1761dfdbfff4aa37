"""VGGT as a subject: what is published about it, and nothing that has to be found out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn

from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.model import VGGT
from vggtkit.model.dpt_head import DPTFeatures
from vggtkit.model.layers import Block
from vggtkit.model.outputs import OUTPUTS
from vggtkit.model.track_head import CrossBlock, SelfBlock
from vggtkit.quant import NameTable
from vggtkit.scenes import Scene
from vggtkit.subject.base import Call, Subject, TokenGrid
from vggtkit.subject.graph import topology


class VGGTSubject(Subject):
    """A VGGT, whole or without some heads.

    >>> from vggtkit.model import load_vggt
    >>> subject = VGGTSubject(load_vggt("tiny", weights="random"), "tiny")
    >>> subject.heads, subject.with_heads(["camera"]).heads
    (('camera', 'depth', 'point', 'track'), ('camera',))
    """

    vggt: VGGT
    recorded_whole = (Block, SelfBlock, CrossBlock)
    segments_are_known = True

    def __init__(self, model: VGGT, source: str = "", names: NameTable | None = None) -> None:
        self.vggt = model
        before = model.trunk_dtype
        super().__init__(model, source, names)
        self.precision = before
        self.heads = model.config.heads

    def arguments(self, scene: Scene, device: torch.device) -> Call:
        """Pictures as a batch of one, and query points.

        Raises:
            InputError: the scene has inputs of its own, for another model.
        """
        if scene.inputs is not None:
            raise InputError(
                f"scene {scene.name}: VGGT is given pictures, not what a function yields ({setting('inputs')})"
            )
        return Call((scene.images[None].to(device), scene.query_points[None].to(device)), {})

    def outputs(self, returned: object) -> dict[str, Tensor]:
        """The published ones."""
        assert isinstance(returned, Mapping)
        return {name: returned[name] for name in OUTPUTS if name in returned}

    def with_heads(self, heads: Sequence[str]) -> VGGTSubject:
        """As `Subject.with_heads`."""
        if tuple(heads) == self.heads:
            return self
        return VGGTSubject(self.vggt.with_heads(heads), self.source, self.names)

    def segments(self) -> dict[str, nn.Module]:
        """The blocks of the trunk and the heads."""
        trunk = self.vggt.aggregator
        lists = {
            "aggregator.patch_embed.blocks": trunk.patch_embed.blocks,
            "aggregator.frame_blocks": trunk.frame_blocks,
            "aggregator.global_blocks": trunk.global_blocks,
        }
        blocks = {f"{name}.{number}": block for name, blocks in lists.items() for number, block in enumerate(blocks)}
        parts = {
            "camera": ("camera_head",),
            "depth": ("depth_head",),
            "point": ("point_head",),
            "track": ("track_head.feature_extractor", "track_head.tracker"),
        }
        names = [name for head, modules in parts.items() if head in self.heads for name in modules]
        return blocks | {name: self.vggt.get_submodule(name) for name in names}

    def heads_of_segment(self, name: str) -> tuple[str, ...]:
        """A head's own, or all of them for the trunk."""
        head = name.split(".")[0].removesuffix("_head")
        return (head,) if head in self.heads else self.heads

    @property
    def trunk(self) -> nn.Module:
        """The aggregator."""
        return self.vggt.aggregator

    def token_grid(self, scene: Scene) -> TokenGrid | None:
        """Camera token, registers, and the patches of a picture."""
        config = self.vggt.config
        rows, columns = (length // config.patch_size for length in scene.images.shape[-2:])
        return TokenGrid(config.patch_start, rows, columns)

    @property
    def picture_sizes(self) -> tuple[int, int]:
        """As its config says."""
        return self.vggt.config.img_size, self.vggt.config.patch_size

    @property
    def precision(self) -> torch.dtype:
        """Of the trunk; the heads compute in FP32, as published."""
        return self.vggt.trunk_dtype

    @precision.setter
    def precision(self, dtype: torch.dtype) -> None:
        self.vggt.trunk_dtype = dtype

    @contextmanager
    def differentiated_in(self, dtype: torch.dtype) -> Iterator[None]:
        """As `Subject.differentiated_in`; the maps of the dense heads are in that precision too."""
        dense = [part for part in self.vggt.modules() if isinstance(part, DPTFeatures)]
        before = [part.maps_dtype for part in dense]
        with self.computing_in(dtype):
            try:
                for part in dense:
                    part.maps_dtype = dtype if dtype.itemsize < 4 else None
                yield
            finally:
                for part, value in zip(dense, before, strict=True):
                    part.maps_dtype = value

    def lowered_segments(self, dtype: torch.dtype) -> Mapping[str, torch.dtype]:
        """As `Subject.lowered_segments`: the blocks of the trunk; dense heads lower themselves."""
        if dtype == self.precision:
            return {}
        return {name: dtype for name in self.segments() if name.startswith("aggregator.")}

    def graph(self, scene: Scene | None = None) -> nx.DiGraph:  # noqa: ARG002
        """As `Subject.graph`, from a narrow network of the same depth: no weights and no scene are needed."""
        return topology(self.vggt.config)

    def description(self) -> str:
        """Its config as JSON."""
        return self.vggt.config.to_json()

    def __reduce__(self) -> tuple[Any, ...]:
        """As `Subject`."""
        return type(self), (self.vggt, self.source, self.names), self._set_since()
