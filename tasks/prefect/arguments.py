"""How a value is handed to a Prefect task."""

from __future__ import annotations

from typing import TypeVar, cast

from prefect.utilities.annotations import quote

T = TypeVar("T")


def as_is(value: T) -> T:
    """The value for a task, unsearched: at each call Prefect looks twice through all of an argument for what other tasks returned.

    What a task is to be linked with in Prefect's graph it gets in another argument, or by ``wait_for``.
    """
    return cast("T", quote(value))
