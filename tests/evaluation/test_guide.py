"""Nothing is measured that the report does not explain, and nothing explained that is not measured."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from megu.evaluation import compared, held_out, score
from megu.evaluation.attacks.shadows import Shadow, audit
from megu.evaluation.condensed import condense
from megu.evaluation.gate import DEEP
from megu.evaluation.guide import METRICS


def test_every_metric_is_explained() -> None:
    split = SimpleNamespace(
        forget=np.array([2, 3]), retain=np.array([0, 1]), test_forget=np.array([3, 4]), test_retain=np.array([0, 1, 2])
    )
    logits, train_labels, test_labels = np.eye(3)[[0, 1, 0, 0, 2]], np.array([0, 1, 2, 2]), np.array([0, 0, 1, 2, 2])
    said = condense(logits[:4], logits, split.forget)
    marks = score(said, train_labels, test_labels, split, 3).metrics  # type: ignore[arg-type]
    shadow = Shadow(np.zeros(4), np.zeros(5), np.zeros(4, dtype=bool), np.zeros(5, dtype=bool))
    attacked = audit(said, train_labels, test_labels, split, [shadow]).metrics  # type: ignore[arg-type]
    comparison = compared(marks, said, marks, said)
    beside = SimpleNamespace(**{**vars(split), "forget": np.array([0, 2, 3]), "retain": np.array([1])})
    both = condense(logits[[0, 1, 2, 3, 0]], logits, beside.forget)
    mixed = score(both, np.array([0, 1, 2, 2, 0]), test_labels, beside, 3).metrics  # type: ignore[arg-type]
    unseen = held_out.choose(split.forget, train_labels, test_labels)
    alone = held_out.score(said, test_labels, split, unseen)  # type: ignore[arg-type]
    assert set(METRICS) == {
        *marks,
        *mixed,
        *attacked,
        *comparison,
        *alone,
        "relearn_steps",
        *(metric for metric, _ in DEEP.values()),
    }


def test_each_says_what_is_right_and_why() -> None:
    for metric in METRICS.values():
        assert metric.right
        assert metric.why.endswith(".")
    assert [name for name, metric in METRICS.items() if metric.brief][:3] == ["Af", "Ar", "MIA"]
