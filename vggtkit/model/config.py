"""The sizes of a VGGT, and the presets known by name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vggtkit.core.errors import InputError
from vggtkit.core.escaping import first_line, short_repr

HEADS = ("camera", "depth", "point", "track")
"""What a VGGT can predict with; a model may be without some of them."""

LARGEST_SIZES = {
    "img_size": 2**14,
    "patch_size": 2**10,
    "embed_dim": 2**16,
    "num_heads": 2**10,
    "vit_depth": 1000,
    "vit_num_heads": 2**10,
    "aggregator_depth": 1000,
    "num_register_tokens": 2**12,
    "camera_trunk_depth": 1000,
    "camera_num_heads": 2**10,
    "dpt_features": 2**14,
    "dpt_out_channels": 2**16,
    "dpt_layer_idx": 999,
    "track_features": 2**14,
    "track_hidden_size": 2**16,
    "track_corr_levels": 16,
    "track_corr_radius": 64,
    "track_stride": 2**8,
    "track_iters": 1000,
    "track_depth": 1000,
    "track_num_heads": 2**10,
    "track_virtual_tracks": 2**16,
}
"""Of every size; 40 times VGGT-1B's and more, but no number that takes minutes or memory before it is refused."""

MOST_BRACKETS = 200
"""That a config may open; it needs four."""

ENABLED = tuple(f"enable_{head}" for head in HEADS)
"""Keys of a published config: whether the network has a head."""

# What tools of the hub write into a config.json beside the sizes; it changes nothing in the network.
_DESCRIPTIVE = (
    "architectures",
    "dtype",
    "library_name",
    "license",
    "model_type",
    "torch_dtype",
    "transformers_version",
)


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
        self._check_multiple("img_size", "patch_size")
        self._check_multiple("embed_dim", "num_heads", 4)  # rotary positions turn the channels of a head in fours
        self._check_multiple("embed_dim", "vit_num_heads")
        self._check_multiple("token_dim", "camera_num_heads")
        self._check_multiple("track_hidden_size", "track_num_heads")

    def _check_multiple(self, size: str, part: str, factor: int = 1) -> None:
        if getattr(self, size) % (factor * getattr(self, part)):
            times = f"{factor} times " if factor > 1 else ""
            value, of = getattr(self, size), getattr(self, part)
            raise InputError(
                f"config: {size} {value} is no multiple of {times}{part} {of}; what it does not state is as in VGGT-1B"
            )

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

        Unknown keys are refused, and absent ones take the value of VGGT-1B. Heads may also be named as in published
        files, by ``enable_camera`` and the like.

        Raises:
            InputError: the text is no JSON object, or has an unknown key, a value of the wrong type or a size that is
                larger than `LARGEST_SIZES`.

        >>> VGGTConfig.from_json('{"embed_dim": 64, "num_heads": 2, "vit_num_heads": 2}').token_dim
        128
        >>> VGGTConfig.from_json('{"img_size": 518, "enable_point": false, "enable_track": false}').heads
        ('camera', 'depth')
        """
        try:
            return VGGTConfig(**read_sizes(text, origin))
        except InputError as error:
            raise InputError(str(error).replace("config:", f"{origin}:", 1)) from None


def read_sizes(text: str, origin: str = "config") -> dict[str, Any]:
    """The sizes and heads that a config's text states, by the names of `VGGTConfig`.

    Raises:
        InputError: as `VGGTConfig.from_json`.

    >>> read_sizes('{"patch_size": 16, "model_type": "vggt"}')
    {'patch_size': 16}
    """
    try:
        if text.count("[") + text.count("{") > MOST_BRACKETS:
            raise RecursionError  # what Python itself says, at a depth that differs among its versions
        values = json.loads(text)
    except RecursionError:
        raise InputError(f"{origin}: not the sizes of a network: its JSON is nested too deeply") from None
    except ValueError as error:  # a syntax error, or a number of thousands of digits
        raise InputError(f"{origin}: not valid JSON ({first_line(error)})") from error
    if not isinstance(values, dict):
        raise InputError(f"{origin}: expected a JSON object, found {type(values).__name__}")
    known = {field.name for field in fields(VGGTConfig)}
    described = {name for name in values if name in _DESCRIPTIVE or name.startswith("_")}
    if unknown := sorted(values.keys() - known - described - set(ENABLED)):
        raise InputError(
            f"{origin}: unknown key {short_repr(unknown[0])}; the known keys are {', '.join(sorted(known))}"
        )
    sizes = {name: _checked(name, value, origin) for name, value in values.items() if name in known}
    if any(name in values for name in ENABLED):
        if "heads" in sizes:
            raise InputError(f"{origin}: name the heads by heads or by enable_..., not by both")
        sizes["heads"] = _enabled_heads(values, origin)
    return sizes


def _enabled_heads(values: Mapping[str, object], origin: str) -> tuple[str, ...]:
    """The heads of a published config; one that it does not name is there."""
    for name in ENABLED:
        if not isinstance(values.get(name, True), bool):
            raise InputError(f"{origin}: {name} must be true or false; found {short_repr(values[name])}")
    return check_heads([head for head in HEADS if values.get(f"enable_{head}", True)], f"{origin}: enable_...")


def check_heads(heads: Sequence[str], origin: str) -> tuple[str, ...]:
    """The heads in their usual order.

    Raises:
        InputError: one is unknown or named twice, or there are none.

    >>> check_heads(["depth", "camera"], "--heads")
    ('camera', 'depth')
    """
    if unknown := [head for head in heads if head not in HEADS]:
        raise InputError(f"{origin}: {short_repr(unknown[0])} is none of {', '.join(HEADS)}")
    if not heads or len(set(heads)) != len(heads):
        raise InputError(f"{origin}: name one or more of {', '.join(HEADS)}, each once")
    return tuple(head for head in HEADS if head in heads)


def _checked(name: str, value: object, origin: str) -> object:
    """``value`` as the field wants it: a whole number, four of them as a tuple, or names of heads."""
    if name == "heads":
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InputError(f"{origin}: heads must be a list of names; found {short_repr(value)}")
        return check_heads(value, f"{origin}: heads")
    is_list = name in ("dpt_out_channels", "dpt_layer_idx")
    items = value if isinstance(value, list) else [value]
    lowest = 0 if name in ("dpt_layer_idx", "num_register_tokens") else 1
    whole = all(isinstance(item, int) and not isinstance(item, bool) and item >= lowest for item in items)
    if not whole or is_list != isinstance(value, list):
        wanted = f"{'a list of whole numbers' if is_list else 'a whole number'}, at least {lowest}"
        raise InputError(f"{origin}: {name} must be {wanted}; found {short_repr(value)}")
    if max(items, default=0) > LARGEST_SIZES[name]:
        raise InputError(
            f"{origin}: {name} is {short_repr(max(items))}, more than the limit of {LARGEST_SIZES[name]:,}"
        )
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
