"""What is known to fail is refused before anything is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from suppression_fixtures import listing

from megu.config import tree as configuration
from megu.core.errors import MeguError
from megu.core.project import Project
from megu.core.stages import Result
from megu.data import arrays
from megu.data.arrays import save
from tasks import dataset, labeler
from tasks.run import inputs
from tasks.run.inputs import enough_exemplars


@pytest.fixture
def toy(project: Project) -> Project:
    """Five different training images of each of three classes."""
    images = np.random.default_rng(0).integers(0, 256, (15, 8, 8, 1), dtype=np.uint8), np.arange(15) % 3
    save(project.data("toy"), name="toy", classes="abc", train=images, test=images)
    return project


def config(exemplars: int, references: int, **more: object) -> configuration.Config:
    judging = {"exemplars": exemplars, "references": references}
    return configuration.parse({"data": {"name": "toy"}, "forget": {"classes": ["a"]}, "labeling": judging, **more})


def test_a_labeler_that_has_too_few_images_is_refused(toy: Project) -> None:
    enough_exemplars(toy, config(2, 3))
    with pytest.raises(MeguError, match="class 'a' has 5 distinct training images, 6 are needed"):
        enough_exemplars(toy, config(3, 3))
    with pytest.raises(MeguError, match="class 'a' has 4 distinct training images, 5 are needed"):
        enough_exemplars(toy, config(2, 3, data={"name": "toy", "per_class": 4}))


def test_but_not_where_no_labeler_is_needed_or_the_data_are_not_here_yet(toy: Project) -> None:
    enough_exemplars(toy, config(30, 30, unlearn={"method": "finetune"}))
    enough_exemplars(toy, config(30, 30, data={"name": "elsewhere"}))


def test_an_address_that_is_none_is_refused_by_a_dry_run_where_it_would_be_asked(
    toy: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "*")
    asking = config(1, 1, labeling={"kind": "ollama"})
    with pytest.raises(MeguError, match=r"OLLAMA_HOST = '\*' is no address"):
        labeler.cost(toy, asking, hit=False)
    kept = labeler.cost(toy, asking, hit=True)
    assert kept is not None
    assert kept.calls == 0
    assert labeler.cost(toy, config(1, 1), hit=False) is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], ("oak",)),
        (["perturbing.label=rank"], ()),
        (["perturbing.sharpness=1"], ()),
        (["calibration.share=0"], ()),
        (["forget.scenario=class"], ()),
    ],
)
def test_a_sub_class_is_judged_where_a_target_depends_on_it(
    tmp_path: Path, settings: list[str], expected: tuple[str, ...]
) -> None:
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    asked = ["forget.scenario=subclass", "forget.classes=[oak]", *settings]
    assert inputs.subclasses(configuration.load(tmp_path / "params.yaml", asked)) == expected


@pytest.mark.parametrize("policy", ["refuse", "drop"])
def test_a_run_does_not_begin_with_what_was_erased_or_leaves_it_out(toy: Project, policy: str) -> None:
    values = config(2, 3, data={"name": "toy", "suppressed": policy})
    arguments = inputs.dataset(toy, values)

    def fetched() -> Result:
        made = dataset.fetch(toy, **arguments)
        return Result("dataset", {}, {}, made.values, made.notes, 1.0, {})

    before = fetched()
    inputs.nothing_erased(toy, values)
    assert dataset.still_there(toy, before)
    listing(toy, np.asarray(arrays.load(toy.data("toy")).train.images[:2]))
    assert not dataset.still_there(toy, before), "what an earlier run kept is not taken"
    if policy == "refuse":
        for begins in (lambda: inputs.nothing_erased(toy, values), fetched):
            with pytest.raises(MeguError, match="4 images that were erased"):
                begins()
    else:
        inputs.nothing_erased(toy, values)
        after = fetched()
        assert after.notes["train_images"] == before.notes["train_images"] - 2
        assert dataset.still_there(toy, after)
