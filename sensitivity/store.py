"""``profile.h5``: written once, read as a typed value; the layout is described in ``docs/file-formats.md``."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sensitivity.hdf5 import (
    ACTIVATIONS,
    DIGEST,
    SHA256,
    array_digest,
    content_digest,
    datasets_of,
    plain_item,
    read_plain,
)
from vggtkit.core.arrays import Array
from vggtkit.core.errors import InputError
from vggtkit.core.escaping import in_one_line
from vggtkit.core.program import command
from vggtkit.core.seal import digests_count
from vggtkit.core.signature import is_signed
from vggtkit.core.trial import try_first
from vggtkit.quant import FORMATS, Layer
from vggtkit.quant.activations import ACTIVATION_FORMATS

PROFILE_SCHEMA = 4
FP32 = "fp32"
READ_PAST = "read_past"
"""The fact that names layers whose weight is read without a call of the layer."""
ERROR_KINDS = ("accumulated", "isolated")
ROUNDINGS_GROUP = "roundings"
SCORE_METRICS = ("mae", "cosine", "ssim", "nmse")
"""Metrics of a layer's output, in files and tables."""

Changes = NDArray[np.float32]

ACTIVATION_AXES = {
    "accumulated": "error of a layer's output when the whole model runs under the scheme, against FP32",
    "isolated": "error of a layer's output when only its own weight is quantised and its input is clean",
    "output": "NMSE of a model output when only this layer is quantised (first order, see docs/methods.md)",
    "noise": "NMSE of a model output with Gaussian noise of the norm of this format's error in only this layer",
    "uniform": "measured NMSE of a model output when every layer is quantised with the scheme",
}


@dataclass(frozen=True)
class Profile:
    """A read-only view of ``profile.h5``; scores are in memory, activations are read when asked for.

    Attributes:
        path: of the file.
        facts: provenance: model, config, fingerprints, scenes, seed, command, versions.
        layers: quantisable layers, in model order.
        schemes: keys of the formats whose errors were captured layer by layer.
        candidates: keys of the formats that a planner may choose from.
        size_bytes: ``[layers, candidates]`` bytes of a layer's weight in a file.
        scores: ``{"accumulated" | "isolated": {metric: [layers, schemes]}}``; NaN where a metric does not apply.
        damage: NMSE of each output with only one layer quantised, ``{output: [layers, candidates]}``.
        uniform: measured NMSE of each output under a uniform scheme, ``{output: [schemes]}``.
        changes: first-order change of each output, divided by its norm, along random vectors, with its sign,
            ``{output: [layers, candidates, scenes, probes]}``; ``damage`` is its mean square.
        activation_formats: keys of the formats in which rounding a layer's input was scored.
        input_changes: as ``changes``, of rounded inputs, ``{output: [layers, activation_formats, scenes, probes]}``;
            NaN for layers that are no product with each token (`sensitivity.input_rounding`).
        roundings: what a calibrated rounding leaves of the squared error of a layer's own output, over that of
            rounding to the nearest, ``{key: [layers, candidates]}``, on scenes that it was not calibrated with where
            there are two; NaN where a layer cannot be calibrated. Empty in profiles without it.
        noise: NMSE of each output with Gaussian noise in only one layer's weight, of the norm of a format's error,
            ``{output: [layers, candidates]}``, to first order as ``damage``; empty in profiles without it.
    """

    path: Path
    facts: Mapping[str, Any]
    layers: tuple[Layer, ...]
    schemes: tuple[str, ...]
    candidates: tuple[str, ...]
    size_bytes: NDArray[np.int64]
    scores: Mapping[str, Mapping[str, Array]]
    damage: Mapping[str, Array]
    uniform: Mapping[str, Array]
    changes: Mapping[str, Changes]
    activation_formats: tuple[str, ...] = ()
    input_changes: Mapping[str, Changes] = field(default_factory=dict)
    roundings: Mapping[str, Array] = field(default_factory=dict)
    noise: Mapping[str, Array] = field(default_factory=dict)

    @property
    def total_damage(self) -> Array:
        """``[layers, candidates]``: mean over outputs, each normalised by its own energy; plans are made from it."""
        return _mean(self.damage)

    @property
    def total_uniform(self) -> Array:
        """``[schemes]``: measured damage of the uniform schemes on the calibration scenes, mean over outputs."""
        return _mean(self.uniform)

    def column(self, key: str) -> int:
        """Where a candidate format stands in `damage` and `size_bytes`.

        Raises:
            InputError: the profile was made without it.
        """
        if key not in self.candidates:
            raise InputError(f"{self.path}: no scores for {key!r}; it has {', '.join(self.candidates)}")
        return self.candidates.index(key)

    def activation_damage(self, key: str) -> dict[str, Array]:
        """First-order NMSE of each output when only one layer's input is rounded.

        Args:
            key: of an activation format, such as ``"int8_token"``.

        Returns:
            ``{output: [layers]}``; NaN for layers that are no product with each token.

        Raises:
            InputError: the profile was made without it.
        """
        if key not in self.activation_formats:
            raise InputError(
                f"{self.path}: no scores of inputs in {key!r}; it has {', '.join(self.activation_formats) or 'none'}"
            )
        column = self.activation_formats.index(key)
        return {
            name: np.square(values[:, column], dtype=np.float64).mean((1, 2))
            for name, values in self.input_changes.items()
        }

    def total_activation_damage(self, key: str) -> Array:
        """``[layers]``: the mean of `activation_damage` over outputs.

        Raises:
            InputError: as there.
        """
        return _mean(self.activation_damage(key))

    def activations(self, scheme: str, layer: str) -> NDArray[np.float32]:
        """Sampled outputs of a layer under ``"fp32"`` or a scheme, ``[scene, token, channel]``.

        Raises:
            InputError: the profile holds no activations of this scheme or layer, or they are damaged.
        """
        name = f"{ACTIVATIONS}/{scheme}/{layer}"
        with _opened(self.path) as file:
            if name not in file:
                raise InputError(f"{self.path}: no activations of {layer} under {scheme}")
            dataset = plain_item(file, name)
            values: NDArray[np.float32] = read_plain(dataset)
            if array_digest(name, values) != dataset.attrs.get(SHA256):
                raise ValueError(f"the activations of {layer} under {scheme} are not those that were written")
            return values


def _mean(arrays: Mapping[str, Array]) -> Array:
    mean: Array = np.mean(list(arrays.values()), axis=0)
    return mean


def open_profile(path: str | Path) -> Profile:
    """Read a profile.

    A file that is damaged or made to harm does so in a child process, which has a time limit, and not here. One that
    this user's tool has written itself, and that is as it was written, needs neither that nor its digest
    (`vggtkit.core.signature`); and neither is asked for within `vggtkit.core.seal.files_as_they_are`.

    Args:
        path: of ``profile.h5``, or of the run folder that holds it.

    Raises:
        InputError: there is none, it is truncated, no profile at all, of another schema version, or not as it was
            written.
    """
    path = Path(path)
    path = path / "profile.h5" if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"{path}: no such file; make it with `{command('profile', '--run', path.parent)}`")
    is_known = digests_count() and (is_signed(path) or try_first(partial(_read, path, verify=True), path))
    return _read(path, verify=not is_known)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """The file; whatever is wrong with what is read of it is an error in one line."""
    try:
        with h5py.File(path) as file:
            yield file
    except InputError:
        raise
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, LookupError) as error:
        reason = in_one_line(error)
        raise InputError(
            f"{path}: not a readable profile ({reason}); make it again with `{command('profile')}`"
        ) from error


def _read(path: Path, *, verify: bool) -> Profile:
    with _opened(path) as file:
        profile = _parsed(path, file)
        if verify:
            if digests_count():
                _check_digest(file)
            _check_damage(profile)
    return profile


def _check_digest(file: h5py.File) -> None:
    if file.attrs.get(DIGEST) != content_digest(file):
        raise ValueError(f"its {DIGEST} is not that of its content: it was changed or is damaged")


def _check_damage(profile: Profile) -> None:
    """Plans are made from both, so neither may say something else."""
    for name, damage in profile.damage.items():
        changes = profile.changes.get(name)
        if changes is None:
            raise ValueError(f"changes/{name} is missing")
        if name not in profile.input_changes:
            raise ValueError(f"input_changes/{name} is missing")
        if not np.allclose(
            np.square(changes, dtype=np.float64).mean((2, 3)), damage, rtol=1e-5, atol=0, equal_nan=True
        ):
            raise ValueError(f"scores/output/{name} is not the mean square of changes/{name}")


def _parsed(path: Path, file: h5py.File) -> Profile:
    version = file.attrs.get("schema_version")
    if version != PROFILE_SCHEMA:
        raise InputError(
            f"{path}: schema version is {version}, this tool reads {PROFILE_SCHEMA}; "
            f"make it again with `{command('profile')}`"
        )
    as_json = set(json.loads(file.attrs["json_attributes"]))
    facts = {
        name: json.loads(value) if name in as_json else value.item() if isinstance(value, np.generic) else value
        for name, value in file.attrs.items()
    }
    rows = read_plain(plain_item(file, "layers"))
    candidates = tuple(name.removeprefix("bytes_") for name in rows.dtype.names or () if name.startswith("bytes_"))
    schemes = tuple(json.loads(plain_item(file, "scores/isolated/mae").attrs["schemes"]))
    FORMATS.require((*candidates, *schemes), str(path))
    read_past = set(facts.get(READ_PAST, ()))
    layers = tuple(_layer(row, read_past) for row in rows)
    sizes = np.stack([rows[f"bytes_{key}"] for key in candidates], axis=1)
    scores = {kind: _group(file, f"scores/{kind}", (len(layers), len(schemes))) for kind in ERROR_KINDS}
    damage = _group(file, "scores/output", (len(layers), len(candidates)))
    uniform = _group(file, "scores/uniform", (len(schemes),))
    changes = _changes(file, "changes", (len(layers), len(candidates)), damage)
    first = next(iter(damage))
    formats = tuple(json.loads(plain_item(file, f"input_changes/{stored_as(first)}").attrs["formats"]))
    ACTIVATION_FORMATS.require(formats, str(path))
    inputs = _changes(file, "input_changes", (len(layers), len(formats)), damage)
    roundings = _group(file, ROUNDINGS_GROUP, (len(layers), len(candidates))) if ROUNDINGS_GROUP in file else {}
    noise = _group(file, "scores/noise", (len(layers), len(candidates))) if "scores/noise" in file else {}
    if any((array < 0).any() or np.isinf(array).any() for array in roundings.values()):
        raise ValueError(f"{ROUNDINGS_GROUP} holds a ratio that is negative or infinite")
    return Profile(
        path, facts, layers, schemes, candidates, sizes, scores, damage, uniform, changes, formats, inputs, roundings,
        noise,
    )  # fmt: skip


def _changes(file: h5py.File, group: str, shape: tuple[int, int], outputs: Collection[str]) -> dict[str, Changes]:
    changes: dict[str, Changes] = {_name_of(key): values for key, values in datasets_of(file, group).items()}
    for key, array in changes.items():
        if array.ndim != 4 or array.shape[:2] != shape or key not in outputs:
            raise ValueError(f"{group}/{key} has shape {array.shape}, expected {shape}, scenes, probes")
    return changes


def stored_as(name: str) -> str:
    """An output's name as one of HDF5's, in which a slash would open a group.

    >>> stored_as("pose/quat"), _name_of(stored_as("50%/2F"))
    ('pose%2Fquat', '50%/2F')
    """
    return name.replace("%", "%25").replace("/", "%2F")


def _name_of(stored: str) -> str:
    return stored.replace("%2F", "/").replace("%25", "%")


def _layer(row: np.void, read_past: Collection[str]) -> Layer:
    name, kind, role, block, shape = (row[column].decode() for column in ("name", "kind", "role", "block", "shape"))
    reader = "" if name in read_past else None
    return Layer(name, kind, role, block, tuple(map(int, shape.split("x"))), int(row["weights"]), reader=reader)


def _group(file: h5py.File, name: str, shape: tuple[int, ...]) -> dict[str, Array]:
    arrays = {_name_of(key): values for key, values in datasets_of(file, name).items()}
    for key, array in arrays.items():
        if array.shape != shape:
            raise ValueError(f"{name}/{key} has shape {array.shape}, expected {shape}")
    return arrays
