"""What a profile says, as tables and as plain values for ``--json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from analysis.report.document import Row, Table, Tone
from sensitivity.estimate_check import LARGEST_SHARE, LIMIT, EstimateCheck, check_estimates
from sensitivity.store import Profile
from vggtkit.core.arrays import Array
from vggtkit.quant import Layer, get_format, short_name
from vggtkit.quant.activations import ACTIVATION_FORMATS, INT8_TOKEN

COARSE, FINE = "int4_group_128", "int8_per_channel_sym"
"""The two schemes that tables show where seven would not fit."""

MOST_BLOCKS = 30
"""With more blocks than this, a table with a row for each would push all others off the screen."""

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


TASK_TITLES = {"pose": "camera", "depth": "depth map", "points": "point map"}


def task_title(task: str) -> str:
    """A task as people say it.

    >>> task_title("pose"), task_title("tracks")
    ('camera', 'tracks')
    """
    return TASK_TITLES.get(task, task)


def profile_tables(profile: Profile, top: int = 8) -> list[Table]:
    """The tables of ``profile``: schemes, roles, blocks if not too many, the estimate's check, extreme layers."""
    tables = [scheme_table(profile), _grouped(profile, "role", lambda layer: role_title(layer.role))]
    if len({layer.block for layer in profile.layers}) <= MOST_BLOCKS:
        tables.append(_grouped(profile, "block", lambda layer: layer.block))
    tables.append(agreement_table(profile))
    order = _order(profile)
    most, least = order[:top], order[::-1][:top]
    tables.append(layer_table(profile, most, f"{len(most)} most sensitive layers"))
    tables.append(layer_table(profile, least, f"{len(least)} least sensitive layers"))
    if inputs := _input_order(profile)[:top]:
        tables.append(input_table(profile, inputs))
    return tables


def scheme_table(profile: Profile) -> Table:
    """One row per uniform scheme: measured damage, and the sum of what the layers do alone."""
    accumulated = profile.scores["accumulated"]
    rows = list[Row]()
    for column, scheme in enumerate(profile.schemes):
        alone = profile.column(scheme)
        means = (_mean(accumulated[metric][:, column]) for metric in ("mae", "cosine", "ssim", "nmse"))
        rows.append(
            (
                get_format(scheme).short_title,
                f"{profile.size_bytes[:, alone].sum() / 1e6:.2f}",
                f"{profile.total_uniform[column]:.2e}",
                f"{profile.total_damage[:, alone].sum():.2e}",
                *map(_figure, means),
            )
        )
    caption = (
        "measured: NMSE of the outputs, averaged; predicted: the sum of what each layer does alone; MAE to NMSE: of "
        "the layers' outputs with errors inherited from earlier layers, averaged"
    )
    columns = ("scheme", "layers MB", "measured", "predicted", "MAE", "cosine", "SSIM", "NMSE")
    return Table("Uniform schemes on the calibration scenes", columns, rows, caption)


def agreement_table(profile: Profile) -> Table:
    """One row per output: what is estimated of the uniform INT4 schemes, and what they do."""
    noise = profile.facts.get("repeatability") or {}
    rows, tones = list[Row](), dict[int, Tone]()
    for output, row in check_estimates(profile).items():
        if not row.holds:
            tones[len(rows)] = "warning"
        rows.append(
            (
                output,
                get_format(row.scheme).short_title,
                f"{row.summed:.2e}",
                f"{row.jointly:.2e}",
                f"{row.measured:.2e}",
                f"{row.ratio:.2g}" if row.holds else f"OFF {row.ratio:.1g}",
                f"{noise[output]:.0e}" if output in noise else "n/a",
            )
        )
    caption = (
        "NMSE under the INT4 scheme where they differ most; sum, jointly: estimated over all layers, without and with "
        "what they do to each other; ratio: of the nearer one to the measurement, 1 between the two, all counted as "
        f"{LARGEST_SHARE:g} at most, OFF beyond {LIMIT:g} and what samples scatter; FP32 noise: between two FP32 passes"
    )
    columns = ("output", "scheme", "sum", "jointly", "measured", "ratio", "FP32 noise")
    return Table(
        "Estimate against measurement, uniform INT4", columns, rows, caption, wraps="output", words=("scheme",),
        tones=tones,
    )  # fmt: skip


def check_sentences(rows: Mapping[str, EstimateCheck]) -> list[str]:
    """What a reader should know where estimate and measurement differ."""
    off = {name: row for name, row in rows.items() if not row.holds}
    if not off:
        return []
    worst = max(off, key=lambda name: abs(np.log(off[name].ratio)))
    row = off[worst]
    return [
        f"THE ESTIMATE DOES NOT HOLD for {len(off)} of {len(rows)} outputs, most for {worst}: "
        f"{get_format(row.scheme).title} everywhere is estimated at {row.summed:.1e} (jointly {row.jointly:.1e}) and "
        f"measured at {row.measured:.1e}; single layers' damage may be as wrong, check plans with `evaluate`."
    ]


def layer_table(profile: Profile, rows: Sequence[int], title: str) -> Table:
    """Given layers: damage under INT4 groups of 128 and INT8 per channel, and errors of their output under INT4."""
    coarse, fine = profile.column(COARSE), profile.column(FINE)
    captured = profile.schemes.index(COARSE)
    isolated = profile.scores["isolated"]
    cells: list[Row] = [
        (
            short_name(profile.layers[row]),
            _compact(profile.layers[row].weights),
            f"{profile.total_damage[row, coarse]:.1e}",
            f"{profile.total_damage[row, fine]:.1e}",
            *(_figure(float(isolated[metric][row, captured])) for metric in ("cosine", "mae", "ssim")),
        )
        for row in rows
    ]
    caption = (
        "INT4, INT8: damage at the outputs with only this layer at INT4 g128, INT8 per channel; the others: of the "
        "layer's own output at INT4 on clean input"
    )
    columns = ("layer", "weights", "INT4", "INT8", "cosine", "MAE", "SSIM")
    return Table(title, columns, cells, caption, wraps="layer")


def input_table(profile: Profile, rows: Sequence[int]) -> Table:
    """Given layers: damage by rounding their input per token or block, beside that of the weight at INT8."""
    formats = [key for key in profile.activation_formats if not ACTIVATION_FORMATS[key].is_shared]
    titles = [ACTIVATION_FORMATS[key].short_title for key in formats]
    damage = [profile.total_activation_damage(key) for key in formats]
    damage.append(profile.total_damage[:, profile.column(FINE)])
    cells: list[Row] = [
        (
            short_name(profile.layers[row]),
            _compact(profile.layers[row].weights),
            *(f"{values[row]:.1e}" for values in damage),
        )
        for row in rows
    ]
    cells.append(("all layers", "", *(f"{np.nansum(values):.1e}" for values in damage)))
    caption = (
        "damage at the outputs with only the input of this layer rounded; INT8 weight: with only its weight, INT8 per "
        "channel"
    )
    return Table(
        f"{len(rows)} layers with the most sensitive inputs",
        ("layer", "weights", *titles, "INT8 weight"),
        cells,
        caption,
        wraps="layer",
        tones={len(rows): "strong"},
    )


def _figure(value: float) -> str:
    """A figure with four decimals, of a layer that nobody saw none."""
    return "n/a" if np.isnan(value) else f"{value:.4f}"


def _compact(count: int) -> str:
    """A count in at most five characters.

    >>> [_compact(count) for count in (128, 4608, 37_748_736)]
    ['128', '4.6k', '37.7M']
    """
    for unit, size in (("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)


def profile_summary(profile: Profile, top: int = 8) -> dict[str, object]:
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
        "estimate_check": {
            name: {**row._asdict(), "holds": row.holds} for name, row in check_estimates(profile).items()
        },
        "repeatability": profile.facts.get("repeatability"),
        "activations": {
            key: float(np.nansum(profile.total_activation_damage(key))) for key in profile.activation_formats
        },
        "most_sensitive_inputs": [
            {"layer": profile.layers[i].name, "damage": float(profile.total_activation_damage(INT8_TOKEN)[i])}
            for i in _input_order(profile)[:top]
        ],
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
    total = profile.total_damage[:, coarse].sum()
    shown = list[Row]()
    for name, rows in members.items():
        damage = profile.total_damage[rows, coarse].sum()
        shown.append(
            (
                name,
                str(len(rows)),
                f"{sum(profile.layers[row].weights for row in rows):,}",
                f"{damage:.1e}",
                f"{damage / total:.1%}" if total else "n/a",
                f"{profile.total_damage[rows, fine].sum():.1e}",
                _figure(_mean(profile.scores["isolated"]["cosine"][rows, captured])),
            )
        )
    caption = "INT4, share: at INT4 g128; INT8: per channel; cosine: of the layers' outputs at INT4, clean input"
    columns = (title, "layers", "weights", "INT4", "share", "INT8", "cosine")
    return Table(f"Damage at the outputs by {title}", columns, shown, caption, wraps=title)


def _mean(values: Array) -> float:
    """Mean of what there is; NaN, without a warning, of nothing."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else float("nan")


def _order(profile: Profile) -> list[int]:
    """Layers from the most to the least sensitive."""
    damage = profile.total_damage[:, profile.column(COARSE)]
    return [int(i) for i in np.argsort(-damage, kind="stable")]


def _input_order(profile: Profile) -> list[int]:
    """Layers with a rounded input, from the most to the least sensitive at INT8."""
    if INT8_TOKEN not in profile.activation_formats:
        return []
    damage = profile.total_activation_damage(INT8_TOKEN)
    return [int(i) for i in np.argsort(-damage, kind="stable") if not np.isnan(damage[i])]
