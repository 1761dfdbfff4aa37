"""A plan, the file it is kept in, and the assignment that gives every layer the same format."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from mixedprec.policies import Assignment
from vggtkit.core.atomic import replacing
from vggtkit.core.errors import InputError
from vggtkit.core.program import command
from vggtkit.core.seal import SEAL, is_sealed, sealed
from vggtkit.model import HEADS, check_heads
from vggtkit.quant import FORMATS, Layer, get_format
from vggtkit.quant.rounding import NEAREST, ROUNDINGS
from vggtkit.runtime.backend import EXECUTIONS

SCHEMA_VERSION = 2
ANY_WEIGHTS = "0" * 16
"""Fingerprint in a plan that was made without a profile, for whatever weights the model has."""
DATA_FREE = "data-free"
"""How the scores of such plans begin."""
_TOLERANCE = 1e-6
"""Relative, of sums of floating-point numbers."""
KEEPS = ("fp16", "fp32")
"""How tensors that are not quantised may be stored."""


@dataclass(frozen=True)
class Plan:
    """One format per layer, what it costs, and where it comes from.

    Attributes:
        model_fingerprint: hash of the weights that the plan was made for, 16 hexadecimal digits.
        model: source of that model, as ``load_vggt`` takes it.
        policy: name of the policy that chose.
        score: name of the score that it chose by.
        budget_text: the budget as the user typed it.
        budget_bytes: the same in bytes of the whole file.
        keep: how everything that is not quantised is stored, ``"fp16"`` or ``"fp32"``.
        overhead_bytes: bytes of the file that no choice changes: its header and what is kept.
        formats: format key by layer name.
        layer_bytes: file bytes by layer name.
        predicted_damage: by model output, in the unit of ``score``: an estimate, without a profile a prior.
        total_damage: what the policy minimised: predicted damage of all outputs together.
        bound: proven lower bound of ``total_damage`` of any plan within the budget.
        optimal: whether no plan within the budget has a lower ``total_damage``.
        heads: the heads that the model keeps; none for a model that has none to choose from.
        provenance: versions of tool, torch and numpy, command line, seed, scene fingerprint.
        schema_version: of the file.
        coupling: how far the damages count what layers do to each other, see `mixedprec.joint`; 0 for sums over layers.
        rounding: key of `vggtkit.quant.rounding.ROUNDINGS`, how codes are chosen; damages are of the
            rounding that ``provenance["damage_of"]`` names, of ``nearest`` where it names none.
        executions: how layers run, of `vggtkit.runtime.backend.EXECUTIONS`, where the plan decides: all of them if time
            or memory were limited, else those whose inputs a backend must not round.
        takes: then what a pass takes, see `mixedprec.timing.Timing.facts`.
        tuned: how its weights were tuned, on what, and from which to which damage on the selection scenes, as
            `analysis.steps.tune` writes it; empty where they were not.

    >>> plan = Plan("0" * 16, "tiny", "optimal", "sketch", "1KB", 1000, "fp16", 600,
    ...             {"fc": "int4_group_32"}, {"fc": 300}, {"depth": 1e-4}, 1e-4, 1e-4, optimal=True)
    >>> plan.size_bytes
    900
    """

    model_fingerprint: str
    model: str
    policy: str
    score: str
    budget_text: str
    budget_bytes: int
    keep: str
    overhead_bytes: int
    formats: dict[str, str]
    layer_bytes: dict[str, int]
    predicted_damage: dict[str, float]
    total_damage: float
    bound: float
    optimal: bool
    provenance: dict[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    heads: tuple[str, ...] = HEADS
    coupling: float = 0.0
    rounding: str = NEAREST
    executions: dict[str, str] = field(default_factory=dict)
    takes: dict[str, Any] = field(default_factory=dict)
    tuned: dict[str, Any] = field(default_factory=dict)

    @property
    def only_in_checkpoint(self) -> bool:
        """Whether its codes were chosen on scenes, so that nothing but its checkpoint holds them."""
        return self.rounding != NEAREST or bool(self.tuned)

    @property
    def how(self) -> str:
        """How it came about, in a word or a few: its policy, its rounding if not to the nearest, whether tuned."""
        rounding = [] if self.rounding == NEAREST else [self.rounding]
        return ", ".join([self.policy, *rounding, *["tuned"] * bool(self.tuned)])

    @property
    def for_any_weights(self) -> bool:
        """Whether it was made without a profile, so that it belongs to an architecture and not to weights."""
        return self.score.startswith(DATA_FREE) and self.model_fingerprint == ANY_WEIGHTS

    @property
    def size_bytes(self) -> int:
        """Bytes of the checkpoint file that `save_quantized` writes for this plan."""
        return self.overhead_bytes + sum(self.layer_bytes.values())


def uniform_assignment(layers: Iterable[Layer], key: str) -> Assignment:
    """The assignment with one format everywhere.

    Raises:
        InputError: no format has this key.

    >>> uniform_assignment([Layer("fc", "linear", "mlp", "vit.0", (2, 2), 4)], "int4_group_32")
    {'fc': 'int4_group_32'}
    """
    get_format(key)
    return {layer.name: key for layer in layers}


def save_plan(plan: Plan, path: str | Path) -> None:
    """Write a plan as JSON, for people and for `load_plan`.

    Raises:
        InputError: the file cannot be written.
        ValueError: a number of the plan is NaN or infinite.
    """
    values = {"schema_version": plan.schema_version, "size_bytes": plan.size_bytes, **asdict(plan)}
    for name in ("executions", "takes", "tuned"):
        if not values[name]:
            del values[name]
    text = json.dumps(sealed(values), indent=2, allow_nan=False) + "\n"
    with replacing(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def load_plan(path: str | Path) -> Plan:
    """Read a plan, refusing whatever `save_plan` cannot have written.

    Args:
        path: a ``plan.json``.

    Raises:
        InputError: there is no such file, or it is no JSON, of another schema version, lacks a field or has
            one too many, holds a wrong type or an unknown format, its numbers contradict each other, or it has changed
            since it was written.
    """
    path = Path(path)
    read = _read(path)
    absent: dict[str, Any] = {
        "heads": list(HEADS), "coupling": 0.0, "rounding": NEAREST, "executions": {}, "takes": {}, "tuned": {}
    }  # fmt: skip
    values = absent | read
    values.pop(SEAL, None)
    _check_fields(values, path)
    for name, (wanted, fits) in _TYPES.items():
        if not fits(values[name]):
            raise _damaged(path, f"{name} is {_shown(values[name])}, must be {wanted}")
    size_bytes = values.pop("size_bytes")
    heads = check_heads(values["heads"], f"{path}: heads") if values["heads"] else ()
    plan = Plan(**values | {"heads": heads})
    _check_formats(plan, path)
    if plan.size_bytes != size_bytes:
        parts = f"overhead_bytes and layer_bytes sum to {plan.size_bytes}"
        raise _damaged(path, f"size_bytes is {size_bytes}, but {parts}")
    _check_numbers(plan, path)
    if not is_sealed(read):
        raise _damaged(path, f"its {SEAL} is not that of its content")
    return plan


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise InputError(f"{path}: no such plan; make one with `{command('plan', '--budget', '600MB')}`") from None
    except OSError as error:
        raise InputError(f"{path}: not readable ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"not valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise _damaged(path, f"holds {_shown(values)}, must be a JSON object")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _check_fields(values: dict[str, Any], path: Path) -> None:
    if (version := values.get("schema_version", SCHEMA_VERSION)) != SCHEMA_VERSION:
        raise InputError(f"{path}: schema version is {_shown(version)}, this tool reads {SCHEMA_VERSION}; plan again")
    if missing := [name for name in _TYPES if name not in values]:
        raise _damaged(path, f"field {missing[0]!r} is missing")
    if unexpected := sorted(values.keys() - _TYPES.keys()):
        raise _damaged(path, f"field {unexpected[0]!r} is unknown")


def _check_formats(plan: Plan, path: Path) -> None:
    if plan.formats.keys() != plan.layer_bytes.keys():
        name = min(plan.formats.keys() ^ plan.layer_bytes.keys())
        raise _damaged(path, f"layer {name!r} is in only one of formats and layer_bytes")
    for name, key in plan.formats.items():
        FORMATS.require([key], f"{path}: layer {name!r}")
    ROUNDINGS.require([plan.rounding], str(path))
    for name, execution in plan.executions.items():
        if name not in plan.formats or execution not in EXECUTIONS:
            raise _damaged(
                path, f"the execution of {name!r} is {_shown(execution)}, must be one of {', '.join(EXECUTIONS)}"
            )


def _check_numbers(plan: Plan, path: Path) -> None:
    """Refuse damage below its proven bound, and what is called the best without being there."""
    below = plan.bound - plan.total_damage
    if below > _TOLERANCE * abs(plan.bound) or (plan.optimal and -below > _TOLERANCE * abs(plan.bound)):
        what = "below" if below > 0 else "called optimal, and not at"
        raise _damaged(path, f"total_damage is {plan.total_damage:.9g}, {what} its bound of {plan.bound:.9g}")
    if plan.size_bytes > plan.budget_bytes:
        raise _damaged(path, f"size_bytes is {plan.size_bytes}, over its budget_bytes of {plan.budget_bytes}")


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{path}: {what}; the plan was changed by hand or is damaged, make it again")


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_fingerprint(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{16}", value) is not None


def _object_of(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(fits(entry) for entry in value.values())


_TEXT = ("text", _is_text)
_COUNT = ("a whole number, at least 0", _is_count)
_NUMBER = ("a number", _is_number)
# Field of the file -> what it must be, in words and as a test.
_TYPES: dict[str, tuple[str, Callable[[object], bool]]] = {
    "schema_version": _COUNT,
    "size_bytes": _COUNT,
    "model_fingerprint": ("16 hexadecimal digits", _is_fingerprint),
    "model": _TEXT,
    "policy": _TEXT,
    "score": _TEXT,
    "budget_text": _TEXT,
    "budget_bytes": _COUNT,
    "keep": (f"one of {', '.join(KEEPS)}", lambda value: value in KEEPS),
    "overhead_bytes": _COUNT,
    "formats": ("an object of texts", _object_of(_is_text)),
    "layer_bytes": ("an object of whole numbers, at least 0", _object_of(_is_count)),
    "predicted_damage": ("an object of numbers", _object_of(_is_number)),
    "total_damage": _NUMBER,
    "bound": _NUMBER,
    "optimal": ("true or false", lambda value: isinstance(value, bool)),
    "heads": ("a list of texts", lambda value: isinstance(value, list) and all(map(_is_text, value))),
    "coupling": ("a number from 0 to 1", _is_share),
    "rounding": _TEXT,
    "executions": ("an object of texts", _object_of(_is_text)),
    "takes": ("an object", lambda value: isinstance(value, dict)),
    "tuned": ("an object", lambda value: isinstance(value, dict)),
    "provenance": ("an object", lambda value: isinstance(value, dict)),
}
assert _TYPES.keys() == {"size_bytes", *(entry.name for entry in fields(Plan))}
