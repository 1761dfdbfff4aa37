"""From a file to named tensors: safetensors in one file or many, and what ``torch.save`` wrote; told by the content.

What is no checkpoint is said for what it is: a Git LFS pointer, an HTML page, an empty or a truncated file.
"""

from __future__ import annotations

import codecs
import html
import json
import re
import zipfile
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from vggtkit.core.errors import InputError
from vggtkit.core.escaping import escape, first_line
from vggtkit.core.program import setting
from vggtkit.core.provenance import Say
from vggtkit.model.state_dicts import state_in
from vggtkit.model.torch_files import load_torch_file

WEIGHTS_FILE = "model.safetensors"
INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
INDEX_SUFFIX = ".index.json"
SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
PACKED_KIND = "vggt-mixedprec quantised checkpoint"
"""What the header of a packed checkpoint of this project says of itself."""
HEAD_BYTES = 2048
LARGEST_INDEX = 64 * 2**20


_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

_TAR_AT = 257
"""Where a tar archive says that it is one."""
_MAGIC = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch it with `git lfs pull`"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it first"),
    (b"\x89HDF", "an HDF5 file", "give safetensors or what torch.save wrote"),
    (b"\x93NUMPY", "a NumPy array", "give safetensors or what torch.save wrote"),
)


def weights_in(folder: Path) -> Path | None:
    """The weights file of a folder, or the index where they are in several; None where there is none.

    Raises:
        InputError: the folder has several checkpoints, and none has the usual name.
    """
    for name in (WEIGHTS_FILE, *INDEX_FILES):
        if (folder / name).is_file():
            return folder / name
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if len(files) > 1:
        names = ", ".join(escape(path.name) for path in files[:3])
        raise InputError(
            f"{setting('model', escape(folder))}: {len(files)} checkpoints are there ({names}); name the file itself"
        )
    return files[0] if files else None


def read_state(path: Path, say: Say, *, shapes_only: bool = False) -> dict[str, Tensor]:
    """The tensors of a checkpoint by the names of the network.

    Args:
        path: a safetensors file, a file of ``torch.save``, or the index of several.
        say: told what was unwrapped, stripped or left out.
        shapes_only: tensors on the meta device will do; of safetensors only the header is then read.

    Raises:
        InputError: the file is not there, broken, or something else than a checkpoint.
    """
    path_text = escape(path)
    if not path.is_file():
        raise InputError(f"{path_text}: no such file")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise _unreadable(path, first_line(error), "check its permissions") from error
    if path.name.endswith(INDEX_SUFFIX):
        return state_in(_read_shards(path, say, shapes_only=shapes_only), path_text, say)
    _refuse_other_files(path, head)
    if is_safetensors(head) or path.suffix.lower() == ".safetensors":
        return state_in(_read_safetensors(path, shapes_only=shapes_only), path_text, say)
    return _read_torch(path, say)


def is_safetensors(head: bytes) -> bool:
    r"""Whether a file that begins so is safetensors: the length of a header, then a JSON object.

    >>> is_safetensors((2).to_bytes(8, "little") + b"{}"), is_safetensors(b"PK\x03\x04")
    (True, False)
    """
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= 10**8


def _refuse_other_files(path: Path, head: bytes) -> None:
    """Say of a file that is no checkpoint what it is."""
    if not head:
        raise _unreadable(path, "the file is empty", "it may be truncated: fetch it again")
    for magic, kind, way_out in _MAGIC:
        if head.startswith(magic):
            raise _unreadable(path, kind, way_out)
    if head[_TAR_AT:].startswith(b"ustar"):
        raise _unreadable(path, "a tar archive", "unpack it first")
    if head.startswith(b"PK\x03\x04"):
        _refuse_other_archives(path)
    if (text := _as_text(head)) is None:
        return
    if text.startswith("<"):
        words = html.unescape(" ".join(re.sub(r"<[^>]*>", " ", text).split()))
        quoted = f' that says "{escape(words[:80])}"' if words else ""
        raise _unreadable(path, f"an HTML page{quoted}", "download the file again, logged in if its site asks for it")
    if len(head) > 8:
        kind = "JSON" if text.startswith(("{", "[")) else "text"
        raise _unreadable(path, f'{kind} that begins "{escape(text[:60])}"', "it may be truncated, or another file")


def _refuse_other_archives(path: Path) -> None:
    """A zip archive may be anything, and damaged."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # its list of files is damaged, which fails in a dozen ways
        raise _unreadable(path, first_line(error), "it may be truncated or damaged: fetch it again") from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise _unreadable(path, "a TorchScript archive, which holds code", "save the state dict alone, as safetensors")
    if not any(name.endswith("/data.pkl") for name in names):
        inside = f" and holds {escape(names[0])}" if names else ""
        raise _unreadable(path, f"a zip archive that torch.save did not write{inside}", "unpack it first")


def _as_text(head: bytes) -> str | None:
    """The beginning of a file where that is text, else None; pages may be in another encoding than UTF-8."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)  # a last character may be cut
    except UnicodeDecodeError:
        text = head.decode("ascii", errors="replace") if head.startswith(b"<") else ""
    text = text.strip()
    return text if text and all(c.isprintable() or c.isspace() for c in text) else None


def _read_safetensors(path: Path, *, shapes_only: bool) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            header = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            shapes = {name: (tuple(part.get_shape()), str(part.get_dtype())) for name, part in header.items()}
        if metadata.get("kind") != PACKED_KIND and not shapes_only:
            return load_file(path)
    except Exception as error:  # of the library's own kind, of the system, or of memory
        raise _unreadable(path, first_line(error), "it may be truncated: fetch it again") from error
    if metadata.get("kind") == PACKED_KIND:
        raise InputError(
            f"{escape(path)}: a packed checkpoint of this tool, its weights already quantised; load it with "
            f"mixedprec.load_quantized, and give as {setting('model')} the network that it was made from"
        )
    return {name: _meta(path, name, *stored) for name, stored in shapes.items()}


def _meta(path: Path, name: str, shape: tuple[int, ...], dtype: str) -> Tensor:
    """A tensor without numbers, as a header describes it."""
    if dtype not in _DTYPES:
        raise InputError(
            f"{escape(path)}: {escape(name)} is stored as {escape(dtype)}, which is no floating-point type"
        )
    return torch.empty(shape, dtype=_DTYPES[dtype], device="meta")


def _read_torch(path: Path, say: Say) -> dict[str, Tensor]:
    try:
        content, replaced = load_torch_file(path)
    except Exception as error:  # a broken pickle raises whatever its opcodes come upon
        refusal = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
        reason = escape(refusal[1]) if refusal else first_line(error)
        if reason.startswith("Unsupported operand"):
            reason = "a pickle of a protocol other than 2, which torch.save writes"
        way_out = "it may be truncated, or holds more than tensors: save the state dict alone, as safetensors"
        raise _unreadable(path, reason, way_out) from error
    if replaced:
        names = ", ".join(escape(name) for name in replaced[:3]) + (", ..." if len(replaced) > 3 else "")
        say(f"{escape(path)}: objects beside the weights are not rebuilt, no code of theirs is run ({names})")
    state = state_in(content, escape(path), say)
    if empty := [name for name, tensor in state.items() if tensor.is_meta]:
        raise InputError(
            f"{escape(path)}: {escape(empty[0])} is stored without its numbers, as a tensor of the meta device; "
            "save the network once its weights are in memory"
        )
    return state


def _read_shards(index: Path, say: Say, *, shapes_only: bool) -> dict[str, Tensor]:
    """The tensors of all files that an index names."""
    by_file = _files_of(index)
    state: dict[str, Tensor] = {}
    for name, wanted in by_file.items():
        path = index.parent / name
        if not path.is_file():
            raise InputError(f"{escape(index)}: {escape(name)}, one of its {len(by_file)} files, is not there")
        is_torch = path.suffix.lower() != ".safetensors"
        with path.open("rb") as file:
            _refuse_other_files(path, file.read(HEAD_BYTES))
        part = _read_torch(path, say) if is_torch else _read_safetensors(path, shapes_only=shapes_only)
        if absent := sorted(wanted - part.keys()):
            raise InputError(f"{escape(index)}: {escape(name)} does not hold {escape(absent[0])} as the index says")
        state |= {name: part[name] for name in wanted}
    say(f"{escape(index)}: {len(state):,} tensors read from {len(by_file)} files")
    return state


def _files_of(index: Path) -> dict[str, set[str]]:
    """Names of tensors by the file beside the index that holds them."""
    origin = escape(index)
    try:
        if index.stat().st_size > LARGEST_INDEX:
            raise InputError(f"{origin}: an index of {index.stat().st_size:,} bytes, the limit is {LARGEST_INDEX:,}")
        places = json.loads(index.read_text(encoding="utf-8-sig"))["weight_map"]
        pairs = list(places.items())
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{origin}: not an index with a weight_map of files by tensor ({first_line(error)})"
        ) from error
    files: dict[str, set[str]] = {}
    for tensor, name in pairs:
        if not isinstance(name, str) or Path(name).name != name or Path(name).suffix.lower() not in SUFFIXES:
            raise InputError(f"{origin}: {escape(tensor)} is said to be in {escape(name)}, which is no file beside it")
        files.setdefault(name, set()).add(tensor)
    if not files:
        raise InputError(f"{origin}: its weight_map is empty")
    return files


def _unreadable(path: Path, reason: str, way_out: str) -> InputError:
    return InputError(f"{escape(path)}: not a readable checkpoint ({reason}); {way_out}")
