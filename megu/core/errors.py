"""The one exception that is shown to a person, and the chain of causes of an error."""

from __future__ import annotations

from collections.abc import Iterator


class MeguError(Exception):
    """Something the user can fix.

    Parameters
    ----------
    what: what was wrong and where, in one line.
    fix: what to do about it, in one line.

    The command line prints ``what`` and ``fix`` on one line and exits with ``exit_code``; a traceback is for defects only.
    """

    exit_code = 2

    def __init__(self, what: str, fix: str = "") -> None:
        self.what = what
        self.fix = fix
        super().__init__(f"{what}: {fix}" if fix else what)


class Outage(MeguError):
    """A server, a database or the disk is unavailable, whatever the request was: the same may be retried later (`megu.core.outages`)."""


def chain(error: BaseException | None, *, hidden: bool = False) -> Iterator[BaseException]:
    """Yield an error and its causes, each once, as a traceback would show them. hidden: also those that ``raise … from None`` hides."""
    seen = set[int]()
    while error is not None and id(error) not in seen:  # an error raised from itself is a cycle
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ and not hidden else error.__context__)
