"""The one exception that means "the user can fix this", and the check of a number that raises it."""

from vggtkit.core.program import setting


class InputError(ValueError):
    """The input is at fault, not the program: a missing folder, an unknown scheme, a budget that cannot hold.

    The message is for the user: it names what failed, the value, the limit and the way out.
    The command line prints it without a traceback and exits with code 2.

    >>> raise InputError("seed=-1: give 0 or more")
    Traceback (most recent call last):
    vggtkit.core.errors.InputError: seed=-1: give 0 or more
    """


def check_number(name: str, value: int, least: int, most: int | None = None) -> None:
    """Refuse a number that is out of range, by the name of its setting.

    Raises:
        InputError: ``value`` is below ``least`` or above ``most``.

    >>> check_number("probes", 0, 1)
    Traceback (most recent call last):
    vggtkit.core.errors.InputError: probes=0: give a whole number, 1 or more
    """
    if value < least or (most is not None and value > most):
        limits = f"{least} or more" if most is None else f"{least} to {most}"
        raise InputError(f"{setting(name, value)}: give a whole number, {limits}")
