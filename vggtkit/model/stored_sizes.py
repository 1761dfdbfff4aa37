"""What the shapes of a checkpoint's tensors say about the network, held against what its config says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.core.escaping import escape
from vggtkit.model.config import HEADS, VGGTConfig

_TRUNK, _TRACKER = "aggregator.patch_embed", "track_head.tracker"
_UPDATER = f"{_TRACKER}.updateformer"
_DPT = {"depth": "depth_head", "point": "point_head"}
_TRACK_FEATURES = "track_head.feature_extractor"


@dataclass(frozen=True)
class StatedConfig:
    """A config, and where its values are from.

    Attributes:
        config: the sizes; those of VGGT-1B where nothing is stated.
        stated: names of the fields that the file states.
        origin: the file, for messages; empty where there is none.
    """

    config: VGGTConfig
    stated: frozenset[str]
    origin: str


def fitted(given: StatedConfig, state: Mapping[str, Tensor], origin: str, say: Callable[[str], None]) -> VGGTConfig:
    """The config of the network whose tensors these are: heads that are absent are absent.

    Args:
        given: what the config says.
        state: tensors by name; on the meta device will do.
        origin: names their file in messages.
        say: told which heads are absent.

    Raises:
        InputError: a size of the config is not that of the tensors, or it states a head that has none.
    """
    config = _with_heads_of(given, heads_in(state), origin, say)
    for name, size in stored_sizes(state, config.heads).items():
        if size != (value := getattr(config, name)):
            raise InputError(
                f"{origin}: {name} is {_written(size)} by the shapes of the tensors, but {_written(value)} "
                f"{_whence(given, name)}; write the sizes of these weights into a config.json beside them"
            )
    return config


def heads_in(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The heads that have tensors.

    >>> import torch
    >>> heads_in({"aggregator.camera_token": torch.ones(1), "depth_head.norm.bias": torch.ones(1)})
    ('depth',)
    """
    roots = {name.partition(".")[0] for name in state}
    return tuple(head for head in HEADS if f"{head}_head" in roots)


def stored_sizes(state: Mapping[str, Tensor], heads: tuple[str, ...]) -> dict[str, object]:
    """The sizes that can be read off the shapes, by the names of `VGGTConfig`, the most telling first.

    Numbers of heads can be read for the aggregator alone, and which blocks the dense heads read not at all.

    >>> from vggtkit.model.config import TINY
    >>> from vggtkit.model.vggt import VGGT
    >>> sizes = stored_sizes(VGGT(TINY).state_dict(), ("camera", "depth"))
    >>> sizes["embed_dim"], sizes["num_heads"], sizes["dpt_out_channels"]
    (128, 4, (32, 64, 128, 128))
    """
    sizes: dict[str, object | None] = {
        "embed_dim": _axis(state, "aggregator.camera_token", 3),
        "vit_depth": _blocks(state, f"{_TRUNK}.blocks"),
        "aggregator_depth": _blocks(state, "aggregator.frame_blocks"),
        "num_heads": _attention_heads(state),
        "num_register_tokens": _axis(state, "aggregator.register_token", 2),
        "patch_size": _axis(state, f"{_TRUNK}.patch_embed.proj.weight", 2),
        "img_size": _image_side(state),
    }
    if "camera" in heads:
        sizes["camera_trunk_depth"] = _blocks(state, "camera_head.trunk")
    for place in [_DPT[head] for head in heads if head in _DPT][:1]:
        sizes["dpt_features"] = _axis(state, f"{place}.scratch.layer1_rn.weight", 0)
        sizes["dpt_out_channels"] = _channels(state, place)
    if "track" in heads:
        sizes |= _tracker_sizes(state)
    return {name: size for name, size in sizes.items() if size is not None}


def _tracker_sizes(state: Mapping[str, Tensor]) -> dict[str, object | None]:
    return {
        "dpt_out_channels": _channels(state, _TRACK_FEATURES),
        "track_features": _axis(state, f"{_TRACK_FEATURES}.scratch.layer1_rn.weight", 0),
        "track_hidden_size": _axis(state, f"{_UPDATER}.input_transform.weight", 0),
        "track_depth": _blocks(state, f"{_UPDATER}.time_blocks"),
        "track_virtual_tracks": _axis(state, f"{_UPDATER}.virual_tracks", 1),
    }


def _with_heads_of(
    given: StatedConfig, present: tuple[str, ...], origin: str, say: Callable[[str], None]
) -> VGGTConfig:
    config = given.config
    if "heads" in given.stated:
        if absent := [head for head in config.heads if head not in present]:
            raise InputError(
                f"{origin}: no tensors of a {absent[0]} head, which {given.origin} names, only of "
                f"{', '.join(present) or 'no head at all'}; name there those that the weights have"
            )
        return config
    if not present or present == config.heads:
        return config
    absent = [head for head in config.heads if head not in present]
    say(f"{origin}: no tensors of {', '.join(absent)}; the network has only {', '.join(present)}")
    return replace(config, heads=present)


def _whence(given: StatedConfig, name: str) -> str:
    if name in given.stated:
        return f"in {given.origin}"
    return f"as in VGGT-1B ({given.origin} does not state it)" if given.origin else "as in VGGT-1B (no config is there)"


def _axis(state: Mapping[str, Tensor], name: str, axis: int) -> int | None:
    """Length of an axis of a tensor, where both are there."""
    return state[name].shape[axis] if name in state and state[name].ndim > axis else None


def _blocks(state: Mapping[str, Tensor], place: str) -> int | None:
    """How many blocks a stack has."""
    start = f"{place}."
    return len({name[len(start) :].partition(".")[0] for name in state if name.startswith(start)}) or None


def _attention_heads(state: Mapping[str, Tensor]) -> int | None:
    dim, of_a_head = (
        _axis(state, name, axis)
        for name, axis in (("aggregator.camera_token", 3), ("aggregator.frame_blocks.0.attn.q_norm.weight", 0))
    )
    return dim // of_a_head if dim and of_a_head else None


def _image_side(state: Mapping[str, Tensor]) -> int | None:
    """Pixels of a side, from the patches that have a position embedding, in a square."""
    positions, patch = _axis(state, f"{_TRUNK}.pos_embed", 1), _axis(state, f"{_TRUNK}.patch_embed.proj.weight", 2)
    if not positions or not patch:
        return None
    side = round((positions - 1) ** 0.5)
    return side * patch if side**2 == positions - 1 else None


def _channels(state: Mapping[str, Tensor], place: str) -> tuple[int, ...] | None:
    sizes = [_axis(state, f"{place}.projects.{number}.weight", 0) for number in range(4)]
    return None if None in sizes else tuple(size for size in sizes if size)


def _written(value: object) -> str:
    return escape(list(value) if isinstance(value, tuple) else value)
