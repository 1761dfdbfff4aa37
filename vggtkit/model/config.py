"""The sizes of a VGGT, and the presets known by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vggtkit.core.errors import InputError

HEADS = ("camera", "depth", "point", "track")
"""What a VGGT can predict with; a model may be without some of them."""


@dataclass(frozen=True)
class VGGTConfig:
    """Every size of the architecture; the defaults are those of ``facebook/VGGT-1B``.

    Source: Wang et al., "VGGT: Visual Geometry Grounded Transformer", CVPR 2025, and its published code.

    >>> VGGTConfig().token_dim
    2048
    """

    img_size: int = 518
    patch_size: int = 14
    embed_dim: int = 1024
    num_heads: int = 16
    vit_depth: int = 24
    vit_num_heads: int = 16
    aggregator_depth: int = 24
    num_register_tokens: int = 4
    camera_trunk_depth: int = 4
    camera_num_heads: int = 16
    dpt_features: int = 256
    dpt_out_channels: tuple[int, ...] = (256, 512, 1024, 1024)
    dpt_layer_idx: tuple[int, ...] = (4, 11, 17, 23)
    track_features: int = 128
    track_hidden_size: int = 384
    track_corr_levels: int = 7
    track_corr_radius: int = 4
    track_stride: int = 2
    track_iters: int = 4
    track_depth: int = 6
    track_num_heads: int = 8
    track_virtual_tracks: int = 64
    heads: tuple[str, ...] = HEADS

    def __post_init__(self) -> None:
        if len(self.dpt_out_channels) != 4 or len(self.dpt_layer_idx) != 4:
            raise InputError("config: dpt_out_channels and dpt_layer_idx need 4 entries each")
        if max(self.dpt_layer_idx) >= self.aggregator_depth:
            raise InputError(
                f"config: dpt_layer_idx {list(self.dpt_layer_idx)} reaches past "
                f"aggregator_depth {self.aggregator_depth}"
            )
        check_heads(self.heads, "config: heads")
        if self.img_size % self.patch_size:
            raise InputError(f"config: img_size {self.img_size} is no multiple of patch_size {self.patch_size}")

    @property
    def token_dim(self) -> int:
        """Channels of the tokens that the heads read: frame and global attention side by side."""
        return 2 * self.embed_dim

    @property
    def patch_start(self) -> int:
        """Index of the first patch token of a frame, after the camera and register tokens."""
        return 1 + self.num_register_tokens

    def to_json(self) -> str:
        """The config as JSON text, readable by `from_json`; ``heads`` stands there only where one is left out."""
        values = asdict(self)
        if self.heads == HEADS:
            del values["heads"]
        return json.dumps(values, indent=2)

    @staticmethod
    def from_json(text: str, origin: str = "config") -> VGGTConfig:
        """Read a config; ``origin`` names the file in errors.

        Unknown keys are refused, and absent ones take the value of VGGT-1B.

        Raises:
            InputError: the text is no JSON object, or has an unknown key or a value of the wrong type.

        >>> VGGTConfig.from_json('{"embed_dim": 64, "num_heads": 2}').embed_dim
        64
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"{origin}: not valid JSON ({error})") from error
        if not isinstance(values, dict):
            raise InputError(f"{origin}: expected a JSON object, found {type(values).__name__}")
        known = {field.name for field in fields(VGGTConfig)}
        if unknown := sorted(set(values) - known):
            raise InputError(f"{origin}: unknown key {unknown[0]!r}; the known keys are {', '.join(sorted(known))}")
        for name, value in values.items():
            values[name] = _checked(name, value, origin)
        return VGGTConfig(**values)


def check_heads(heads: Sequence[str], origin: str) -> tuple[str, ...]:
    """The heads in their usual order.

    Raises:
        InputError: one is unknown or named twice, or there are none.

    >>> check_heads(["depth", "camera"], "--heads")
    ('camera', 'depth')
    """
    if unknown := [head for head in heads if head not in HEADS]:
        raise InputError(f"{origin}: {unknown[0]!r} is none of {', '.join(HEADS)}")
    if not heads or len(set(heads)) != len(heads):
        raise InputError(f"{origin}: name one or more of {', '.join(HEADS)}, each once")
    return tuple(head for head in HEADS if head in heads)


def _checked(name: str, value: object, origin: str) -> object:
    """``value`` as the field wants it: a whole number, four of them as a tuple, or names of heads."""
    if name == "heads":
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InputError(f"{origin}: heads must be a list of names; found {value!r}")
        return check_heads(value, f"{origin}: heads")
    is_list = name in ("dpt_out_channels", "dpt_layer_idx")
    items = value if isinstance(value, list) else [value]
    lowest = 0 if name in ("dpt_layer_idx", "num_register_tokens") else 1
    whole = all(isinstance(item, int) and not isinstance(item, bool) and item >= lowest for item in items)
    if not whole or is_list != isinstance(value, list):
        wanted = f"{'a list of whole numbers' if is_list else 'a whole number'}, at least {lowest}"
        raise InputError(f"{origin}: {name} must be {wanted}; found {value!r}")
    return tuple(items) if is_list else value


TINY = VGGTConfig(
    img_size=64,
    patch_size=8,
    embed_dim=128,
    num_heads=4,
    vit_depth=4,
    vit_num_heads=4,
    aggregator_depth=6,
    camera_trunk_depth=2,
    camera_num_heads=4,
    dpt_features=32,
    dpt_out_channels=(32, 64, 128, 128),
    dpt_layer_idx=(1, 3, 4, 5),
    track_features=64,
    track_hidden_size=128,
    track_corr_levels=3,
    track_corr_radius=3,
    track_depth=3,
    track_num_heads=4,
    track_virtual_tracks=16,
)

PRESETS = {"tiny": TINY, "vggt-1b": VGGTConfig()}

BUNDLED = Path(__file__).parent / "tiny"
"""Folder of the network that this project trained itself: ``config.json`` and ``model.safetensors``."""
