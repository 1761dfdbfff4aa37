"""What the file of a quantised checkpoint says of itself, and reading it piece by piece, trusting nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from mixedprec.apply import KEEP_DTYPES
from mixedprec.container import DIGEST_KEY, file_digest
from vggtkit.core.errors import InputError
from vggtkit.core.escaping import first_line
from vggtkit.core.program import command, setting
from vggtkit.model.checkpoint_formats import PACKED_KIND
from vggtkit.model.config import VGGTConfig
from vggtkit.quant import Format, Layer, QuantizedTensor, get_format, out_first
from vggtkit.quant import part_names as quantized_parts
from vggtkit.runtime.backend import EXECUTIONS

KIND = PACKED_KIND
SUFFIX = ".safetensors"
SCHEMA_VERSION, BEFORE_EXECUTIONS = "4", "3"
"""That of files now, and of those that do not say how their layers are executed, which are read as well."""
FACTORY, READERS = "factory", "readers"
"""Keys of an architecture that is no VGGT: where it comes from, and which module reads weights past their layer."""
_LETTERS = dict(zip(("", *EXECUTIONS), "-fbir", strict=True))
"""An execution in the header; the first where the plan leaves it to the backend."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What the header of a quantised checkpoint says.

    Attributes:
        architecture: of what network: for VGGT its config as JSON, else a JSON object that names the function.
        formats: format key by layer name.
        keep: how everything else is stored, ``"fp16"`` or ``"fp32"``.
        model_fingerprint: of the weights that were quantised.
        note: whatever `save_quantized` was given to note.
        executions: of `vggtkit.runtime.backend.EXECUTIONS`, by the layers whose plan decides them; None in a file from
            before they were written down.
    """

    architecture: str
    formats: dict[str, str]
    keep: str
    model_fingerprint: str
    note: dict[str, Any]
    executions: dict[str, str] | None = field(default_factory=dict)

    @property
    def factory(self) -> str | None:
        """The function that makes the network, where it is no VGGT; never called on account of the file."""
        named = json.loads(self.architecture).get(FACTORY)
        return None if named is None else str(named)

    @property
    def config(self) -> VGGTConfig:
        """Sizes of the network, where it is a VGGT.

        Raises:
            InputError: they are of none.
        """
        return VGGTConfig.from_json(self.architecture, "config in the header")

    def metadata(self) -> dict[str, str]:
        """The header's texts."""
        return {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "config": self.architecture,
            "formats": compact(self.formats),
            "executions": "".join(_LETTERS[(self.executions or {}).get(name, "")] for name in self.formats),
            "keep": self.keep,
            "model_fingerprint": self.model_fingerprint,
            "note": compact(self.note),
        }


class CheckpointReader:
    """An open checkpoint; every failure is one line that names the file.

    Args:
        path: of the file.
        verify: hash the file in a thread of its own meanwhile.
    """

    def __init__(self, path: Path, *, verify: bool = False) -> None:
        self.path = path
        if not path.is_file():
            raise InputError(f"{path}: no such file; write one with `{command('export')}`")
        try:
            self.file: Any = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise damaged(path, f"not a complete safetensors file ({first_line(error)})") from error
        self._hashing = ThreadPoolExecutor(1) if verify else None
        self._digest = self._hashing.submit(_digest_of, path) if self._hashing else None

    def __enter__(self) -> CheckpointReader:
        self.file.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.file.__exit__(*exc_info)
        if self._hashing:
            self._hashing.shutdown()

    def info(self) -> CheckpointInfo:
        """The header's metadata, checked as far as it goes without the model."""
        texts: dict[str, str] = self.file.metadata() or {}
        if texts.get("kind") != KIND:
            raise InputError(f"{self.path}: not a quantised checkpoint; load it with {setting('model', self.path)}")
        version = texts.get("schema_version")
        if version not in (SCHEMA_VERSION, BEFORE_EXECUTIONS):
            raise InputError(
                f"{self.path}: schema version is {version}, this tool reads {SCHEMA_VERSION}; export it again"
            )
        absent = [
            name for name in ("config", "formats", "keep", "model_fingerprint", "note", DIGEST_KEY) if name not in texts
        ]
        if absent:
            raise damaged(self.path, f"{absent[0]!r} is missing in the header")
        self._check_architecture(texts["config"])
        formats, note = self._object(texts, "formats"), self._object(texts, "note")
        for name, key in formats.items():
            if not isinstance(key, str):
                raise damaged(self.path, f"the format of {name!r} is {key!r}")
        executions = None if version == BEFORE_EXECUTIONS else self._executions(texts.get("executions"), formats)
        return CheckpointInfo(texts["config"], formats, texts["keep"], texts["model_fingerprint"], note, executions)

    def _executions(self, text: str | None, formats: Mapping[str, str]) -> dict[str, str]:
        """A letter a layer, in the order of the formats."""
        known = {letter: execution for execution, letter in _LETTERS.items()}
        if text is None or len(text) != len(formats) or not set(text) <= known.keys():
            letters = "".join(known)
            raise damaged(self.path, f"'executions' in the header is no text of a letter of {letters} a layer")
        told = zip(formats, (known[letter] for letter in text), strict=True)
        return {name: execution for name, execution in told if execution}

    def _check_architecture(self, text: str) -> None:
        """A config of a VGGT, or the name of a function."""
        with suppress(ValueError, RecursionError):
            values = json.loads(text)
            if isinstance(values, dict) and isinstance(values.get(FACTORY), str):
                return
        VGGTConfig.from_json(text, f"{self.path}: config in the header")

    def names(self) -> set[str]:
        """Of all tensors."""
        return set(self.file.keys())

    def check_names(self, expected: set[str]) -> None:
        """Refuse a file that holds other tensors."""
        names = self.names()
        if missing := sorted(expected - names):
            raise damaged(self.path, f"{len(missing)} tensors are missing, the first is {missing[0]}")
        if unexpected := sorted(names - expected):
            raise damaged(self.path, f"{len(unexpected)} tensors are unexpected, the first is {unexpected[0]}")

    def check_digest(self) -> None:
        """Refuse what is not as it was written, if asked to verify; to be called when every tensor has been read."""
        texts: dict[str, str] = self.file.metadata() or {}
        if self._digest is not None and texts.get(DIGEST_KEY) != self._digest.result():
            raise damaged(self.path, f"its {DIGEST_KEY} is not that of its content")

    def unquantized(self, name: str, like: Tensor, keep: str) -> Tensor:
        """A tensor that is not quantised, in the precision that the model has it in."""
        tensor = self._tensor(name)
        stored = KEEP_DTYPES[keep] if like.is_floating_point() else like.dtype
        if tensor.shape != like.shape or tensor.dtype != stored:
            wanted = f"{stored} of shape {list(like.shape)}"
            held = f"{tensor.dtype} of shape {list(tensor.shape)}"
            raise damaged(self.path, f"{name} is {held}, must be {wanted}")
        if not bool(tensor.isfinite().all()):
            raise damaged(self.path, f"{name} contains NaN or Inf")
        return tensor.to(like.dtype)

    def quantized(self, layer: Layer, key: str, weight_name: str) -> QuantizedTensor:
        """The quantised weight of a layer."""
        fmt = get_format(key)
        tensors = {part: self._tensor(name) for part, name in file_part_names(weight_name, fmt).items()}
        if fmt.is_float and tensors["codes"].ndim == len(layer.shape):
            tensors["codes"] = out_first(tensors["codes"], layer.kind)
        try:
            return QuantizedTensor.from_tensors(key, layer.shape, tensors)
        except InputError as error:
            raise InputError(f"{self.path}: {weight_name}: {error}") from None

    def _tensor(self, name: str) -> Tensor:
        """A tensor in memory of its own, so that the file can be closed and replaced."""
        try:
            tensor: Tensor = self.file.get_tensor(name)
        except (SafetensorError, RuntimeError, TypeError, OSError) as error:
            raise damaged(self.path, f"{name} is unreadable ({first_line(error)})") from error
        return tensor.clone()

    def _object(self, texts: Mapping[str, str], name: str) -> dict[str, Any]:
        try:
            value = json.loads(texts[name])
        except (ValueError, RecursionError) as error:
            raise damaged(self.path, f"{name!r} in the header is not valid JSON ({error})") from error
        if not isinstance(value, dict):
            raise damaged(self.path, f"{name!r} in the header is no JSON object")
        return value


def file_part_names(weight_name: str, fmt: Format) -> dict[str, str]:
    """Name in the file of every tensor that a quantised weight consists of."""
    if fmt.is_float:
        return {"codes": weight_name}
    return {part: f"{weight_name}.{part}" for part in quantized_parts(fmt)}


def sidecar_of(path: Path) -> Path:
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
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and values.get("kind") == KIND


def damaged(path: Path, what: str) -> InputError:
    """The error for a file that `save_quantized` cannot have written."""
    return InputError(f"{path}: {what}; the file is damaged, export it again")


def compact(value: object) -> str:
    """JSON without spaces, as it stands in the header."""
    return json.dumps(value, separators=(",", ":"))


def _digest_of(path: Path) -> str:
    """What it should say of itself; "" for what cannot be read."""
    try:
        with path.open("rb") as file:
            return file_digest(file)
    except (OSError, ValueError):
        return ""
