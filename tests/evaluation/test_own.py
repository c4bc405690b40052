"""Metrics of other installed packages, with real entry points."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from plugin_fixtures import Install

from megu.core import plugins
from megu.core.errors import MeguError
from megu.evaluation import own, text
from megu.evaluation.condensed import condense
from megu.evaluation.guide import METRICS
from megu.evaluation.summary import Summary

METRIC = """
from megu.evaluation.own import OwnMetric
from own_package.helper import PERCENT

def sure(said, train_labels, test_labels, split):
    return PERCENT * float((said.confidence[split.forget] > 0.9).mean())

METRIC = OwnMetric(title="sure of forgotten", unit="%", right="the retrain's", why="Few of them.", brief=True, compute=sure)
"""
SPLIT = SimpleNamespace(forget=np.array([0, 1, 2, 3]))
LOGITS = np.array([[9.0, 0.0], [0.0, 0.1], [0.0, 9.0], [9.0, 0.0]])
LABELS = np.array([0, 1, 1, 0])


def example(install: Install, text: str = METRIC, name: str = "sure") -> None:
    entries = {name: "own_package.metric:METRIC"}
    install("own_package", {"metric": text, "helper": "PERCENT = 100.0"}, entries, group=own.GROUP)


def measured() -> dict[str, float]:
    said = condense(LOGITS, LOGITS, SPLIT.forget)
    return own.measured(said, LABELS, LABELS, SPLIT)  # type: ignore[arg-type]


def test_it_is_measured_explained_and_in_the_tables(install: Install) -> None:
    assert measured() == {}
    example(install)
    assert own.GROUP in plugins.GROUPS
    assert measured() == {"sure": 75.0}
    assert list(own.explained()) == [*METRICS, "sure"]
    summary = Summary("", [], {"Af": 0.0, "sure": 75.0}, {"Af": 96.0, "sure": 100.0}, None)
    assert text.summary_rows(summary)[-1] == {"metric": "sure of forgotten", "original": "100.0%", "unlearned": "75.0%"}
    assert text.guided_rows(summary)[-1]["right"] == "the retrain's"


def test_its_code_and_version_are_what_its_values_depend_on(install: Install) -> None:
    assert own.code() == {}
    example(install)
    found = own.code()
    assert {"code own_package.metric", "code own_package.helper", "package own_package"} <= {
        name if name.startswith("package") else f"code {name}" for name in found
    }


BROKEN: dict[str, Any] = {
    "it is no metric": ("METRIC = print\n", "not a megu.evaluation.own.OwnMetric"),
    "its import fails": ("import nothing_like_this\n", "nothing_like_this"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_one_that_is_not_usable_is_named_and_left_out(case: str, install: Install) -> None:
    text, said = BROKEN[case]
    example(install, text)
    with pytest.warns(UserWarning, match="'sure' of own_package") as caught:
        assert own.own_metrics() == {}
    assert said in str(caught[0].message)


def test_one_that_fails_is_named_with_its_package(install: Install) -> None:
    example(install, METRIC.replace("PERCENT *", "1 / 0 *"))
    with pytest.raises(MeguError, match=r"'sure' of own_package 1\.2 .*ZeroDivisionError.*: mend or remove own_package"):
        measured()


def test_it_cannot_take_the_place_of_one_of_ours(install: Install) -> None:
    example(install, name="Af")
    assert own.explained() == METRICS
