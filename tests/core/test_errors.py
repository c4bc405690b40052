"""What an error came from."""

from __future__ import annotations

import errno

import pytest

from megu.core.errors import MeguError, chain
from megu.core.files.writable import disk_is_full
from megu.core.outages import is_outage


def raised() -> BaseException:
    """A `MeguError` that hides what it came from, which came from a full disk."""
    try:
        try:
            raise OSError(errno.ENOSPC, "no space")
        except OSError as error:
            raise RuntimeError("a database failed") from error
    except RuntimeError:
        try:
            raise MeguError("nothing was written") from None
        except MeguError as last:
            return last


def test_what_is_hidden_is_in_it_where_that_is_asked_for() -> None:
    assert [type(error) for error in chain(raised())] == [MeguError]
    assert [type(error) for error in chain(raised(), hidden=True)] == [MeguError, RuntimeError, OSError]
    assert disk_is_full(raised())


@pytest.mark.parametrize("look", [disk_is_full, is_outage])
def test_an_error_that_was_raised_from_itself_is_looked_at_once(look: object) -> None:
    error = ValueError("a circle")
    error.__cause__ = error
    assert list(chain(error, hidden=True)) == [error]
    assert look(error) is False  # type: ignore[operator]
