"""The one exception that means "the user can fix this"."""


class InputError(ValueError):
    """The input is at fault, not the program: a missing folder, an unknown scheme, a budget that cannot hold.

    The message is for the user: it names what failed, the value, the limit and the way out.
    The command line prints it without a traceback and exits with code 2.

    >>> raise InputError("--seed is -1: give 0 or more")
    Traceback (most recent call last):
    errors.InputError: --seed is -1: give 0 or more
    """
