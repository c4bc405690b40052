"""After an erasure a class may have no image left: the labeler is not asked about it, and nothing is said to look like it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from megu.data import arrays, erasing
from megu.labeling import label
from megu.labeling.protocol import Identity, Judgement, Question
from megu.unlearning.labels.transition import transition_matrix


class Counting:
    """Says of an exemplar and a concept a number of its own, and remembers what it was asked."""

    identity = Identity("counting", "counts", "1", "0")

    def judge(self, question: Question) -> Judgement:
        self.question = question
        shape = (len(question.exemplars), len(question.concepts))
        return Judgement(np.arange(1.0, 1 + np.prod(shape)).reshape(shape), np.zeros(shape, dtype=bool))


def test_a_class_without_images_is_left_out_and_looks_like_itself(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 8)
    images = rng.integers(0, 256, (24, 4, 4, 1), dtype=np.uint8)
    whole = arrays.save(
        tmp_path / "a", name="a", classes=("x", "y", "z"), train=(images, labels), test=(images[::4], labels[::4])
    )
    emptied = erasing.write_without(whole, {"train": labels == 1, "test": labels[::4] == 1}, tmp_path / "b")
    labeler = Counting()
    found = label(emptied, labeler, exemplars=2, references=2, seed=0)
    assert labeler.question.concepts == ("x", "z")
    # Two exemplars of x, two of z, each judged by x and z: means of (1, 3), (2, 4), (5, 7), (6, 8).
    assert np.array_equal(found.S, [[2, 0, 3], [0, 1, 0], [6, 0, 7]])
    assert found.exemplar_class.tolist() == [0, 0, 2, 2]
    assert np.isnan(found.q[:, 1]).all()
    assert np.array_equal(transition_matrix(found.S)[:, 1], [0, 1, 0])
    assert label(whole, Counting(), exemplars=2, references=2, seed=0).S.shape == (3, 3)
