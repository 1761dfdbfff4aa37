r"""What part a layer plays and which block it belongs to, told from its name by a small table of patterns.

The table knows VGGT and the words that vision transformers share; a TOML file can put patterns of its own first:

    [roles]
    "decoder\\..*attn" = "attention"

    [blocks]
    "decoder\\.(\\d+)" = "decoder.\\1"

A pattern is a regular expression that is searched for anywhere in the name; the first that is found decides, and its
groups may be used in the result.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from vggtkit.core.errors import InputError
from vggtkit.core.program import setting

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Patterns = tuple[tuple[str, str], ...]

_HEAD = r"^(camera_head|depth_head|point_head|track_head)\."

ROLE_PATTERNS: Patterns = (
    (_HEAD, r"\1"),
    (r"patch_embed\.proj$|patch_embeddings?\.|^conv_proj$|\bstem\b", "patch_embed"),
    (r"\b(self_|cross_)?attn\.|\battention\.|\battn_", "attention"),
    (r"\bmlp\.|\bffn\.|\bfeed_forward\.|\blinear[12]$|\bfc[12]$|\bintermediate\.", "mlp"),
    (r"^(\w*head\w*|classifier|fc)(\.|$)", "head"),
)
BLOCK_PATTERNS: Patterns = (
    (r"^aggregator\.patch_embed\.blocks\.(\d+)\.", r"vit.\1"),
    (r"^aggregator\.(frame|global)_blocks\.(\d+)\.", r"\1.\2"),
    (r"patch_embed\.proj$", "patch_embed"),
    (_HEAD, r"\1"),
    (r"(?:^|\.)([A-Za-z_]\w*)\.(\d+)\.", r"\1.\2"),
    (r"^(\w+)\.", r"\1"),
)


@dataclass(frozen=True)
class NameTable:
    """Patterns by which layers are described.

    Attributes:
        roles: pattern and role.
        blocks: pattern and block.

    >>> NameTable().role("aggregator.frame_blocks.3.attn.qkv"), NameTable().block("aggregator.frame_blocks.3.attn.qkv")
    ('attention', 'frame.3')
    >>> NameTable().role("layers.0.linear1"), NameTable().block("layers.0.linear1"), NameTable().role("0")
    ('mlp', 'layers.0', 'other')
    """

    roles: Patterns = ROLE_PATTERNS
    blocks: Patterns = BLOCK_PATTERNS

    def role(self, name: str) -> str:
        """The role of a layer of this name, ``"other"`` where no pattern is found."""
        return _first(self.roles, name)

    def block(self, name: str) -> str:
        """Its block, ``"other"`` where no pattern is found."""
        return _first(self.blocks, name)


def read_roles(path: str | Path) -> NameTable:
    """The table with a user's own patterns first.

    Raises:
        InputError: no such file, no TOML, or something else in it than patterns.
    """
    path = Path(path)
    label = setting("roles", path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RecursionError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{label}: cannot be read as TOML ({error})") from error
    if unknown := sorted(set(tables) - {"roles", "blocks"}):
        raise InputError(f"{label}: unknown table {unknown[0]!r}; it may hold [roles] and [blocks]")
    checked = [_checked(label, name, tables.get(name, {})) for name in ("roles", "blocks")]
    return NameTable(checked[0] + ROLE_PATTERNS, checked[1] + BLOCK_PATTERNS)


def _checked(label: str, table: str, patterns: object) -> Patterns:
    if not isinstance(patterns, dict):
        raise InputError(f"{label}: {table} must be a table of patterns")
    for pattern, result in patterns.items():
        try:
            if not isinstance(result, str) or not result:
                raise InputError(f"{label}: {pattern!r} in [{table}] must be given a name, not {result!r}")
            groups = re.compile(pattern).groups
            if any(int(used) > groups for used in re.findall(r"\\(\d+)", result)):
                raise InputError(f"{label}: {result!r} in [{table}] uses a group that {pattern!r} does not have")
        except (re.error, RecursionError, OverflowError) as error:
            raise InputError(f"{label}: {pattern!r} in [{table}] is no regular expression ({error})") from error
    return tuple(patterns.items())


def _first(table: Patterns, name: str) -> str:
    matches = ((re.search(pattern, name), result) for pattern, result in table)
    return next((match.expand(result) for match, result in matches if match), "other")
