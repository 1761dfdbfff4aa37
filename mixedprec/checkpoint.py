"""Quantised checkpoints: one safetensors file that holds a model packed and loads without the original.

The layout is described in ``docs/file-formats.md``. A file takes ``overhead_bytes(model, keep)`` plus the
``nbytes`` of every quantised weight, exactly and in whatever mixture, so a planner can simply add them up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixedprec.apply import KEEP_DTYPES, check_assignment, kept_value, split_state
from mixedprec.checkpoint_file import (
    KIND,
    SCHEMA_VERSION,
    CheckpointInfo,
    CheckpointReader,
    compact,
    damaged,
    one_line,
    part_names,
)
from mixedprec.container import LENGTH_BYTES, Container, Part, header_capacity
from mixedprec.plan import KEEPS
from vggtkit.core.atomic import replacing
from vggtkit.core.errors import InputError
from vggtkit.model.config import VGGTConfig
from vggtkit.model.loading import FINGERPRINT_DIGITS, model_fingerprint, skeleton
from vggtkit.model.vggt import VGGT
from vggtkit.quant import (
    Layer,
    find_layers,
    from_out_first,
    get_format,
    pack_layer,
    quantize_layer,
)

SUFFIX = ".safetensors"
NOTE_BYTES = 4096
"""Room for a note in the header, as it is escaped there."""

_LONGEST_KEY = 32  # of a format; registering a new one must not change the size of files


def overhead_bytes(model: nn.Module, keep: str = "fp16") -> int:
    """Bytes of a checkpoint that no choice of formats changes: header and kept tensors.

    Args:
        model: the model, not packed; it may be on the meta device.
        keep: precision of everything that is not quantised, ``"fp16"`` or ``"fp32"``.

    Returns:
        Bytes; with the ``nbytes`` of every layer's quantised weight they sum to the size of the file.

    Raises:
        InputError: unknown ``keep``.
        ValueError: a layer is packed.

    >>> from vggtkit.model.config import TINY
    >>> model = VGGT(TINY)
    >>> overhead_bytes(model, "fp32") - overhead_bytes(model, "fp16") > 0
    True
    """
    if keep not in KEEPS:
        raise InputError(f"keep is {keep!r}, must be one of {', '.join(KEEPS)}")
    layers = find_layers(model)
    weights, kept = split_state(model, layers)
    kept_bytes = sum(tensor.numel() for tensor in kept.values()) * KEEP_DTYPES[keep].itemsize
    config = model.config if isinstance(model, VGGT) else VGGTConfig()  # of another model, a header of that length
    return LENGTH_BYTES + _capacity(config, layers, weights, kept) + kept_bytes


def save_quantized(
    model: VGGT,
    assignment: Mapping[str, str],
    path: str | Path,
    *,
    keep: str = "fp16",
    note: dict[str, Any] | None = None,
    on_layer: Callable[[str], None] | None = None,
) -> int:
    """Write a model packed, and a readable summary beside it (``.json`` instead of ``.safetensors``).

    Every weight is quantised twice, once to learn what it takes (only then is it known whether its scales
    fit FP16) and once to write it. So nothing is written before all is known to be sound, and memory never
    holds more than one layer's temporaries.

    Args:
        model: the model in FP32, not packed.
        assignment: format key for every layer of ``find_layers(model)``.
        path: a ``.safetensors`` file; it appears complete or not at all.
        keep: precision of everything that is not quantised, ``"fp16"`` or ``"fp32"``.
        note: JSON values to keep in the header, such as versions and the command line.
        on_layer: called with the name of every layer that is written, for a progress bar.

    Returns:
        Bytes of the file.

    Raises:
        InputError: the assignment does not fit the model, a value cannot be held in its format, the note is
            too long, or the file cannot be written (disk full, no permission, another ``.json`` in the way).
        ValueError: a layer is packed.
    """
    path = Path(path)
    layers = check_assignment(model, assignment, keep)
    sidecar = _sidecar_of(path)
    info = CheckpointInfo(model.config, dict(assignment), keep, model_fingerprint(model), _checked_note(note))
    weights, kept = split_state(model, layers)
    parts = [_part(name, kept_value(name, tensor, keep)) for name, tensor in kept.items()]
    layer_bytes: dict[str, int] = {}
    for layer in layers:
        of_layer = [_part(*item) for item in _stored(model, layer, assignment, weights).items()]
        layer_bytes[layer.name] = sum(part.nbytes for part in of_layer)
        parts += of_layer
    container = Container(parts, info.metadata(), _capacity(model.config, layers, weights, kept))
    with replacing(path) as temporary, temporary.open("wb") as file:
        container.write_header(file)
        for name, tensor in kept.items():
            container.write(file, name, kept_value(name, tensor, keep))
        for layer in layers:
            for name, tensor in _stored(model, layer, assignment, weights).items():
                container.write(file, name, tensor)
            if on_layer is not None:
                on_layer(layer.name)
    _write_sidecar(sidecar, path, info, container.size_bytes, layer_bytes)
    return container.size_bytes


def read_info(path: str | Path) -> CheckpointInfo:
    """What a quantised checkpoint is, from its header alone.

    Raises:
        InputError: there is no such file, it is damaged, or it is no quantised checkpoint of this version.
    """
    path = Path(path)
    with CheckpointReader(path) as reader:
        return reader.info()


def load_quantized(path: str | Path, device: str | torch.device = "cpu") -> VGGT:
    """Load a quantised checkpoint for inference, without the original.

    Weights stay packed in memory and are rebuilt for the moment that their layer runs; kept tensors become
    FP32. It computes what the original does after `apply_assignment`, bit for bit, as long as both have the
    same ``requires_grad``, by which torch picks among matrix products; neither function touches it.

    Args:
        path: a file written by `save_quantized`.
        device: where the model ends up.

    Returns:
        The model in eval mode; run it under ``torch.no_grad()``.

    Raises:
        InputError: there is no such file, or it is truncated, of another kind or version, or its tensors are
            not exactly those that its header promises.
    """
    path = Path(path)
    with CheckpointReader(path) as reader:
        info = reader.info()
        model = _empty(info.config, path)
        try:
            layers = check_assignment(model, info.formats, info.keep)
        except InputError as error:
            raise damaged(path, str(error)) from None
        weights, kept = split_state(model, layers)
        parts = (part_names(weights[name], get_format(key)) for name, key in info.formats.items())
        reader.check_names({name for names in parts for name in names.values()} | kept.keys())
        state = {name: reader.kept(name, like, info.keep) for name, like in kept.items()}
        for layer in layers:
            q = reader.quantized(layer, info.formats[layer.name], weights[layer.name])
            if q.format.key == "fp32":  # nothing to unpack: the plain weight
                state[weights[layer.name]] = from_out_first(q.codes, layer.kind)
            else:
                pack_layer(model.get_submodule(layer.name), q)
    model.load_state_dict(state, strict=False, assign=True)
    return model.to(device).eval()


def _capacity(config: VGGTConfig, layers: list[Layer], weights: Mapping[str, str], kept: Mapping[str, Tensor]) -> int:
    """Bytes of header that suffice for every assignment; they depend on the architecture alone.

    The worst case: three tensors per layer, the longest keys, a full note, and all offsets at their longest
    (no format takes more than 6 bytes a weight).
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in kept.items()}
    for layer in layers:
        per_weight = (layer.shape[0], layer.weights // layer.shape[0])
        shapes[f"{weights[layer.name]}.codes"] = (layer.weights,)
        shapes[f"{weights[layer.name]}.scales"] = shapes[f"{weights[layer.name]}.zero_points"] = per_weight
    parts = [Part(name, torch.float32, shape) for name, shape in shapes.items()]
    longest = {layer.name: "x" * _LONGEST_KEY for layer in layers}
    info = CheckpointInfo(config, longest, "fp16", "f" * FINGERPRINT_DIGITS, {})
    numbers = sum(layer.weights for layer in layers) + sum(tensor.numel() for tensor in kept.values())
    return header_capacity(parts, info.metadata() | {"note": "x" * NOTE_BYTES}, data_bytes=6 * numbers)


def _stored(model: VGGT, layer: Layer, assignment: Mapping[str, str], weights: Mapping[str, str]) -> dict[str, Tensor]:
    """What the file holds of a layer's weight, by name; plain values in the module's own layout."""
    q = quantize_layer(model.get_submodule(layer.name), assignment[layer.name], layer.name)
    tensors = q.tensors()
    if q.format.is_float:
        tensors["codes"] = from_out_first(q.codes, layer.kind)
    return {name: tensors[part] for part, name in part_names(weights[layer.name], q.format).items()}


def _part(name: str, tensor: Tensor) -> Part:
    return Part(name, tensor.dtype, tuple(tensor.shape))


def _sidecar_of(path: Path) -> Path:
    """Where the summary goes, unless something else is there."""
    if path.suffix != SUFFIX:
        raise InputError(f"{path}: a quantised checkpoint is a {SUFFIX} file; name it {path}{SUFFIX}")
    sidecar = path.with_suffix(".json")
    if sidecar.exists() and not _is_summary(sidecar):
        raise InputError(f"{sidecar} would be overwritten by the summary of {path.name}; name the checkpoint otherwise")
    return sidecar


def _is_summary(path: Path) -> bool:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and values.get("kind") == KIND


def _write_sidecar(
    sidecar: Path, path: Path, info: CheckpointInfo, size_bytes: int, layer_bytes: dict[str, int]
) -> None:
    summary = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "file": path.name,
        "size_bytes": size_bytes,
        "overhead_bytes": size_bytes - sum(layer_bytes.values()),
        "keep": info.keep,
        "model_fingerprint": info.model_fingerprint,
        "config": json.loads(info.config.to_json()),
        "note": info.note,
        "formats": info.formats,
        "layer_bytes": layer_bytes,
    }
    with replacing(sidecar) as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def _checked_note(note: dict[str, Any] | None) -> dict[str, Any]:
    note = note or {}
    escaped = len(json.dumps(compact(note))) - 2
    if escaped > NOTE_BYTES:
        raise InputError(f"the note takes {escaped} bytes in the header, at most {NOTE_BYTES} fit; shorten it")
    return note


def _empty(config: VGGTConfig, path: Path) -> VGGT:
    """The architecture without memory for weights; a config that is of no network is the file's fault."""
    try:
        return skeleton(config)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise damaged(path, f"config in the header is of no VGGT ({one_line(error)})") from error
