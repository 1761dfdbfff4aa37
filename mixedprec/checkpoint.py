"""Quantised checkpoints: one safetensors file that holds a model packed and loads without the original.

The layout is described in ``docs/file-formats.md``. A file takes ``overhead_bytes(model, keep)`` plus the
``nbytes`` of every quantised weight, exactly and in whatever mixture, so a planner can simply add them up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixedprec.apply import KEEP_DTYPES, check_assignment, check_plan, split_state, stored_value
from mixedprec.checkpoint_file import (
    FACTORY,
    KIND,
    READERS,
    SCHEMA_VERSION,
    CheckpointInfo,
    CheckpointReader,
    compact,
    damaged,
    file_part_names,
    sidecar_of,
)
from mixedprec.container import (
    DIGEST_BYTES,
    DIGEST_DIGITS,
    DIGEST_KEY,
    LENGTH_BYTES,
    Container,
    StoredTensor,
    header_capacity,
)
from mixedprec.given_biases import adopt, brought_biases, given_biases
from mixedprec.plan import KEEPS, Plan
from vggtkit.core.atomic import replacing_all
from vggtkit.core.errors import InputError
from vggtkit.core.escaping import first_line
from vggtkit.core.seal import digests_count
from vggtkit.model.loading import FINGERPRINT_DIGITS, model_fingerprint, skeleton
from vggtkit.model.vggt import VGGT
from vggtkit.quant import (
    Layer,
    QuantizedTensor,
    from_out_first,
    get_format,
    own_weight,
    pack_layer,
    quantize_layer,
    quantized_nbytes,
    readers_of,
    twins_of,
)
from vggtkit.quant.rounding import ROUNDINGS
from vggtkit.subject import Subject, subject_of

EXECUTIONS_BYTES = len(',"executions":""')
NOTE_BYTES = 4096 - DIGEST_BYTES - EXECUTIONS_BYTES
"""Room for a note in the header, as it is escaped there; files from before digests are as large as those of now."""

_LONGEST_KEY = 31  # of a format; registering a new one must not change the size of files. Its execution has a letter


def overhead_bytes(model: nn.Module | Subject, keep: str = "fp16", *, gives_biases: bool = False) -> int:
    """Bytes of a checkpoint that no choice of formats changes: header and kept tensors.

    Args:
        model: the model or subject, not packed; it may be on the meta device.
        keep: precision of everything that is not quantised, ``"fp16"`` or ``"fp32"``.
        gives_biases: whether layers without a bias are given one (`mixedprec.given_biases`), as some roundings do.

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
    subject = subject_of(model)
    weights, rest = split_state(subject.model, subject.layers)
    if gives_biases:
        rest |= {name: bias for name, (_, bias) in given_biases(subject.model, subject.layers, weights).items()}
    stored = KEEP_DTYPES[keep].itemsize
    rest_bytes = sum(t.numel() * (stored if t.is_floating_point() else t.itemsize) for t in rest.values())
    return LENGTH_BYTES + _capacity(_architecture(subject), subject.layers, weights, rest) + rest_bytes


def fp32_bytes(model: nn.Module | Subject) -> int:
    """Bytes of the checkpoint with everything in FP32, which sizes are compared with.

    >>> from vggtkit.model.config import TINY
    >>> fp32_bytes(VGGT(TINY))
    38385456
    """
    subject = subject_of(model)
    return overhead_bytes(subject, "fp32") + sum(quantized_nbytes(layer.shape, "fp32") for layer in subject.layers)


def check_plan_size(model: nn.Module | Subject, plan: Plan) -> None:
    """As `check_plan`, and refuse a plan whose other bytes are not those of the file that it would become.

    Raises:
        InputError: the message has both numbers.
    """
    check_plan(model, plan)
    overhead = overhead_bytes(model, plan.keep, gives_biases=ROUNDINGS.pick(plan.rounding).corrects_bias)
    if overhead != plan.overhead_bytes:
        raise InputError(
            f"the plan counts {plan.overhead_bytes} bytes beside its layers' weights, with keep {plan.keep} they are "
            f"{overhead}; it was changed by hand or made by another version, make it again"
        )


def save_quantized(
    model: nn.Module | Subject,
    assignment: Mapping[str, str],
    path: str | Path,
    *,
    keep: str = "fp16",
    rounded: Mapping[str, QuantizedTensor] | None = None,
    executions: Mapping[str, str] | None = None,
    note: dict[str, Any] | None = None,
    on_layer: Callable[[str], None] | None = None,
) -> int:
    """Write a model packed, and a readable summary beside it (``.json`` instead of ``.safetensors``).

    Every weight is quantised twice, once to learn what it takes (only then is it known whether its scales
    fit FP16) and once to write it. So nothing is written before all is known to be sound, and memory never
    holds more than one layer's temporaries.

    Args:
        model: the model or subject, in the precision that it was planned in, not packed.
        assignment: format key for every layer of ``find_layers(model)``.
        path: a ``.safetensors`` file; it appears complete or not at all.
        keep: precision of everything that is not quantised, ``"fp16"`` or ``"fp32"``.
        rounded: the weights of all layers in these formats, as `mixedprec.rounding` makes them; rounded to the nearest
            by default.
        executions: how layers are to run, of `vggtkit.runtime.backend.EXECUTIONS`, where that is decided.
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
    subject = subject_of(model)
    layers = check_assignment(subject.model, assignment, keep)
    sidecar, architecture = sidecar_of(path), _architecture(subject)
    fingerprint = model_fingerprint(subject.model)
    told = {name: how for name, how in (executions or {}).items() if name in assignment}
    info = CheckpointInfo(architecture, dict(assignment), keep, fingerprint, _checked_note(note), told)
    weights, rest = split_state(subject.model, layers)
    rest |= brought_biases(subject.model, layers, weights, rest, rounded or {})

    def stored(layer: Layer) -> dict[str, Tensor]:
        module, key = subject.model.get_submodule(layer.name), assignment[layer.name]
        q = quantize_layer(module, key, layer.name) if rounded is None else rounded[layer.name]
        return _stored(layer, q, weights)

    parts = [_part(name, stored_value(name, tensor, keep)) for name, tensor in rest.items()]
    layer_bytes: dict[str, int] = {}
    for layer in layers:
        of_layer = [_part(*item) for item in stored(layer).items()]
        layer_bytes[layer.name] = sum(part.nbytes for part in of_layer)
        parts += of_layer
    container = Container(parts, info.metadata(), _capacity(architecture, layers, weights, rest))
    with replacing_all([path, sidecar]) as (temporary, summary):
        with temporary.open("w+b") as file:
            for name, tensor in rest.items():
                container.write(file, name, stored_value(name, tensor, keep))
            for layer in layers:
                for name, tensor in stored(layer).items():
                    container.write(file, name, tensor)
                if on_layer is not None:
                    on_layer(layer.name)
            digest = container.write_header(file)
        summary.write_text(_summary(path, info, container, digest, layer_bytes), encoding="utf-8")
    return container.size_bytes


def read_info(path: str | Path) -> CheckpointInfo:
    """What a quantised checkpoint is, from its header alone.

    Raises:
        InputError: there is no such file, it is damaged, or it is no quantised checkpoint of this version.
    """
    path = Path(path)
    with CheckpointReader(path) as reader:
        return reader.info()


def load_quantized(
    path: str | Path,
    device: str | torch.device = "cpu",
    *,
    model: nn.Module | Callable[[], nn.Module] | None = None,
    verify: bool = True,
) -> nn.Module:
    """Load a quantised checkpoint for inference, without the original weights.

    Weights stay packed in memory and are rebuilt for the moment that their layer runs; kept tensors are in the
    precision that the model has them in. What the file says of how layers run is kept beside their weights, where
    backends find it (`vggtkit.runtime.backends`). By itself it computes what the original does after
    `apply_assignment`, bit for bit, as long as both have the same ``requires_grad``, by which torch picks among matrix
    products; neither touches it.

    Args:
        path: a file written by `save_quantized`.
        device: where the model ends up.
        model: for a network that is no VGGT: a module of its architecture with any weights, which becomes the loaded
            one, or the function that makes it. A file names this function, and nothing of it is ever called unasked.
        verify: compare the digest of what is read with the one in the header; without, a flipped bit goes unnoticed.

    Returns:
        The model in eval mode (a `VGGT` where the file is of one); run it under ``torch.no_grad()``.

    Raises:
        InputError: there is no such file, or it is truncated, of another kind or version, its tensors are not exactly
            those that its header promises, something has changed since it was written, or it is of another network
            than the one given.
    """
    path = Path(path)
    with CheckpointReader(path, verify=verify and digests_count()) as reader:
        info = reader.info()
        network = _network(info, path, model)
        try:
            layers = check_assignment(network, info.formats, info.keep)
        except InputError as error:
            raise damaged(path, str(error)) from None
        weights, rest = split_state(network, layers)
        for name, (layer, bias) in given_biases(network, layers, weights, reader.names()).items():
            adopt(network, layer, bias)
            rest[name] = bias
        parts = (file_part_names(weights[name], get_format(key)) for name, key in info.formats.items())
        reader.check_names({name for names in parts for name in names.values()} | rest.keys())
        state = {name: reader.unquantized(name, like, info.keep) for name, like in rest.items()}
        readers = json.loads(info.architecture).get(READERS, {})
        for layer in layers:
            q = reader.quantized(layer, info.formats[layer.name], weights[layer.name])
            module = network.get_submodule(layer.name)
            if q.format.key == "fp32":  # nothing to unpack: the plain weight
                state[weights[layer.name]] = from_out_first(q.codes, layer.kind).to(own_weight(module).dtype)
            else:
                hooked = replace(layer, reader=readers.get(layer.name, layer.reader))
                told = (info.executions or {}).get(layer.name)
                twins, reading = twins_of(network, layer), readers_of(network, hooked)
                pack_layer(module, q, twins=twins, readers=reading, execution=told)
        reader.check_digest()
    _fill(network, state)
    return network.to(device).eval()


def read_weights(path: str | Path, model: nn.Module | Subject) -> dict[str, QuantizedTensor]:
    """The quantised weights of a checkpoint alone, by layer name; nothing is run or changed.

    Args:
        path: a file written by `save_quantized`.
        model: of the same architecture.

    Raises:
        InputError: as `load_quantized`, or the file is of another network.
    """
    path, module = Path(path), subject_of(model).model
    weights = {}
    with CheckpointReader(path, verify=True) as reader:
        info = reader.info()
        layers = check_assignment(model, info.formats, info.keep)
        names, rest = split_state(module, layers)
        given = given_biases(module, layers, names, reader.names())
        biases = {layer.name: bias for layer, bias in given.values()}
        rest |= {name: bias for name, (_, bias) in given.items()}
        state = {name: reader.unquantized(name, like, info.keep) for name, like in rest.items()}
        official = {id(tensor): name for name, tensor in rest.items()}
        for layer in layers:
            bias = biases.get(layer.name, getattr(module.get_submodule(layer.name), "bias", None))
            q = reader.quantized(layer, info.formats[layer.name], names[layer.name])
            weights[layer.name] = q if bias is None else replace(q, bias=state[official[id(bias)]])
        reader.check_digest()
    return weights


def _network(info: CheckpointInfo, path: Path, model: nn.Module | Callable[[], nn.Module] | None) -> nn.Module:
    """The network without its weights, or the one that was given for them."""
    if info.factory is None:
        return _empty(info, path)
    if model is None:
        named = f" (it was made by {info.factory})" if info.factory else ""
        raise InputError(
            f"{path}: the network is no VGGT, so its code must be given{named}: load_quantized(path, model=build)"
        )
    return model if isinstance(model, nn.Module) else model()


def _fill(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a network the tensors that were kept; those that stand under several names are given to all of them."""
    whole = network.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    for name, tensor in whole.items():
        if isinstance(tensor, Tensor):
            first.setdefault(id(tensor), name)
    same = {name: first[id(tensor)] for name, tensor in whole.items() if isinstance(tensor, Tensor)}
    complete = {name: state[own] for name, own in same.items() if own in state}
    network.load_state_dict(complete, strict=False, assign=True)


def _architecture(subject: Subject) -> str:
    """What a header says of the network, as JSON."""
    if description := subject.description():
        return compact(json.loads(description))
    readers = {layer.name: layer.reader for layer in subject.layers if layer.reader == ""}
    return compact({FACTORY: subject.source} | ({READERS: readers} if readers else {}))


def _capacity(
    architecture: str, layers: Sequence[Layer], weights: Mapping[str, str], rest: Mapping[str, Tensor]
) -> int:
    """Bytes of header that suffice for every assignment; they depend on the architecture alone.

    The worst case: three tensors per layer, the longest keys, a full note, and all offsets at their longest
    (no format takes more than 6 bytes a weight).
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in rest.items()}
    for layer in layers:
        per_weight = (layer.shape[0], layer.weights // layer.shape[0])
        shapes[f"{weights[layer.name]}.codes"] = (layer.weights,)
        shapes[f"{weights[layer.name]}.scales"] = shapes[f"{weights[layer.name]}.zero_points"] = per_weight
    parts = [StoredTensor(name, torch.float32, shape) for name, shape in shapes.items()]
    longest = {layer.name: "x" * _LONGEST_KEY for layer in layers}
    info = CheckpointInfo(architecture, longest, "fp16", "f" * FINGERPRINT_DIGITS, {})
    numbers = sum(layer.weights for layer in layers) + sum(tensor.numel() for tensor in rest.values())
    return header_capacity(
        parts, info.metadata() | {"note": "x" * NOTE_BYTES, DIGEST_KEY: "f" * DIGEST_DIGITS}, data_bytes=6 * numbers
    )


def _stored(layer: Layer, q: QuantizedTensor, weights: Mapping[str, str]) -> dict[str, Tensor]:
    """What the file holds of a layer's weight, by name; plain values in the module's own layout."""
    tensors = q.tensors()
    if q.format.is_float:
        tensors["codes"] = from_out_first(q.codes, layer.kind)
    return {name: tensors[part] for part, name in file_part_names(weights[layer.name], q.format).items()}


def _part(name: str, tensor: Tensor) -> StoredTensor:
    return StoredTensor(name, tensor.dtype, tuple(tensor.shape))


def _summary(path: Path, info: CheckpointInfo, container: Container, digest: str, layer_bytes: dict[str, int]) -> str:
    summary = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "file": path.name,
        "size_bytes": container.size_bytes,
        "overhead_bytes": container.size_bytes - sum(layer_bytes.values()),
        "keep": info.keep,
        "model_fingerprint": info.model_fingerprint,
        DIGEST_KEY: digest,
        "config": json.loads(info.architecture),
        "note": info.note,
        "formats": info.formats,
        "executions": info.executions,
        "layer_bytes": layer_bytes,
    }
    return json.dumps(summary, indent=2) + "\n"


def _checked_note(note: dict[str, Any] | None) -> dict[str, Any]:
    note = note or {}
    escaped = len(json.dumps(compact(note))) - 2
    if escaped > NOTE_BYTES:
        raise InputError(f"the note takes {escaped} bytes in the header, at most {NOTE_BYTES} fit; shorten it")
    return note


def _empty(info: CheckpointInfo, path: Path) -> VGGT:
    """The architecture without memory for weights; a config that is of no network is the file's fault."""
    try:
        return skeleton(info.config)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise damaged(path, f"config in the header is of no VGGT ({first_line(error)})") from error
