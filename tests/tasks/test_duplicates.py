"""The stage that finds copies, the split that includes them, and the configuration that says so once they are known."""

from __future__ import annotations

from typing import Any

import numpy as np
from purge_fixtures import garments

from megu.config.tree import parse
from megu.core.project import Project
from megu.core.stages import Outcome, Result
from megu.data import arrays
from tasks.dataset import DUPLICATES, find_duplicates
from tasks.run import inputs
from tasks.run.engine import Pending
from tasks.run.schedule import Awaited
from tasks.split import split


def result(stage: str, outcome: Outcome) -> Result:
    return Result(stage, {}, outcome.files, outcome.values, outcome.notes, 0.0, {})


def test_copies_are_found_once_and_included_where_it_is_asked(project: Project) -> None:
    images = garments(14, 3, size=16)
    images[5], images[12] = (images[at] - images[at] // 100 for at in (0, 7))  # of the other class; in test
    halves = (images[:10], np.arange(10) // 5), (images[10:], np.arange(4) // 2)
    arrays.save(project.data("small"), name="small", classes=("a", "b"), train=halves[0], test=halves[1])
    data = result("dataset", Outcome(values={"name": "small"}))
    found = result("duplicates", find_duplicates(project, data))
    assert DUPLICATES.says(found) == "4 images have a copy, equal or almost, 1 in train and in test, 1 in two classes"
    values: dict[str, Any] = {"data": {"name": "small"}, "forget": {"classes": ["a"]}}
    shown, config = parse(values), parse({**values, "forget": {**values["forget"], "near_duplicates": "include"}})
    alone = split(project, data, shown.forget, 0, through_dvc=False)
    wide = split(project, data, config.forget, 0, through_dvc=False, duplicates=found)
    assert [made.notes["forget"] for made in (alone, wide)] == [5, 6]
    copy = arrays.load(project.data("small")).train.ids[5].decode()
    asked = inputs.widened(project, config, data, found).forget
    assert (asked.scenario, asked.classes, asked.ids) == ("mixed", ("a",), (copy,))
    for unknown in (None, Pending("duplicates"), Awaited.of(DUPLICATES, "key")):
        assert inputs.widened(project, config, data, unknown) is config
