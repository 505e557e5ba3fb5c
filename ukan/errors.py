"""Errors meant for people: one line that says what, where and what to do. Everything else is our own bug.

Exit codes of the command line: 2 usage, 3 some inputs failed, 4 data, 5 out of memory, 130 interrupted.
"""


class UserError(ValueError):
    """Something asked for cannot be done as asked."""

    exit_code = 2


class DataError(UserError):
    """A file or folder cannot be used."""

    exit_code = 4


class OutOfMemory(UserError):
    """Not even the smallest micro-batch fits."""

    exit_code = 5


class Interrupted(UserError):
    """Stopped by Ctrl-C, SIGTERM; everything done so far is saved."""

    exit_code = 130


def nearest(name: str, known: list[str]) -> str:
    """' Did you mean 'x'?' for a mistyped name, or the list of known ones when none is close."""
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1, cutoff=0.5)
    if not close and "." in name:  # a right field in the wrong section
        tails = {key.rpartition(".")[2]: key for key in known}
        close = [tails[tail] for tail in get_close_matches(name.rpartition(".")[2], list(tails), n=1, cutoff=0.6)]
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."
