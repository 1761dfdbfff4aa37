"""What a user fixes beforehand: pins, layers kept in floating point, formats and bits by role, shared formats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase

from mixedprec.palette import FormatChoice, parse_formats
from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.quant import Layer, get_format, named_layers

SHARED_INPUT, SAME_BLOCK = "shared-input", "block"


@dataclass(frozen=True)
class Pin:
    """One format for the layers that a name or pattern means; it may lie outside of the palette."""

    pattern: str
    key: str

    def __str__(self) -> str:
        """As `parse_constraints` takes it."""
        return f"{self.pattern}={self.key}"


@dataclass(frozen=True)
class RoleFormats:
    """The formats of a role."""

    role: str
    formats: FormatChoice

    def __str__(self) -> str:
        """As `parse_constraints` takes it."""
        return f"{self.role}={self.formats}"


@dataclass(frozen=True)
class LeastBits:
    """Least bits of a role's codes."""

    role: str
    bits: int

    def __str__(self) -> str:
        """As `parse_constraints` takes it."""
        return f"{self.role}={self.bits}"


@dataclass(frozen=True)
class Constraints:
    """What is fixed; layers are meant by names and patterns as `vggtkit.quant.named_layers` reads them.

    Attributes:
        pins: formats of layers.
        keep_fp: layers that are not quantised; tensors that never are, such as norms, may be named as well.
        groups: layers that share a format: a pattern, ``"shared-input"`` (layers that read the same tensor) or
            ``"block"`` (the layers of a block with the same role).
        roles: formats by role.
        min_bits: least bits by role.
    """

    pins: tuple[Pin, ...] = ()
    keep_fp: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    roles: tuple[RoleFormats, ...] = ()
    min_bits: tuple[LeastBits, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        return any(getattr(self, field.name) for field in fields(self))

    def as_text(self) -> dict[str, list[str]]:
        """What is asked for, as files keep it.

        >>> parse_constraints(min_bits=["attention=4"]).as_text()
        {'min_bits': ['attention=4']}
        """
        entries = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: [str(entry) for entry in asked] for name, asked in entries.items() if asked}


def parse_constraints(
    *,
    pin: Sequence[str] = (),
    keep_fp: Sequence[str] = (),
    group: Sequence[str] = (),
    role: Sequence[str] = (),
    min_bits: Sequence[str] = (),
) -> Constraints:
    """Read constraints as people write them.

    Args:
        pin: each ``PATTERN=FORMAT``.
        keep_fp: patterns.
        group: patterns, ``shared-input`` or ``block``.
        role: each ``ROLE=FORMATS``, formats as `parse_formats` takes them.
        min_bits: each ``ROLE=BITS``.

    Raises:
        InputError: an entry is not of its form, or names an unknown format.
    """
    return Constraints(
        tuple(map(_pin, pin)), tuple(keep_fp), tuple(group), tuple(map(_role_formats, role)),
        tuple(map(_least_bits, min_bits)),
    )  # fmt: skip


@dataclass(frozen=True)
class _Rule:
    """One constraint: the layers that it speaks of, what it leaves of their formats, whether beyond the palette."""

    said: str
    matches: Callable[[Layer], bool]
    allows: Callable[[str], bool]
    widens: bool = True


def allowed_formats(
    layers: Sequence[Layer],
    constraints: Constraints,
    palette: Sequence[str],
    known: Sequence[str],
    *,
    keep: str = "fp16",
    never_quantized: Iterable[str] = (),
) -> dict[str, tuple[str, ...]]:
    """The formats that each layer may have, by its name.

    Args:
        layers: of the model.
        constraints: what is asked for.
        palette: formats allowed where nothing else is said.
        known: formats whose damage is known.
        keep: ``"fp16"`` or ``"fp32"``, for ``keep_fp``.
        never_quantized: tensors that are never quantised, which a ``keep_fp`` pattern may name as well.

    Raises:
        InputError: a pattern that matches nothing, an unknown role or format, or constraints that leave a layer
            nothing; both are named then.

    >>> layer = Layer("head.fc", "linear", "mlp", "other", (2, 2), 4)
    >>> pinned = parse_constraints(pin=["head.*=int8_per_channel_sym"])
    >>> allowed_formats([layer], pinned, ["int4_group_32"], ["int4_group_32", "int8_per_channel_sym"])
    {'head.fc': ('int8_per_channel_sym',)}
    """
    never = tuple(never_quantized)
    rules = [_pin_rule(pin, layers, known) for pin in constraints.pins]
    rules += [_keep_rule(pattern, layers, keep, never) for pattern in constraints.keep_fp]
    rules += [_formats_rule(entry, layers, known) for entry in constraints.roles]
    rules += [_bits_rule(entry, layers) for entry in constraints.min_bits]
    everything = [*dict.fromkeys((*known, "fp16", "fp32"))]
    return {layer.name: _for_layer(layer, rules, palette, everything) for layer in layers}


def shared_groups(
    layers: Sequence[Layer], groups: Sequence[str], same_input: Sequence[Sequence[str]] = ()
) -> list[tuple[str, ...]]:
    """Names of the layers that must share a format; sets that overlap are joined.

    Args:
        layers: of the model.
        groups: as in `Constraints`.
        same_input: the layers that read the same tensor, for ``"shared-input"``.

    Raises:
        InputError: a pattern that matches fewer than two layers.

    >>> layers = [Layer(name, "linear", "mlp", "other", (2, 2), 4) for name in ("a.q", "a.k", "b.q")]
    >>> shared_groups(layers, ["a.*"])
    [('a.q', 'a.k')]
    """
    sets: list[set[str]] = []
    for entry in groups:
        if entry == SHARED_INPUT:
            sets += [set(names) for names in same_input]
        elif entry == SAME_BLOCK:
            sets += [{o.name for o in layers if (o.block, o.role) == (one.block, one.role)} for one in layers]
        else:
            members = {layer.name for layer in named_layers(layers, entry)}
            if len(members) < 2:
                raise InputError(
                    f"{setting('group', entry)}: matches {len(members)} layers, a group needs two; quote the pattern, "
                    f"or use {SHARED_INPUT} or {SAME_BLOCK}"
                )
            sets.append(members)
    return _joined(layers, sets)


def common_formats(group: Sequence[str], allowed: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The formats that all layers of a group may have.

    Raises:
        InputError: there are none; two layers that disagree are named.
    """
    common = tuple(key for key in allowed[group[0]] if all(key in allowed[name] for name in group))
    if not common:
        first = group[0]
        other = next((name for name in group if not set(allowed[name]) & set(allowed[first])), group[-1])
        raise InputError(
            f"{first} and {other} must share a format ({setting('group')}), but one may be "
            f"{', '.join(allowed[first])} and the other {', '.join(allowed[other])}; pin them alike or leave one out "
            "of the group"
        )
    return common


def _joined(layers: Sequence[Layer], sets: Iterable[set[str]]) -> list[tuple[str, ...]]:
    """Overlapping sets as one, in the order of the layers; single layers are no group."""
    names = [layer.name for layer in layers]
    whose = {name: {name} for name in names}
    for members in sets:
        union = set().union(*(whose[name] for name in members if name in whose))
        whose |= dict.fromkeys(union, union)
    distinct = {id(group): group for group in whose.values() if len(group) > 1}
    order = {name: position for position, name in enumerate(names)}
    groups = [tuple(sorted(group, key=order.__getitem__)) for group in distinct.values()]
    return sorted(groups, key=lambda group: order[group[0]])


def _for_layer(
    layer: Layer, rules: Sequence[_Rule], palette: Sequence[str], everything: Sequence[str]
) -> tuple[str, ...]:
    """What the rules leave of a layer's formats; a rule that leaves nothing is named with the one before it."""
    mine = [rule for rule in rules if rule.matches(layer)]
    formats = list(everything if any(rule.widens for rule in mine) else palette)
    before = setting("formats")
    for rule in mine:
        left = [key for key in formats if rule.allows(key)]
        if not left:
            raise InputError(
                f"{layer.name}: {rule.said} contradicts {before}, which leaves {', '.join(formats)}; change one of them"
            )
        formats, before = left, rule.said
    return tuple(formats)


def _pin(text: str) -> Pin:
    pattern, equals, key = (part.strip() for part in text.rpartition("="))
    if not equals or not pattern:
        raise InputError(f"{setting('pin', text)}: write PATTERN=FORMAT, such as 'camera_head.*=int8_per_channel_sym'")
    get_format(key)
    return Pin(pattern, key)


def _role_formats(text: str) -> RoleFormats:
    role, formats = _role_and_value("role", text, "FORMATS, such as mlp=int4,int3")
    return RoleFormats(role, parse_formats(formats))


def _least_bits(text: str) -> LeastBits:
    role, bits = _role_and_value("min_bits", text, "BITS, such as attention=4")
    if not bits.isdigit() or not 1 <= int(bits) <= 32:
        raise InputError(f"{setting('min_bits', text)}: bits are {bits!r}, must be a whole number from 1 to 32")
    return LeastBits(role, int(bits))


def _role_and_value(name: str, text: str, form: str) -> tuple[str, str]:
    role, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not role:
        raise InputError(f"{setting(name, text)}: write ROLE={form}")
    return role, value


def _pin_rule(pin: Pin, layers: Sequence[Layer], known: Sequence[str]) -> _Rule:
    said = setting("pin", str(pin))
    if pin.key not in known and pin.key not in ("fp16", "fp32"):
        raise InputError(f"{said}: no scores for {pin.key}; choose one of {', '.join(known)}")
    return _Rule(said, _named(pin.pattern, layers, said), _among((pin.key,)))


def _keep_rule(pattern: str, layers: Sequence[Layer], keep: str, never: Sequence[str]) -> _Rule:
    said = setting("keep_fp", pattern)
    anyway = any(fnmatchcase(name, pattern) or fnmatchcase(name.rpartition(".")[0], pattern) for name in never)
    return _Rule(said, _named(pattern, layers, said, may_be_none=anyway), _among((keep,)))


def _formats_rule(entry: RoleFormats, layers: Sequence[Layer], known: Sequence[str]) -> _Rule:
    said = setting("role", str(entry))
    return _Rule(said, _of_role(entry.role, layers, said, "FORMATS"), _among(entry.formats.among(known, said)))


def _bits_rule(entry: LeastBits, layers: Sequence[Layer]) -> _Rule:
    said = setting("min_bits", str(entry))
    return _Rule(
        said, _of_role(entry.role, layers, said, "BITS"), lambda key: get_format(key).bits >= entry.bits, widens=False
    )


def _among(keys: Sequence[str]) -> Callable[[str], bool]:
    return lambda key: key in keys


def _named(pattern: str, layers: Sequence[Layer], said: str, *, may_be_none: bool = False) -> Callable[[Layer], bool]:
    """Whether a layer is one that the pattern means."""
    names = {layer.name for layer in named_layers(layers, pattern)}
    if not names and not may_be_none:
        raise InputError(f"{said}: no layer matches; layers are named like {layers[0].name}, quote the pattern")
    return lambda layer: layer.name in names


def _of_role(role: str, layers: Sequence[Layer], said: str, value: str) -> Callable[[Layer], bool]:
    roles = list(dict.fromkeys(layer.role for layer in layers))
    if role not in roles:
        raise InputError(f"{said}: write ROLE={value} with a role among {', '.join(roles)}")
    return lambda layer: layer.role == role
