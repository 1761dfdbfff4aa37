"""Packed files with other contents."""

from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor


def edited(path: Path, edit: Callable[[dict[str, Tensor], dict[str, str]], None]) -> None:
    """Rewrite a file with other contents by the library's own writer: well-formed, but not ours."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    edit(tensors, metadata)
    save_file(tensors, path, metadata)
