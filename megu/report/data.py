"""The data that the page is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from megu.evaluation.summary import Summary


@dataclass(frozen=True)
class ReportData:
    """summary: the run. entanglement: score and, by forgotten class, its nearest classes. facts: what was run, and on what, by group.

    params: the whole configuration. lineage: the graph from the model back to the data, by format. links: text -> address or id.
    """

    title: str
    summary: Summary
    entanglement: Mapping[str, Any]
    facts: Mapping[str, Mapping[str, str]]
    params: Mapping[str, Any]
    lineage: Mapping[str, str]
    links: Mapping[str, str]
