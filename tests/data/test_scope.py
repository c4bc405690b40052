"""What a request covers, for every scenario that there is."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from megu.data.scope import RequestScope
from megu.data.splits import ForgetParams, Scenario

NAMED: dict[str, Any] = {"classes": ("A", "B"), "subclasses": ("x",), "count": 7, "ids": ("1" * 32,), "files": ("A/1", "A/2")}
COVERS = {
    "class": (RequestScope(classes=("A", "B")), "A, B"),
    "subclass": (RequestScope(subclasses=("A", "B")), "A, B"),
    "random": (RequestScope(samples=7, drawn=True), "7 random images"),
    "ids": (RequestScope(samples=3), "3 images"),
    "mixed": (RequestScope(classes=("A", "B"), subclasses=("x",), samples=3), "A, B, x, 3 images"),
}


def test_every_scenario_is_here() -> None:
    assert set(COVERS) == set(get_args(Scenario))


@pytest.mark.parametrize("scenario", COVERS)
def test_a_scenario_covers_what_it_reads_and_nothing_else(scenario: Scenario) -> None:
    found = RequestScope.of(vars(ForgetParams(scenario=scenario, **NAMED)))
    assert (found, str(found)) == COVERS[scenario]


def test_an_old_request_without_the_later_keys_is_read() -> None:
    assert RequestScope.of({"scenario": "ids", "classes": [], "ids": ["f" * 64]}) == RequestScope(samples=1)
    assert str(RequestScope(samples=1)) == "1 image"


def test_a_scenario_that_nobody_taught_it_is_refused() -> None:
    with pytest.raises(ValueError, match="no such scenario: some"):
        RequestScope.of({"scenario": "some", "classes": []})
