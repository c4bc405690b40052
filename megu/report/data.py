"""What the page is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from megu.evaluation.summary import Summary


@dataclass(frozen=True)
class ReportData:
    """summary: the run. entanglement: score and, by forgotten class, its nearest classes. facts: what was run on what, by group.

    params: the whole configuration. lineage: the graph from the model back to the data, by form. links: text -> address or id.
    """

    title: str
    summary: Summary
    entanglement: Mapping[str, Any]
    facts: Mapping[str, Mapping[str, str]]
    params: Mapping[str, Any]
    lineage: Mapping[str, str]
    links: Mapping[str, str]
