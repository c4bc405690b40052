"""A sub-class that leaves is known as well as the labeler says that it looks like the rest of its class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from megu.core.project import Project
from megu.core.stages import Code, Device, Outcome, Result
from megu.data.arrays import coarse_view, save, save_view
from megu.data.splits import ForgetParams, make_split
from megu.labeling.kinds import code
from megu.labeling.prototype import PrototypeParams
from megu.unlearning.labels.calibration_set import CalibrationParams
from megu.unlearning.labels.perturbing import PerturbParams
from tasks.labeling import label_subclasses
from tasks.perturbing import perturb, say

TRAIN, TEST = 72, 36


def result(values: dict[str, Any] | None = None, **files: Any) -> Result:
    return Result("a stage", {}, files, values or {}, {}, 0.0, {})


class Asked:
    """Six finer classes u to z, two of each of a, b and c, of which some are to be forgotten by an original that is sure of everything."""

    def __init__(self, project: Project, **forget: Any) -> None:
        images = np.random.default_rng(0).integers(0, 256, (TRAIN + TEST, 8, 8, 1), dtype=np.uint8)
        labels = np.arange(TRAIN + TEST) % 6
        parts = {"train": (images[:TRAIN], labels[:TRAIN]), "test": (images[TRAIN:], labels[TRAIN:])}
        whole = save(project.root / "fine", name="fine", classes="uvwxyz", coarse="aabbcc", **parts)
        save_view(project.data("toy"), coarse_view(whole), "toy")
        self.project, self.fine, self.own = project, labels[:TRAIN], labels // 2
        self.data = result({"name": "toy", "per_class": None, "classes": ["a", "b", "c"]})
        self.split = make_split(coarse_view(whole), ForgetParams(**forget), seed=0)

    def targets(self, judged: Result | None) -> tuple[Outcome, np.ndarray]:
        """What comes out, and the mean target of the own class for each forgotten image."""
        store = self.project.store
        positions = {name: getattr(self.split, name) for name in ("forget", "retain", "test_forget", "test_retain")}
        values = {"scenario": self.split.scenario, "classes": list(self.split.classes)}
        said = (4 * np.eye(3)[self.own] + np.random.default_rng(1).normal(size=(TRAIN + TEST, 3))).astype(np.float32)
        found = perturb(
            self.project,
            self.data,
            result(values, positions=store.put_arrays(positions)),
            result(predictions=store.put_arrays({"train_logits": said[:TRAIN], "test_logits": said[TRAIN:]})),
            result(transition=store.put_arrays({"T": np.full((3, 3), 1 / 3)})),
            PerturbParams(),
            CalibrationParams(),
            seed=0,
            labeling_apart=judged,
        )
        targets = store.arrays(found.files["perturbing"])["targets"]
        return found, targets[np.arange(len(targets)), self.own[self.split.forget]]

    def saying(self, apart: list[str], *rows: list[float]) -> Result:
        """A judgement of the sub-classes ``apart`` with these rows."""
        S = np.vstack([np.eye(3, 3 + len(rows)), *([*row, *[1.0] * len(rows)] for row in rows)])
        return result({"apart": apart}, labeling=self.project.store.put_arrays({"S": S}))


def test_the_targets_of_a_sub_class_have_the_mean_that_the_labeler_says(project: Project) -> None:
    """v of class a: .2 of what it looks like is a, 8 in 40; what it looks like itself is not counted."""
    asked = Asked(project, scenario="subclass", classes=("v",))
    before, known = asked.targets(None)
    assert known.mean() > 0.6, "by the held-out images alone"
    found, known = asked.targets(asked.saying(["v"], [8, 20, 12]))
    assert known.mean() == pytest.approx(0.2, abs=1e-4)
    assert found.values["likeness"] == {"v": 0.2}
    assert "v looks 20% like its class" in say(result(dict(found.values)))
    assert before.values["likeness"] == {}


def test_each_sub_class_has_its_own(project: Project) -> None:
    """In one mixed request u of a and z of c."""
    asked = Asked(project, scenario="mixed", classes=(), subclasses=("u", "z"))
    found, known = asked.targets(asked.saying(["u", "z"], [1, 9, 0], [5, 0, 5]))
    of = asked.fine[asked.split.forget]
    assert known[of == 0].mean() == pytest.approx(0.1, abs=1e-4)
    assert known[of == 5].mean() == pytest.approx(0.5, abs=1e-4)
    assert found.values["likeness"] == {"u": 0.1, "z": 0.5}


def test_a_class_that_leaves_is_no_class_to_look_like(project: Project) -> None:
    """u looks 2 like a, 2 like b, 6 like c: with c gone a half of the rest."""
    asked = Asked(project, scenario="mixed", classes=("c",), subclasses=("u",))
    found, _ = asked.targets(asked.saying(["u"], [2, 2, 6]))
    assert found.values["likeness"] == {"u": 0.5}


def test_the_labeler_judges_the_sub_class_beside_the_classes_without_it(project: Project) -> None:
    """Real: four concepts, the images of u among those of none but its own."""
    asked = Asked(project, scenario="subclass", classes=("u",))
    params = PrototypeParams(exemplars=2, references=3, image_size=32)
    made = label_subclasses(project, asked.data, "prototype", params, Code(code("prototype")), ("u",), Device("cpu"))
    assert made.values["apart"] == ["u"]
    S = project.store.arrays(made.files["labeling"])["S"]
    assert S.shape == (4, 4)
    found, known = asked.targets(Result("labeling-apart", {}, made.files, made.values, {}, 0.0, {}))
    assert known.mean() <= S[3, 0] / S[3, :3].sum() + 1e-4
    assert 0 < found.values["likeness"]["u"] < 1
