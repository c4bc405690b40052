"""The one exception that reaches a person."""

from __future__ import annotations


class MeguError(Exception):
    """Something the user can mend.

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
    """A server, a database or the disk is away, whatever was asked for: the same may be tried again later (`megu.core.outages`)."""
