"""What a profile says, as rich tables and as plain values for ``--json``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from rich.table import Table
from rich.text import Text

from quant import Layer, get_format
from sensitivity.store import Profile

COARSE, FINE = "int4_group_128", "int8_per_channel_sym"
"""The two schemes that tables show where seven would not fit."""

ROLE_TITLES = {
    "patch_embed": "patch embedding",
    "attention": "attention",
    "mlp": "MLP",
    "camera_head": "camera head",
    "depth_head": "depth head",
    "point_head": "point head",
    "track_head": "track head",
    "other": "other",
}


def role_title(role: str) -> str:
    """A role as people say it.

    >>> role_title("mlp"), role_title("camera_head")
    ('MLP', 'camera head')
    """
    return ROLE_TITLES.get(role, role)


def profile_tables(profile: Profile, top: int = 8) -> list[Table]:
    """The tables that ``profile`` shows: schemes, roles, blocks, most and least sensitive layers."""
    return [
        scheme_table(profile),
        _grouped(profile, "role", lambda layer: role_title(layer.role)),
        _grouped(profile, "block", lambda layer: layer.block),
        layer_table(profile, _order(profile)[:top], f"{top} most sensitive layers"),
        layer_table(profile, _order(profile)[::-1][:top], f"{top} least sensitive layers"),
    ]


def scheme_table(profile: Profile) -> Table:
    """One row per uniform scheme: measured damage, and the sum of what the layers do alone."""
    table = Table(title="Uniform schemes on the calibration scenes", title_justify="left")
    for name in (
        "scheme",
        "layers MB",
        "damage, measured",
        "sum over layers",
        "MAE",
        "cosine",
        "SSIM",
        "NMSE",
    ):
        table.add_column(name, justify="left" if name == "scheme" else "right")
    accumulated = profile.scores["accumulated"]
    for column, scheme in enumerate(profile.schemes):
        alone = profile.column(scheme)
        means = (float(np.nanmean(accumulated[m][:, column])) for m in ("mae", "cosine", "ssim", "nmse"))
        table.add_row(
            get_format(scheme).title,
            f"{profile.size_bytes[:, alone].sum() / 1e6:.2f}",
            f"{profile.total_uniform[column]:.2e}",
            f"{profile.total_damage[:, alone].sum():.2e}",
            *(f"{mean:.4f}" for mean in means),
        )
    table.caption = "damage: NMSE of the outputs, averaged; MAE to NMSE: of layer outputs, accumulated, averaged"
    return table


def layer_table(profile: Profile, rows: Sequence[int], title: str) -> Table:
    """Given layers, with their errors under INT4 groups of 128 and damage under INT8 per channel beside."""
    table = Table(title=title, title_justify="left")
    coarse, fine = profile.column(COARSE), profile.column(FINE)
    captured = profile.schemes.index(COARSE)
    names = ("layer", "weights", "damage INT4", "INT8", "acc. cos.", "iso. cos.", "iso. MAE", "iso. SSIM")
    for name in names:
        table.add_column(name, justify="left" if name == "layer" else "right", no_wrap=True)
    isolated, accumulated = profile.scores["isolated"], profile.scores["accumulated"]
    for row in rows:
        layer = profile.layers[row]
        similarity = isolated["ssim"][row, captured]
        table.add_row(
            Text(short_name(layer)),
            f"{layer.weights:,}",
            f"{profile.total_damage[row, coarse]:.1e}",
            f"{profile.total_damage[row, fine]:.1e}",
            f"{accumulated['cosine'][row, captured]:.4f}",
            f"{isolated['cosine'][row, captured]:.4f}",
            f"{isolated['mae'][row, captured]:.4f}",
            "n/a" if np.isnan(similarity) else f"{similarity:.4f}",
        )
    return table


def short_name(layer: Layer) -> str:
    """A layer's name without what its block says already.

    >>> short_name(Layer("aggregator.frame_blocks.3.attn.qkv", "linear", "attention", "frame.3", (6, 2), 12))
    'frame.3 attn.qkv'
    """
    parts = layer.name.split(".")
    kind, _, number = layer.block.rpartition(".")
    if kind and number in parts:
        return f"{layer.block} {'.'.join(parts[parts.index(number) + 1 :])}"
    name = layer.name.removeprefix("aggregator.")
    return name.replace("tracker.updateformer.", "").replace("feature_extractor.", "features.")


def summary(profile: Profile, top: int = 8) -> dict[str, object]:
    """The same as plain values: schemes, roles and the most sensitive layers."""
    order = _order(profile)
    coarse = profile.column(COARSE)
    roles = {layer.role for layer in profile.layers}
    return {
        "path": str(profile.path),
        "layers": len(profile.layers),
        "weights": sum(layer.weights for layer in profile.layers),
        "schemes": {
            scheme: {
                "layer_bytes": int(profile.size_bytes[:, profile.column(scheme)].sum()),
                "measured_damage": float(profile.total_uniform[column]),
                "summed_damage": float(profile.total_damage[:, profile.column(scheme)].sum()),
            }
            for column, scheme in enumerate(profile.schemes)
        },
        "roles": {
            role: float(sum(profile.total_damage[i, coarse] for i, la in enumerate(profile.layers) if la.role == role))
            for role in sorted(roles)
        },
        "most_sensitive": [
            {"layer": profile.layers[i].name, "damage": float(profile.total_damage[i, coarse])} for i in order[:top]
        ],
    }


def _grouped(profile: Profile, title: str, key: Callable[[Layer], str]) -> Table:
    """Damage under INT4 and INT8, summed by a property of the layers."""
    coarse, fine = profile.column(COARSE), profile.column(FINE)
    captured = profile.schemes.index(COARSE)
    members: dict[str, list[int]] = {}
    for row, layer in enumerate(profile.layers):
        members.setdefault(key(layer), []).append(row)
    table = Table(title=f"Damage at the outputs by {title}", title_justify="left")
    for name in (
        title,
        "layers",
        "weights",
        "damage INT4 g128",
        "share",
        "damage INT8 per ch.",
        "iso. cosine INT4",
    ):
        table.add_column(name, justify="left" if name == title else "right")
    total = profile.total_damage[:, coarse].sum()
    for name, rows in members.items():
        damage = profile.total_damage[rows, coarse].sum()
        table.add_row(
            name,
            str(len(rows)),
            f"{sum(profile.layers[row].weights for row in rows):,}",
            f"{damage:.1e}",
            f"{damage / total:.1%}" if total else "n/a",
            f"{profile.total_damage[rows, fine].sum():.1e}",
            f"{np.nanmean(profile.scores['isolated']['cosine'][rows, captured]):.4f}",
        )
    return table


def _order(profile: Profile) -> list[int]:
    """Layers from the most to the least sensitive."""
    damage = profile.total_damage[:, profile.column(COARSE)]
    return [int(i) for i in np.argsort(-damage, kind="stable")]
