"""What ``--model`` can name, and where its config and its weights are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vggtkit.core.errors import InputError
from vggtkit.core.escaping import escape, first_line
from vggtkit.core.program import setting
from vggtkit.model.checkpoint_formats import INDEX_SUFFIX, SUFFIXES, WEIGHTS_FILE, weights_in
from vggtkit.model.config import BUNDLED, PRESETS, VGGTConfig, read_sizes
from vggtkit.model.hub import HUB_IDS, cached_file, hub_file
from vggtkit.model.stored_sizes import StatedConfig

CONFIG_FILE = "config.json"
LARGEST_CONFIG = 2**20


@dataclass(frozen=True)
class NetworkFiles:
    """Where a network is: its config, and the file of its weights if there is one at hand."""

    given: StatedConfig
    weights: Path | None


def resolve_source(source: str) -> str:
    """A source that means the same from any folder: an existing relative path as an absolute one, all else unchanged.

    >>> resolve_source("tiny"), resolve_source("facebook/VGGT-1B"), resolve_source("my_models.dpt:build")
    ('tiny', 'facebook/VGGT-1B', 'my_models.dpt:build')
    >>> resolve_source(".") == str(Path.cwd())
    True
    """
    is_function = ":" in source and os.sep not in source
    is_path = source not in PRESETS and not is_function and os.path.exists(source)  # noqa: PTH110 - false where it cannot be a path
    return os.path.abspath(source) if is_path else source  # noqa: PTH100 - Path.resolve would follow links


def local_weights(source: str | Path) -> Path | None:
    """The weights file of a source if it is on this machine, the Hugging Face cache included; never fetched.

    Of a checkpoint in several files it is the index.

    >>> local_weights("tiny").name
    'model.safetensors'
    """
    name = str(source)
    path = BUNDLED if name == "tiny" else Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        return weights_in(path)
    repository = HUB_IDS.get(name, name)
    return cached_file(repository, WEIGHTS_FILE) if repository.count("/") == 1 else None


def locate(source: str | Path, *, fetch: bool) -> NetworkFiles:
    """Config and weights file of a source.

    Args:
        source: as `vggtkit.model.load_vggt` takes it.
        fetch: weights are needed, and may be downloaded; without, there may be none.

    Raises:
        InputError: there is no such source, or it lacks what is needed.
    """
    name = str(source)
    if name == "tiny":
        return NetworkFiles(_read_config(BUNDLED), BUNDLED / WEIGHTS_FILE)
    path = _existing(name)
    if path.is_dir():
        weights = weights_in(path)
        if fetch and weights is None:
            raise InputError(
                f"{setting('model', escape(name))}: the folder has no {WEIGHTS_FILE}; put it there or name the file "
                "itself"
            )
        return NetworkFiles(_read_config(path), weights)
    if path.is_file():
        return NetworkFiles(_read_config(path.parent, optional=True), path)
    if name.endswith((*SUFFIXES, INDEX_SUFFIX)) or name.startswith((".", "/", "~")):
        raise InputError(f"{setting('model', escape(name))}: no such file or folder")
    return _on_hub(name, fetch=fetch)


def _existing(name: str) -> Path:
    """The path of that name, refused where the system does not take it as one."""
    if not name:
        raise InputError(f"{setting('model')}: the name is empty")
    path = Path(name)
    try:
        path.exists()
        if path.is_dir():
            next(path.iterdir(), None)
    except (OSError, ValueError) as error:  # too long, not to be listed
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{setting('model', escape(name))}: cannot be looked at ({escape(reason)})") from error
    return path


def _on_hub(name: str, *, fetch: bool) -> NetworkFiles:
    repository = HUB_IDS.get(name, name)
    if repository.count("/") != 1:
        known = ", ".join(sorted(PRESETS))
        raise InputError(
            f"{setting('model', escape(repository))}: neither a preset ({known}), a folder, a file, nor a Hugging Face "
            "id (owner/name)"
        )
    given = _read_config(hub_file(repository, CONFIG_FILE).parent)
    return NetworkFiles(given, hub_file(repository, WEIGHTS_FILE) if fetch else cached_file(repository, WEIGHTS_FILE))


def _read_config(folder: Path, *, optional: bool = False) -> StatedConfig:
    path = folder / CONFIG_FILE
    if not path.is_file():
        if optional:
            return StatedConfig(VGGTConfig(), frozenset(), "")
        raise InputError(f"{escape(folder)}: no {CONFIG_FILE}; it tells the sizes of the network")
    origin = escape(path)
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise InputError(f"{origin}: {path.stat().st_size:,} bytes are no config, the limit is {LARGEST_CONFIG:,}")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{origin}: not a readable config ({first_line(error)})") from error
    sizes = read_sizes(text, origin)
    return StatedConfig(VGGTConfig.from_json(text, origin), frozenset(sizes), origin)
