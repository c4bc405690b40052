"""The machines that the rows of a page were measured on: a row has the number of its machine, the page a line for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def number(machines: list[dict[str, Any]], facts: Mapping[str, Any]) -> int:
    """The position of a machine in the list, which it joins where it is new. Another commit or version is another machine.

    facts: of `megu.tracking.environment.environment`.
    """
    if facts not in machines:
        machines.append(dict(facts))
    return machines.index(dict(facts))


def described(facts: Mapping[str, Any]) -> str:
    """A machine in a line."""
    return (
        f"{facts['cpu']}, {facts['cpus']} cores, threads: {facts['threads']}, torch {facts['version.torch']}, Python {facts['python']}, "
        f"commit {facts['git.commit'][:12]}{' with uncommitted changes' if facts.get('git.dirty') == 'true' else ''}"
    )
