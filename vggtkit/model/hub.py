"""Files of a Hugging Face repository: from the cache of this machine, else from the network, said when it fails."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from vggtkit.core.errors import InputError
from vggtkit.core.escaping import escape, first_line
from vggtkit.core.program import setting

HUB_IDS = {"vggt-1b": "facebook/VGGT-1B"}
HUB_SECONDS = 5.0  # to wait for the hub's first answer


def hub_file(repository: str, name: str) -> Path:
    """A file of a hub repository, from the local cache, else from the network.

    Raises:
        InputError: it is in neither.
    """
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
            f"{setting('model', escape(repository))}: no such folder, {name} is not in the local Hugging Face cache, "
            f"and the hub does not give it ({_reason(error)}); the same command takes up a broken download where it "
            f"stopped, or download it elsewhere and give its folder, or use {setting('weights', 'random')}"
        ) from error


def _reason(error: Exception) -> str:
    """What the system said, if it did: clients wrap that in sentences of their own, some of them long."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__
    return first_line(error)


def cached_file(repository: str, name: str) -> Path | None:
    """A file of a hub repository if it is in the cache; nothing is fetched."""
    from huggingface_hub import try_to_load_from_cache  # slow to import, needed here alone

    path = try_to_load_from_cache(repository, name)
    return Path(path) if isinstance(path, str) else None
