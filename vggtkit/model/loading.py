"""Loading a VGGT: from a preset, a folder, a checkpoint file or the Hugging Face hub; strict and safe."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vggtkit.core.errors import InputError
from vggtkit.core.escaping import escape
from vggtkit.core.memory import free_bytes
from vggtkit.core.program import setting
from vggtkit.core.provenance import Say
from vggtkit.model.aggregator import IMAGE_MEAN, IMAGE_STD
from vggtkit.model.checkpoint_formats import WEIGHTS_FILE, read_state
from vggtkit.model.config import PRESETS, VGGTConfig
from vggtkit.model.sources import CONFIG_FILE, NetworkFiles, local_weights, locate, resolve_source
from vggtkit.model.stored_sizes import fitted, heads_in
from vggtkit.model.vggt import VGGT

__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "architecture",
    "load_vggt",
    "local_weights",
    "model_fingerprint",
    "resolve_source",
    "skeleton",
    "stored_weights",
]

RANDOM_SEED = 0
FINGERPRINT_DIGITS = 16
LARGEST_NETWORK = 10**11
"""Parameters; 80 times VGGT-1B."""


def _be_silent(_: str) -> None:
    """Nobody listens."""


def load_vggt(
    source: str | Path,
    weights: str = "pretrained",
    device: str | torch.device = "cpu",
    say: Say = _be_silent,
) -> VGGT:
    """A VGGT in eval mode.

    Args:
        source: ``"tiny"`` (bundled), ``"vggt-1b"`` (facebook/VGGT-1B), a folder with ``config.json`` and weights, a
            checkpoint file (a ``config.json`` beside it is used; otherwise the sizes are those of VGGT-1B), or the id
            of a Hugging Face repository. Weights are safetensors, in one file or several with an index, or what
            ``torch.save`` wrote: a state dict, or the state of a trainer with one in it. No code of a file is run.
        weights: ``"pretrained"``, or ``"random"`` for the architecture with seeded random weights.
        device: where it ends up.
        say: told what was done to make the file fit: keys unwrapped, prefixes taken off, heads that are absent.

    Raises:
        InputError: the source is not found or unreadable, the hub cannot be reached, the sizes of the config are not
            those of the tensors, or the tensors are not exactly those of the architecture; missing, unexpected and
            misshapen ones are named.

    >>> load_vggt("tiny", weights="random").config.embed_dim
    128
    """
    if weights not in ("pretrained", "random"):
        raise InputError(f"{setting('weights', weights)}: not known; use pretrained or random")
    state: Mapping[str, Tensor]
    if weights == "random":
        config = PRESETS[str(source)] if str(source) in PRESETS else locate(source, fetch=False).given.config
        model = skeleton(config)
        state = _random_state(model)
    else:
        place = locate(source, fetch=True)
        assert place.weights is not None, "what was fetched is there"
        model, state = _network_and_weights(place, place.weights, say)
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return model.to(device).eval()


def architecture(source: str | Path, say: Say = _be_silent) -> VGGT:
    """The network of a source on the meta device, without its weights; nothing is downloaded for a preset.

    Weights that are on this machine are looked at, of safetensors the header alone: heads without tensors are absent,
    and sizes that are not those of the config are refused.

    Raises:
        InputError: as `load_vggt`.

    >>> sum(parameter.numel() for parameter in architecture("vggt-1b").parameters())
    1256537516
    """
    if str(source) in PRESETS:
        return skeleton(PRESETS[str(source)])
    place = locate(source, fetch=False)
    if place.weights is None:
        return skeleton(place.given.config)
    return _network_and_weights(place, place.weights, say, shapes_only=True)[0]


def stored_weights(source: str | Path) -> Mapping[str, Tensor] | None:
    """The tensors of a source by the names of the network, where they are on this machine; never fetched.

    They are mapped from the file where its format allows, so that looking at some of them takes little memory.

    Raises:
        InputError: the file is broken, or something else than a checkpoint.

    >>> stored_weights("tiny")["aggregator.camera_token"].dtype
    torch.float16
    """
    path = local_weights(source)
    return None if path is None else read_state(path, _be_silent)


def model_fingerprint(model: nn.Module) -> str:
    """Hash of all weights and their names, 16 hexadecimal digits; files of a run carry it."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{list(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:FINGERPRINT_DIGITS]


def skeleton(config: VGGTConfig) -> VGGT:
    """The architecture on the meta device: no memory for weights, but real constants.

    Raises:
        InputError: it has more parameters than any machine of today could hold.

    >>> from vggtkit.model.config import TINY
    >>> skeleton(TINY).aggregator.camera_token.device
    device(type='meta')
    """
    with torch.device("meta"):
        model = VGGT(config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters > LARGEST_NETWORK:
        raise InputError(f"config: a network of {parameters:,} parameters, the limit is {LARGEST_NETWORK:,}")
    model.aggregator.image_mean = torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1)
    model.aggregator.image_std = torch.tensor(IMAGE_STD).view(1, 3, 1, 1)
    return model


def _network_and_weights(
    place: NetworkFiles, path: Path, say: Say, *, shapes_only: bool = False
) -> tuple[VGGT, Mapping[str, Tensor]]:
    """The network of a checkpoint on the meta device, and its tensors: all that it needs and no others."""
    state: Mapping[str, Tensor] = read_state(path, say, shapes_only=shapes_only)
    model = skeleton(fitted(place.given, state, escape(path), say))
    if idle := [head for head in heads_in(state) if head not in model.config.heads]:
        say(f"{escape(path)}: tensors of {', '.join(idle)} are left out, as {place.given.origin} names no such head")
        state = {name: state[name] for name in state if name.partition(".")[0] not in [f"{head}_head" for head in idle]}
    _check_tensors(model, state, escape(path))
    if not shapes_only:
        _say_precision(state, escape(path), say)
    return model, state


def _check_tensors(model: VGGT, state: Mapping[str, Tensor], origin: str) -> None:
    """Refuse tensors that are not exactly those of the network, in number, shape and kind."""
    expected = model.state_dict()
    missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing:
        raise InputError(f"{origin}: {len(missing)} tensors are missing, the first is {missing[0]}")
    if unexpected:
        raise InputError(
            f"{origin}: {len(unexpected)} tensors are not of this network, the first is {escape(unexpected[0])}"
        )
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise InputError(
                f"{origin}: {name} has shape {list(state[name].shape)}, the network needs {list(tensor.shape)}"
            )
        if not state[name].is_floating_point() or state[name].layout != torch.strided:
            kind = str(state[name].dtype if state[name].layout == torch.strided else state[name].layout)
            kind = kind.removeprefix("torch.").replace("_", " ")
            raise InputError(
                f"{origin}: {name} is stored as {kind}, where floating-point weights are expected; give the network "
                "before it was quantised or converted"
            )


def _say_precision(state: Mapping[str, Tensor], origin: str, say: Say) -> None:
    """Say where weights have few digits, which the reference then has too."""
    for kind in sorted({str(tensor.dtype) for tensor in state.values() if tensor.element_size() == 1}):
        count = sum(str(tensor.dtype) == kind for tensor in state.values())
        say(f"{origin}: {count:,} tensors are stored as {kind.removeprefix('torch.')}, and taken as they are, unscaled")


def _random_state(model: VGGT) -> dict[str, Tensor]:
    """Weights drawn from the usual initial distributions, the same every time."""
    needed, free = sum(4 * tensor.numel() for tensor in model.state_dict().values()), free_bytes(torch.device("cpu"))
    if free is not None and needed > free:
        raise InputError(
            f"{setting('weights', 'random')}: they need {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"
        )
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    state = {}
    for name, like in model.state_dict().items():
        if name.endswith("gamma"):
            state[name] = torch.full(like.shape, 1.0 if "patch_embed" in name else 0.01)
        elif name.endswith("bias"):
            state[name] = torch.zeros(like.shape)
        elif like.ndim == 1:
            state[name] = torch.ones(like.shape)
        else:
            fan_in = like[0].numel()
            state[name] = torch.empty(like.shape).normal_(std=min(0.02, fan_in**-0.5), generator=generator)
    return state
