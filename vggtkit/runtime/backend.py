"""How the layers of a packed model are executed: one protocol, one registry (`vggtkit.runtime.backends`).

A backend says what it can run and what it needs of the processor, prepares a packed model once, and then runs it within
blocks. What a run consists of is written down beside it: the kernels, the bytes of weights that it reads, the layers
that run otherwise and why, the weights that were converted and what that changed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from vggtkit.core.errors import InputError
from vggtkit.core.program import setting
from vggtkit.subject import Subject

RESIDENT = ("packed", "int8")
EXECUTIONS = ("fp32", "bfloat16", "int8", "int8_resident")
"""How one layer may be told to run: by a product in FP32 or bfloat16, of its dequantised weight, or in whole numbers,
the weight expanded as it is used or once."""
RUNNABLE = "int8_per_channel_sym,int6_two_level,int5_two_level,int4_two_level,int3_two_level,fp16"
"""Formats that one integer kernel runs, as plans are asked for."""


def is_whole(execution: str | None) -> bool:
    """Whether a layer may be computed in whole numbers, by what its plan says of it; None: the backend decides.

    >>> is_whole(None), is_whole("int8_resident"), is_whole("bfloat16")
    (True, True, False)
    """
    return execution is None or execution.startswith("int8")


@dataclass(frozen=True)
class Options:
    """What a user may choose.

    Attributes:
        resident: ``"packed"``: weights stay as in the file and are expanded layer by layer as they are used;
            ``"int8"``: they are expanded once, for more memory and less time.
        convert: round weights that the backend does not run once more, to what it does, instead of refusing them.
        executions: one of `EXECUTIONS` by layer, for those that a plan has decided; the backend decides the others.

    Raises:
        InputError: ``resident`` or an execution is not known.

    >>> Options(resident="int4")
    Traceback (most recent call last):
    ...
    vggtkit.core.errors.InputError: resident='int4': not known; use packed or int8
    """

    resident: str = "packed"
    convert: bool = False
    executions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse another kind of residence or execution."""
        if self.resident not in RESIDENT:
            raise InputError(f"{setting('resident', self.resident)}: not known; use {' or '.join(RESIDENT)}")
        if unknown := [f"{layer}: {how}" for layer, how in self.executions.items() if how not in EXECUTIONS]:
            raise InputError(f"{unknown[0]} is no execution; use one of {', '.join(EXECUTIONS)}")


@dataclass(frozen=True)
class Execution:
    """How a prepared model runs.

    Attributes:
        backend: its key.
        kernels: what computes the layers, in words.
        weight_bytes: bytes of the weights that passes read, with their scales.
        layers: how many layers run in each way, by the way.
        fell_back: why a layer does not run in the backend's own arithmetic, by name.
        converted: NMSE of a weight that was rounded once more, against the one in the file, by name.
    """

    backend: str
    kernels: str
    weight_bytes: int
    layers: Mapping[str, int] = field(default_factory=dict)
    fell_back: Mapping[str, str] = field(default_factory=dict)
    converted: Mapping[str, float] = field(default_factory=dict)


class Prepared(ABC):
    """A packed model that a backend is ready to run.

    Attributes:
        execution: how.
        has_stages: whether the model's own parts run one after another, so that their times can be told.
        writes_files: whether the first pass of a shape makes a file for it, which takes longer than passes do.
    """

    execution: Execution
    has_stages = True
    writes_files = False

    @abstractmethod
    def running(self) -> AbstractContextManager[None]:
        """Within the block the model is executed so, as often as wanted; entering it costs next to nothing.

        The model must be packed there with the same weights that it was prepared with.
        """


class Backend(ABC):
    """A way to execute packed layers.

    Attributes:
        key: name on the command line.
        title: name in tables.
        needs: what it needs of the machine.
        is_listed: whether tables of plans name it; not where another one runs the same formats.
    """

    key: str
    title: str
    needs: str = "nothing beyond torch"
    is_listed = True

    @property
    def missing(self) -> str:
        """What this machine lacks of `needs`; "" where nothing."""
        return ""

    @abstractmethod
    def runs(self, format_key: str, layer_kind: str) -> bool:
        """Whether a layer in a format runs in this backend's own arithmetic, exactly as the file says."""

    def rounds_inputs_to(self, format_key: str) -> str | None:  # noqa: ARG002
        """The activation format that the input of a product with a weight in a format is rounded to; None: it stays."""
        return None

    def check(self, subject: Subject) -> None:  # noqa: B027
        """Refuse what cannot be prepared at all, before anything is measured.

        Raises:
            InputError: with the reason.
        """

    @abstractmethod
    def describe(self) -> str:
        """The kernels that run here."""

    @abstractmethod
    def prepare(self, subject: Subject, options: Options | None = None) -> Prepared:
        """Make a packed model ready; it is unchanged afterwards.

        Raises:
            InputError: a layer cannot be run and may not be converted.
        """


def not_run(backend: str, count: int, layer: str, format_key: str) -> str:
    """What a user is told of linear layers that a backend does not run."""
    return (
        f"{setting('execute', backend)}: {count} linear layers are not INT8 per channel, first {layer} ({format_key}): "
        f"plan with {setting('formats', RUNNABLE)}, or give {setting('convert')} to round them once more"
    )
