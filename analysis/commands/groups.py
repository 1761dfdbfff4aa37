"""Option groups: one typed parameter of a command stands for several options that belong together."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints


def laid_out(command: Callable[..., None]) -> Callable[..., None]:
    """A command as typer takes it: each parameter that is a dataclass is replaced by the dataclass's fields.

    Args:
        command: its parameters are options; those annotated with a dataclass are groups, whose fields are options.

    Returns:
        The same, called with options alone; the groups are made of them.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Size:
    ...     width: int = 2
    ...     height: int = 3
    >>> def area(size: Size, factor: int = 1) -> None:
    ...     print(size.width * size.height * factor)
    >>> flat = laid_out(area)
    >>> str(inspect.signature(flat))
    '(*, width: int = 2, height: int = 3, factor: int = 1)'
    >>> flat(width=5, height=1, factor=2)
    10
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, type] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if dataclasses.is_dataclass(hints[name]):
            groups[name] = hints[name]
            parameters += _options_of(hints[name])
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name]))

    @functools.wraps(command)
    def call(**options: Any) -> None:  # noqa: ANN401
        made = {
            name: group(**{field.name: options.pop(field.name) for field in dataclasses.fields(group)})
            for name, group in groups.items()
        }
        command(**options, **made)

    del call.__wrapped__  # else its own signature would be read
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _options_of(group: type) -> list[inspect.Parameter]:
    """The fields of a group as keywords."""
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=_default(field), annotation=hints[field.name]
        )
        for field in dataclasses.fields(group)
    ]


def _default(field: dataclasses.Field[Any]) -> Any:  # noqa: ANN401
    if field.default is not dataclasses.MISSING:
        return field.default
    return inspect.Parameter.empty if field.default_factory is dataclasses.MISSING else field.default_factory()
