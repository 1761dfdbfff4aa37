"""``profile.h5``, written dataset by dataset; the layout is described in ``docs/file-formats.md``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sensitivity.hdf5 import ACTIVATIONS, SHA256, describe, writing_hdf5
from sensitivity.store import ACTIVATION_AXES, PROFILE_SCHEMA, ROUNDINGS_GROUP, Changes, stored_as
from vggtkit.core.arrays import Array
from vggtkit.core.atomic import replacing
from vggtkit.core.signature import sign
from vggtkit.quant import Layer

_SMALL = 1 << 12
"""Bytes up to which an activation is signed with the rest, which is faster than to leave it out."""


class ProfileWriter:
    """Fills a new profile; made by `writing_profile`."""

    def __init__(
        self,
        file: h5py.File,
        check: Callable[[], None],
        layers: Sequence[Layer],
        schemes: Sequence[str],
        candidates: Sequence[str],
        facts: Mapping[str, Any],
        activation_formats: Sequence[str] = (),
    ) -> None:
        self.file, self.check, self.layers, self.activation_formats = file, check, layers, activation_formats
        self.columns = {"accumulated": schemes, "isolated": schemes, "uniform": schemes, "output": candidates}
        self.columns["noise"] = candidates
        file.attrs["schema_version"] = PROFILE_SCHEMA
        for name, value in facts.items():
            file.attrs[name] = value if _is_attribute(value) else json.dumps(value)
        file.attrs["json_attributes"] = json.dumps([name for name, value in facts.items() if not _is_attribute(value)])
        self._activations: dict[str, tuple[h5py.Dataset, Any]] = {}

    def table(self, size_bytes: Sequence[Sequence[int]]) -> None:
        """Write ``/layers``, one row per layer, with its bytes in every candidate format."""
        text = h5py.string_dtype()
        columns = [
            ("name", text),
            ("kind", text),
            ("role", text),
            ("block", text),
            ("shape", text),
            ("weights", "i8"),
        ]
        columns += [(f"bytes_{scheme}", "i8") for scheme in self.columns["output"]]
        rows = np.empty(len(self.layers), dtype=columns)
        for row, layer, sizes in zip(rows, self.layers, size_bytes, strict=True):
            shape = "x".join(map(str, layer.shape))
            described = (layer.name, layer.kind, layer.role, layer.block, shape, layer.weights)
            for column, value in zip(rows.dtype.names or (), (*described, *sizes), strict=True):
                row[column] = value
        self.file["layers"] = rows

    def activations(self, scheme: str, layer: str, scene: int, scenes: int, tokens: NDArray[np.float32]) -> None:
        """Write the sampled tokens ``[token, channel]`` of one scene, in the order of scenes."""
        self.check()
        name = f"{ACTIVATIONS}/{scheme}/{layer}"
        if name not in self._activations:
            dataset = self.file.create_dataset(name, (scenes, *tokens.shape), dtype="f4", fillvalue=np.nan)
            describe(dataset, axes="scene, token, channel", units="the layer's own")
            self._activations[name] = dataset, hashlib.sha256(name.encode())
        dataset, digest = self._activations[name]
        dataset[scene] = tokens
        digest.update(np.ascontiguousarray(tokens, dtype=np.float32).data)

    def seal(self) -> list[tuple[int, int]]:
        """Write a digest of each activation, the last thing to be written; where large ones lie, offset and bytes."""
        for dataset, digest in self._activations.values():
            describe(dataset, **{SHA256: digest.hexdigest()})
        large = (dataset for dataset, _ in self._activations.values() if dataset.id.get_storage_size() > _SMALL)
        return [(dataset.id.get_offset(), dataset.id.get_storage_size()) for dataset in large]

    def changes(self, values: Mapping[str, Changes]) -> None:
        """Write ``/changes/<output>``, ``[layer, candidate, scene, probe]``."""
        meaning = "first-order change of a model output along random vectors, by its norm"
        self._changes("changes", "candidate", self.columns["output"], values, meaning)

    def input_changes(self, values: Mapping[str, Changes]) -> None:
        """Write ``/input_changes/<output>``, ``[layer, format, scene, probe]``."""
        meaning = "the same when only the input of this layer is rounded; NaN where it is no product with each token"
        self._changes("input_changes", "format", self.activation_formats, values, meaning)

    def _changes(
        self, group: str, column: str, keys: Sequence[str], values: Mapping[str, Changes], meaning: str
    ) -> None:
        for name, array in values.items():
            self.check()
            dataset = self.file.create_dataset(f"{group}/{stored_as(name)}", data=array.astype(np.float32))
            listed = json.dumps(list(keys))
            describe(dataset, axes=f"layer, {column}, scene, probe", meaning=meaning, **{f"{column}s": listed})

    def roundings(self, values: Mapping[str, Array]) -> None:
        """Write ``/roundings/<key>``, ``[layer, candidate]``."""
        for key, array in values.items():
            self.check()
            dataset = self.file.create_dataset(f"{ROUNDINGS_GROUP}/{key}", data=np.asarray(array, dtype=np.float64))
            meaning = (
                "squared error of the layer's output under this rounding over that of rounding to the nearest; NaN "
                "where it cannot be calibrated"
            )
            candidates = json.dumps(list(self.columns["output"]))
            describe(dataset, axes="layer, candidate", candidates=candidates, meaning=meaning)

    def scores(self, group: str, values: Mapping[str, Array]) -> None:
        """Write ``/scores/<group>/<name>``, ``[layer, scheme]`` or ``[scheme]``."""
        for name, array in values.items():
            self.check()
            dataset = self.file.create_dataset(
                f"scores/{group}/{stored_as(name)}", data=np.asarray(array, dtype=np.float64)
            )
            axes, schemes = "layer, scheme" if array.ndim == 2 else "scheme", json.dumps(list(self.columns[group]))
            describe(dataset, axes=axes, schemes=schemes, meaning=ACTIVATION_AXES[group])


def _is_attribute(value: object) -> bool:
    """Whether HDF5 takes a value as it is; its texts are UTF-8, which the name of a file need not be."""
    is_text = isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)
    return is_text or isinstance(value, int | float)


@contextmanager
def writing_profile(
    path: Path,
    layers: Sequence[Layer],
    schemes: Sequence[str],
    candidates: Sequence[str],
    facts: Mapping[str, Any],
    activation_formats: Sequence[str] = (),
) -> Iterator[ProfileWriter]:
    """A new profile, which takes its name only when the context ends without an exception.

    Raises:
        InputError: it cannot be written, say because the disk is full; an older profile stays as it was.
    """
    with replacing(path) as temporary:
        with writing_hdf5(temporary) as (file, check):
            writer = ProfileWriter(file, check, layers, schemes, candidates, facts, activation_formats)
            yield writer
            places = writer.seal()
        sign(temporary, places)
