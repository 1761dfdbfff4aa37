"""Loading a VGGT: from a preset, a folder, a checkpoint file or the Hugging Face hub; strict and safe."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vggtkit.core.errors import InputError
from vggtkit.model.aggregator import IMAGE_MEAN, IMAGE_STD
from vggtkit.model.config import BUNDLED, PRESETS, VGGTConfig
from vggtkit.model.vggt import VGGT

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
HUB_IDS = {"vggt-1b": "facebook/VGGT-1B"}
REFERENCE_ARGUMENTS = ("img_size", "patch_size", "embed_dim")
HUB_SECONDS = 5.0  # to wait for the hub's first answer
RANDOM_SEED = 0
FINGERPRINT_DIGITS = 16


def load_vggt(source: str | Path, weights: str = "pretrained", device: str | torch.device = "cpu") -> VGGT:
    """A VGGT in eval mode.

    Args:
        source: ``"tiny"`` (bundled), ``"vggt-1b"`` (facebook/VGGT-1B), a folder with ``config.json`` and
            ``model.safetensors``, a ``.safetensors``, ``.pt`` or ``.pth`` file (a ``config.json`` beside it is used;
            otherwise the sizes are those of VGGT-1B), or the id of a Hugging Face repository.
        weights: ``"pretrained"``, or ``"random"`` for the architecture with seeded random weights.
        device: where it ends up.

    Raises:
        InputError: the source is not found or unreadable, the hub cannot be reached, or the tensors are not exactly
            those of the architecture; missing, unexpected and misshapen ones are named.

    >>> load_vggt("tiny", weights="random").config.embed_dim
    128
    """
    if weights not in ("pretrained", "random"):
        raise InputError(f"--weights {weights}: not known; use pretrained or random")
    config, path = _resolve(source, need_weights=weights == "pretrained")
    model = skeleton(config)
    state = _random_state(model) if path is None else _read(path)
    _fill(model, state, str(source))
    return model.to(device).eval()


def architecture(source: str | Path) -> VGGT:
    """The network of a source on the meta device, without its weights; nothing is downloaded for a preset.

    Raises:
        InputError: as `load_vggt`.

    >>> sum(parameter.numel() for parameter in architecture("vggt-1b").parameters())
    1256537516
    """
    return skeleton(_resolve(source, need_weights=False)[0])


def local_weights(source: str | Path) -> Path | None:
    """The weights file of a source if it is on this machine, the Hugging Face cache included; never fetched.

    >>> local_weights("tiny").name
    'model.safetensors'
    """
    name = str(source)
    path = BUNDLED if name == "tiny" else Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        return path / WEIGHTS_FILE if (path / WEIGHTS_FILE).is_file() else None
    if HUB_IDS.get(name, name).count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache  # slow to import, needed here alone

    found = try_to_load_from_cache(HUB_IDS.get(name, name), WEIGHTS_FILE)
    return Path(found) if isinstance(found, str) else None


def model_fingerprint(model: nn.Module) -> str:
    """Hash of all weights and their names, 16 hexadecimal digits; files of a run carry it."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{list(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:FINGERPRINT_DIGITS]


def _resolve(source: str | Path, *, need_weights: bool) -> tuple[VGGTConfig, Path | None]:
    """Sizes and weights file of a source; no file where weights are not needed."""
    name = str(source)
    if name in PRESETS and not need_weights:
        return PRESETS[name], None
    if name == "tiny":
        return _config_beside(BUNDLED), BUNDLED / WEIGHTS_FILE
    path = Path(name)
    if path.is_dir():
        if need_weights and not (path / WEIGHTS_FILE).is_file():
            raise InputError(f"--model {name}: the folder has no {WEIGHTS_FILE}; put it there or name the file itself")
        return _config_beside(path), path / WEIGHTS_FILE if need_weights else None
    if path.is_file():
        return _config_beside(path.parent, optional=True), path if need_weights else None
    if path.suffix in (".safetensors", ".pt", ".pth") or name.startswith((".", "/", "~")):
        raise InputError(f"--model {name}: no such file or folder")
    return _from_hub(HUB_IDS.get(name, name), need_weights=need_weights)


def _config_beside(folder: Path, *, optional: bool = False) -> VGGTConfig:
    path = folder / CONFIG_FILE
    if not path.is_file():
        if optional:
            return VGGTConfig()
        raise InputError(f"{folder}: no {CONFIG_FILE}; it tells the sizes of the network")
    text = path.read_text()
    # The published config.json holds constructor arguments of the reference code; its sizes are the defaults.
    is_ours = any(f'"{field.name}"' in text for field in fields(VGGTConfig) if field.name not in REFERENCE_ARGUMENTS)
    return VGGTConfig.from_json(text, str(path)) if is_ours else VGGTConfig()


def _from_hub(repository: str, *, need_weights: bool) -> tuple[VGGTConfig, Path | None]:
    if repository.count("/") != 1:
        known = ", ".join(sorted(PRESETS))
        raise InputError(
            f"--model {repository}: neither a preset ({known}), a folder, a file, nor a Hugging Face id (owner/name)"
        )
    config = _config_beside(_hub_file(repository, CONFIG_FILE).parent)
    return config, _hub_file(repository, WEIGHTS_FILE) if need_weights else None


def _hub_file(repository: str, name: str) -> Path:
    """A file of a hub repository, from the local cache, else from the network."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url  # slow to import, needed here alone
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        with suppress(LocalEntryNotFoundError):
            return Path(hf_hub_download(repository, name, local_files_only=True))
        # The download itself asks an unreachable hub for half a minute, so one question goes first.
        get_hf_file_metadata(hf_hub_url(repository, name), timeout=HUB_SECONDS)
        return Path(hf_hub_download(repository, name))
    except Exception as error:  # the hub's client hands on those of its transport, which share no base
        raise InputError(
            f"--model {repository}: no such folder, {name} is not in the local Hugging Face cache, and the hub does "
            f"not give it ({_reason(error)}); the same command takes up a broken download where it stopped, or "
            "download it elsewhere and give its folder, or use --weights random"
        ) from error


def skeleton(config: VGGTConfig) -> VGGT:
    """The architecture on the meta device: no memory for weights, but real constants.

    >>> from vggtkit.model.config import TINY
    >>> skeleton(TINY).aggregator.camera_token.device
    device(type='meta')
    """
    with torch.device("meta"):
        model = VGGT(config)
    model.aggregator.image_mean = torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1)
    model.aggregator.image_std = torch.tensor(IMAGE_STD).view(1, 3, 1, 1)
    return model


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a readable checkpoint ({_reason(error)}); it may be truncated") from error
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: expected a state dict of tensors")
    return state


def _reason(error: Exception) -> str:
    """The first line of an error."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _fill(model: VGGT, state: Mapping[str, Tensor], origin: str) -> None:
    """Give a model on the meta device its weights, all of them and no others, as float32."""
    expected = model.state_dict()
    missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing:
        raise InputError(f"{origin}: {len(missing)} tensors are missing, the first is {missing[0]}")
    if unexpected:
        raise InputError(f"{origin}: {len(unexpected)} tensors are not of this network, the first is {unexpected[0]}")
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise InputError(
                f"{origin}: {name} has shape {list(state[name].shape)}, the network needs {list(tensor.shape)}"
            )
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)


def _random_state(model: VGGT) -> dict[str, Tensor]:
    """Weights drawn from the usual initial distributions, the same every time."""
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
