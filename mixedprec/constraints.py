"""What a user fixes beforehand: pins, layers kept in floating point, formats and bits by role, shared formats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mixedprec.palette import parse_formats
from vggtkit.core.errors import InputError
from vggtkit.quant import Layer, get_format

SHARED_INPUT, SAME_BLOCK = "shared-input", "block"


@dataclass(frozen=True)
class Constraints:
    """Each entry as it stands on the command line; patterns are those of file names (``*``, ``?``, ``[...]``).

    Attributes:
        pins: ``PATTERN=FORMAT``; a pin may name a format outside the palette.
        keep_fp: patterns of layers that are not quantised.
        groups: layers that share a format: a pattern, ``"shared-input"`` (layers that read the same tensor) or
            ``"block"`` (the layers of a block with the same role).
        roles: ``ROLE=FORMATS``, as ``--formats`` takes them.
        min_bits: ``ROLE=BITS``, least bits of a code.
    """

    pins: tuple[str, ...] = ()
    keep_fp: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    min_bits: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        return any((self.pins, self.keep_fp, self.groups, self.roles, self.min_bits))


@dataclass(frozen=True)
class _Rule:
    """One option, the layers that it speaks of, what it leaves of their formats, and whether beyond the palette."""

    option: str
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
    kept_names: Iterable[str] = (),
) -> dict[str, tuple[str, ...]]:
    """The formats that each layer may have, by its name.

    Args:
        layers: of the model.
        constraints: what is asked for.
        palette: formats allowed where nothing else is said.
        known: formats whose damage is known.
        keep: ``"fp16"`` or ``"fp32"``, for ``keep_fp``.
        kept_names: tensors that are never quantised, which a ``keep_fp`` pattern may name as well.

    Raises:
        InputError: a pattern that matches nothing, an unknown role or format, or constraints that leave a layer
            nothing; both are named then.

    >>> layer = Layer("head.fc", "linear", "mlp", "other", (2, 2), 4)
    >>> pinned = Constraints(pins=("head.*=int8_per_channel_sym",))
    >>> allowed_formats([layer], pinned, ["int4_group_32"], ["int4_group_32", "int8_per_channel_sym"])
    {'head.fc': ('int8_per_channel_sym',)}
    """
    pins = [*_pins(constraints.pins, known), *_kept(constraints.keep_fp, keep)]
    rules = [*pins, *_roles(constraints.roles, layers, known), *_bits(constraints.min_bits, layers)]
    for rule in pins:
        if not any(map(rule.matches, layers)) and not _names_kept(rule, kept_names):
            raise InputError(
                f"{rule.option}: no layer matches; layers are named like {layers[0].name}, quote the pattern"
            )
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
            found = {layer.name for layer in layers if fnmatchcase(layer.name, entry)}
            if len(found) < 2:
                raise InputError(
                    f"--group {entry}: matches {len(found)} layers, a group needs two; quote the pattern, or use "
                    f"{SHARED_INPUT} or {SAME_BLOCK}"
                )
            sets.append(found)
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
            f"{first} and {other} must share a format (--group), but one may be {', '.join(allowed[first])} and the "
            f"other {', '.join(allowed[other])}; pin them alike or leave one out of the group"
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
    found = [tuple(sorted(group, key=order.__getitem__)) for group in distinct.values()]
    return sorted(found, key=lambda group: order[group[0]])


def _for_layer(
    layer: Layer, rules: Sequence[_Rule], palette: Sequence[str], everything: Sequence[str]
) -> tuple[str, ...]:
    """What the rules leave of a layer's formats; a rule that leaves nothing is named with the one before it."""
    mine = [rule for rule in rules if rule.matches(layer)]
    formats = list(everything if any(rule.widens for rule in mine) else palette)
    said = "--formats"
    for rule in mine:
        left = [key for key in formats if rule.allows(key)]
        if not left:
            raise InputError(
                f"{layer.name}: {rule.option} contradicts {said}, which leaves {', '.join(formats)}; change one of them"
            )
        formats, said = left, rule.option
    return tuple(formats)


def _pins(entries: Sequence[str], known: Sequence[str]) -> list[_Rule]:
    rules = []
    for entry in entries:
        pattern, equals, key = (part.strip() for part in entry.rpartition("="))
        if not equals or not pattern:
            raise InputError(f"--pin {entry}: write PATTERN=FORMAT, such as 'camera_head.*=int8_per_channel_sym'")
        get_format(key)
        if key not in known and key not in ("fp16", "fp32"):
            raise InputError(f"--pin {entry}: no scores for {key}; choose one of {', '.join(known)}")
        rules.append(_Rule(f"--pin {entry}", _named(pattern), _among((key,))))
    return rules


def _kept(patterns: Sequence[str], keep: str) -> list[_Rule]:
    return [_Rule(f"--keep-fp {pattern}", _named(pattern), _among((keep,))) for pattern in patterns]


def _roles(entries: Sequence[str], layers: Sequence[Layer], known: Sequence[str]) -> list[_Rule]:
    rules = []
    for entry in entries:
        role, text = _role_and_value(entry, "--role", "FORMATS", layers)
        keys = parse_formats(text, known, option=f"--role {entry}")
        rules.append(_Rule(f"--role {entry}", _of_role(role), _among(keys)))
    return rules


def _bits(entries: Sequence[str], layers: Sequence[Layer]) -> list[_Rule]:
    rules = []
    for entry in entries:
        role, text = _role_and_value(entry, "--min-bits", "BITS", layers)
        if not text.isdigit() or not 1 <= int(text) <= 32:
            raise InputError(f"--min-bits {entry}: bits are {text!r}, must be a whole number from 1 to 32")
        least = int(text)
        rules.append(_Rule(f"--min-bits {entry}", _of_role(role), _at_least(least), widens=False))
    return rules


def _at_least(bits: int) -> Callable[[str], bool]:
    return lambda key: get_format(key).bits >= bits


def _among(keys: Sequence[str]) -> Callable[[str], bool]:
    return lambda key: key in keys


def _role_and_value(entry: str, option: str, what: str, layers: Sequence[Layer]) -> tuple[str, str]:
    role, equals, value = (part.strip() for part in entry.partition("="))
    roles = list(dict.fromkeys(layer.role for layer in layers))
    if not equals or role not in roles:
        raise InputError(f"{option} {entry}: write ROLE={what} with a role among {', '.join(roles)}")
    return role, value


def _named(pattern: str) -> Callable[[Layer], bool]:
    return lambda layer: fnmatchcase(layer.name, pattern)


def _of_role(role: str) -> Callable[[Layer], bool]:
    return lambda layer: layer.role == role


def _names_kept(rule: _Rule, kept_names: Iterable[str]) -> bool:
    """Whether a ``--keep-fp`` pattern names tensors that are kept anyway, such as norms."""
    pattern = rule.option.removeprefix("--keep-fp ")
    return pattern != rule.option and any(
        fnmatchcase(name, pattern) or fnmatchcase(name.rpartition(".")[0], pattern) for name in kept_names
    )
