"""The one table of weight formats ("schemes"); every other part asks it by key.

A new format is registered, here or by a plugin, and is then known to the packing, the byte counts, profiles, the
planner and the command line. A format's arithmetic follows from its fields alone:

- ``symmetric``: ``scale = max|w| / (2**(bits-1) - 1)``, codes in ``[-2**(bits-1), 2**(bits-1) - 1]``;
- asymmetric: ``scale = (max - min) / (2**bits - 1)``, codes in ``[0, 2**bits - 1]`` around a zero point;
- ``granularity``: what shares one scale (the tensor, an output channel, a group along the input);
  ``float`` means that the values themselves are stored;
- ``two_level``: a group's scale is its channel's times a whole number of ``8 - bits`` bits
  (`vggtkit.quant.two_level`).
"""

from dataclasses import dataclass
from typing import Literal

from vggtkit.core.registry import Registry

Granularity = Literal["float", "tensor", "channel", "group"]


@dataclass(frozen=True)
class Format:
    """How the weights of one layer are stored.

    Attributes:
        key: the name in files and on the command line.
        title: the name in tables and reports.
        bits: bits of one code, without its share of the scales.
        granularity: what shares one scale; ``"float"`` has none.
        symmetric: codes are signed around zero, without a zero point.
        group_size: weights per scale along the input; only for ``"group"``.
        two_level: a group's scale is a small whole number times one FP16 scale of its channel, so that the
            weight is INT8 per channel as well; only for symmetric groups of fewer than 8 bits.
        candidate: whether profiles score it, so that plans may choose it.

    >>> Format("int3_group_64", "INT3 groups of 64", 3, "group", symmetric=True, group_size=64).code_range
    (-4, 3)
    """

    key: str
    title: str
    bits: int
    granularity: Granularity
    symmetric: bool
    group_size: int | None = None
    two_level: bool = False
    candidate: bool = True

    def __post_init__(self) -> None:
        """Refuse fields that contradict each other; such a format is a programming error."""
        if (self.granularity == "group") != (self.group_size is not None):
            raise ValueError(f"{self.key}: group_size belongs to granularity 'group', and only there")
        if self.group_size is not None and self.group_size < 1:
            raise ValueError(f"{self.key}: group_size is {self.group_size}, must be at least 1")
        if self.two_level and (self.granularity != "group" or not self.symmetric or self.bits >= 8):
            raise ValueError(f"{self.key}: two levels of scales need symmetric groups of fewer than 8 bits")
        allowed = (16, 32) if self.is_float else range(2, 9)
        if self.bits not in allowed:
            raise ValueError(f"{self.key}: {self.bits} bits is none of {list(allowed)}")

    @property
    def short_title(self) -> str:
        """The title in at most 20 characters or so, for narrow tables and charts.

        >>> get_format("int8_per_channel_asym").short_title, get_format("int4_group_128").short_title
        ('INT8 channel asym', 'INT4 g128')
        """
        return (
            self.title.replace("per-", "")
            .replace("asymmetric", "asym")
            .replace("symmetric", "sym")
            .replace("groups of ", "g")
        )

    @property
    def is_float(self) -> bool:
        """Whether the values themselves are stored, without codes and scales."""
        return self.granularity == "float"

    @property
    def multiplier_bits(self) -> int:
        """Bits of a group's whole-number scale in a two-level format: what the codes leave of 8."""
        return 8 - self.bits

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest integer code."""
        if self.symmetric:
            return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        return 0, 2**self.bits - 1


FORMATS: Registry[Format] = Registry("format", listing="formats")
"""All formats by key."""


def register(new: Format) -> Format:
    """Add a format to ``FORMATS``.

    Args:
        new: a format whose key is not taken.

    Returns:
        The same format.

    Raises:
        ValueError: the key is taken.

    >>> register(Format("fp16", "again", 16, "float", symmetric=True))
    Traceback (most recent call last):
    ...
    ValueError: format 'fp16' is registered already
    """
    return FORMATS.register(new.key, new)


def get_format(key: str) -> Format:
    """Look a format up by its key.

    Args:
        key: one of ``FORMATS``.

    Returns:
        The registered format.

    Raises:
        InputError: no format has this key.

    >>> get_format("int8_per_channel_sym").title
    'INT8 per-channel symmetric'
    """
    return FORMATS.pick(key)


def candidates() -> tuple[str, ...]:
    """Keys of the formats that a profile scores and a planner may choose from, floating point last.

    They are the uniform schemes, of the others those that are worth their time (docs/methods.md), and what a plugin
    has registered.

    >>> candidates()[:2], candidates()[-1]
    (('int8_per_tensor_sym', 'int8_per_tensor_asym'), 'fp16')
    """
    scored = [fmt for fmt in FORMATS.values() if fmt.candidate]
    return tuple(fmt.key for fmt in sorted(scored, key=lambda fmt: fmt.is_float))


register(Format("fp32", "FP32", 32, "float", symmetric=True, candidate=False))
register(Format("fp16", "FP16", 16, "float", symmetric=True))

UNIFORM_SCHEMES: tuple[str, ...] = tuple(
    register(scheme).key
    for scheme in (
        Format("int8_per_tensor_sym", "INT8 per-tensor symmetric", 8, "tensor", symmetric=True),
        Format("int8_per_tensor_asym", "INT8 per-tensor asymmetric", 8, "tensor", symmetric=False),
        Format("int8_per_channel_sym", "INT8 per-channel symmetric", 8, "channel", symmetric=True),
        Format("int8_per_channel_asym", "INT8 per-channel asymmetric", 8, "channel", symmetric=False),
        Format("int4_group_128", "INT4 groups of 128", 4, "group", symmetric=True, group_size=128),
        Format("int4_group_64", "INT4 groups of 64", 4, "group", symmetric=True, group_size=64),
        Format("int4_group_32", "INT4 groups of 32", 4, "group", symmetric=True, group_size=32),
    )
)


def _family(name: str, title: str, bits: int, sizes: tuple[int, ...], scored: tuple[int, ...], **kind: bool) -> None:
    """Register groups of several sizes, of which some are scored."""
    for size in sizes:
        fields = {"symmetric": True, "candidate": size in scored} | kind
        key, named = f"int{bits}_{name}_{size}", f"INT{bits} {title} of {size}"
        register(Format(key, named, bits, "group", group_size=size, **fields))


_family("group", "groups", 3, (128, 64, 32), scored=(128, 64, 32))
_family("group", "groups", 2, (64, 32, 16), scored=(32,))
_family("asym", "asymmetric groups", 4, (128, 64, 32), scored=(64,), symmetric=False)
_family("asym", "asymmetric groups", 3, (64, 32), scored=(64,), symmetric=False)
_family("asym", "asymmetric groups", 2, (32, 16), scored=(32,), symmetric=False)
_family("two_level", "two-level groups", 6, (64,), scored=(64,), two_level=True)
_family("two_level", "two-level groups", 5, (64,), scored=(64,), two_level=True)
_family("two_level", "two-level groups", 4, (128, 64, 32, 16), scored=(64, 16), two_level=True)
_family("two_level", "two-level groups", 3, (64, 32, 16), scored=(64, 16), two_level=True)
_family("two_level", "two-level groups", 2, (32, 16), scored=(16,), two_level=True)

INT3_GROUPS = tuple(key for key in FORMATS if key.startswith("int3_group_"))
INT2_GROUPS = tuple(key for key in FORMATS if key.startswith("int2_group_"))
ASYMMETRIC = tuple(key for key in FORMATS if "_asym_" in key)
TWO_LEVEL = tuple(key for key, fmt in FORMATS.items() if fmt.two_level)
