"""Differences of the same target and seed, what stands out of them, and the page on what labels are worth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from bench_fixtures import mark
from hypothesis import given
from hypothesis import strategies as st
from scripts import module

from megu.bench import paired, plots
from megu.bench.config import load
from megu.bench.expansion import expand
from megu.bench.scores import CellScore
from megu.report.figures import png
from megu.unlearning.labels.replacing import SOURCES

#: Between targets Ar is far apart, between the two methods of one target and seed it is not.
FAR = {"Bag": 30.0, "Coat": 0.0}
MARKS = [
    mark(method, target, seed, Ar=90.0 + seed - far - off)
    for target, far in FAR.items()
    for seed in (0, 1, 2)
    for method, off in (("judged", 0.0), ("uniform", 0.3 + 0.03 * seed), ("shuffled", 0.3 * (-1) ** seed))
]
AGAINST = {"uniform": "judged", "shuffled": "judged"}


def test_only_what_differs_between_methods_of_the_same_target_and_seed_is_left() -> None:
    """Ar is off by 30 of a Bag, and the gap is a third of it; of both methods alike."""
    found = paired.differences(paired.with_distances(MARKS), "uniform", "judged")
    assert len(found) == 6
    assert [entry["Ar_off"] for entry in found] == pytest.approx([0.3, 0.33, 0.36] * 2)
    assert [entry["gap"] for entry in found] == pytest.approx([0.1, 0.11, 0.12] * 2)
    uniform, shuffled = paired.rows(paired.with_distances(MARKS), AGAINST)
    assert paired.stands_out(uniform.values["gap"])
    assert not paired.stands_out(shuffled.values["Ar"])


def test_a_cell_without_its_like_or_with_an_error_makes_no_pair() -> None:
    marks = [mark("judged", seed=0), mark("uniform", seed=0, error="no"), mark("judged", seed=1), mark("uniform", seed=2)]
    assert paired.differences(marks, "uniform", "judged") == []
    assert paired.rows(marks, AGAINST) == []


def test_of_one_pair_nothing_stands_out() -> None:
    (row,) = paired.rows([mark("judged"), mark("uniform", Ar=1.0)], {"uniform": "judged"})
    assert row.n == 1
    assert not paired.stands_out(row.values["gap"])


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=6), st.floats(-20, 20))
def test_the_sign_says_which_is_nearer_and_swapping_swaps_it(offs: list[float], far: float) -> None:
    marks = [mark("one", seed=seed, Ar=far) for seed in range(len(offs))]
    marks += [mark("two", seed=seed, Ar=far - off) for seed, off in enumerate(offs)]
    there, back = paired.differences(marks, "two", "one"), paired.differences(marks, "one", "two")
    assert [entry["gap"] for entry in there] == pytest.approx([-entry["gap"] for entry in back])


def test_the_sentences_say_what_stands_out_by_how_much_and_what_does_not() -> None:
    found = paired.rows(paired.with_distances(MARKS), AGAINST)
    gap, ar, js = paired.sentence(found, {name: name for name in AGAINST}, "judged")
    assert gap.startswith("By gap, uniform is 0.11 ± 0.01 points farther from the retrain than judged; ")
    assert ar.startswith("By Ar off the retrain's, uniform is 0.33 ± 0.03 points farther")
    assert js == "By JS, uniform and shuffled cannot be told from judged."
    assert paired.tally(found)["gap"]["worse"] == 1
    assert paired.tally(found)["JS_forget"] == {"rows": 2, "worse": 0, "better": 0}


def test_the_figure_is_drawn_where_a_method_has_no_pair_yet() -> None:
    colours = dict.fromkeys(AGAINST, "#d55e00")
    groups = {"all": paired.with_distances(MARKS), "some": [mark("judged"), mark("uniform", Ar=80.0)]}
    assert png(plots.paired(groups, AGAINST, colours)).startswith(b"\x89PNG")


WORTH = module("labels_worth.py")


@pytest.mark.parametrize("file", WORTH.FILES, ids=lambda file: file.stem)
def test_the_benchmarks_have_every_source_in_both_forms_ten_classes_and_three_seeds(file: Path) -> None:
    bench = load(file)
    assert bench.seeds == (0, 1, 2)
    assert len({target["classes"][0] for target in bench.targets}) == 10
    cells = expand(replace(bench, seeds=(0,), targets=bench.targets[:1]))
    own = [source for source in SOURCES if source != "none"]
    for form in ("megu", "published label"):
        of = {cell.variant.label: cell.config.perturbing for cell in cells if cell.variant.label.startswith(f"{form}, ")}
        assert {label.rpartition(", ")[2]: params.matrix for label, params in of.items()} == {name: name for name in own}
    assert {cell.variant.label.rpartition(", ")[0] for cell in cells} == set(WORTH.FORMS)
    assert all(cell.config.perturbing.matrix == WORTH.source(cell.variant.label) for cell in cells)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three benchmarks, with two classes and one seed: 26 cells each."""
    made = []
    for file in WORTH.FILES:
        values = yaml.safe_load(file.read_text())
        made.append(tmp_path / file.name)
        made[-1].write_text(yaml.safe_dump({**values, "targets": values["targets"][:2], "seeds": [0]}))
    monkeypatch.setattr(WORTH, "FILES", made)


def content(*wanted: int) -> dict[str, Any]:
    """Of each benchmark so many cells, the first; megu by the uniform matrix is a point farther from the retrain in each."""
    made = {}
    for file, count in zip(WORTH.FILES, wanted, strict=True):
        cells = expand(load(file))[:count]
        made[file.stem] = [
            mark(cell.variant.label, cell.target, cell.seed, Ar=87.0 + cell.seed - 3 * (cell.variant.label == "megu, uniform"))
            for cell in cells
        ]
    facts = {"cpu": "a", "cpus": "2", "threads": "1", "version.torch": "2", "python": "3", "git.commit": "0" * 40}
    return {
        "machines": [facts],
        "marks": {name: [{"machine": 0, **WORTH.brief(entry).to_json()} for entry in marks] for name, marks in made.items()},
    }


@pytest.mark.usefixtures("small")
def test_the_page_of_partial_results_says_what_is_missing_and_computes_its_sentences(tmp_path: Path) -> None:
    WORTH.document(content(26, 20, 0), tmp_path / "labels.md")
    page = (tmp_path / "labels.md").read_text()
    assert (
        "46 of 78 runs are in it; there are missing 6 of CIFAR-100, ten classes, 26 of Fashion-MNIST, lightly trained.**"
        in page
    )
    assert "*megu*, gap: of 8 comparisons of another matrix with the labeler's 2 find the other one farther" in page
    assert (
        "- *megu*. By gap, uniform is 1.00 ± 0.00 points farther from the retrain than judged; shuffled, overlap and nearest"
        in page
    )
    assert (tmp_path / "labels-paired.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("small")
def test_the_page_of_all_results_says_nothing_of_missing_ones_and_that_of_none_can_be_written(tmp_path: Path) -> None:
    WORTH.document(content(26, 26, 26), tmp_path / "labels.md")
    assert "missing" not in (tmp_path / "labels.md").read_text()
    WORTH.document({"machines": [], "marks": {}}, tmp_path / "labels.md")
    assert "0 of 78 runs" in (tmp_path / "labels.md").read_text()


@pytest.mark.usefixtures("small")
def test_the_page_says_which_machines_ran_it_and_whether_a_difference_is_between_two() -> None:
    made = content(26, 0, 0)
    other = {**made["machines"][0], "cpu": "b"}
    assert (WORTH.number(made["machines"], dict(made["machines"][0])), WORTH.number(made["machines"], other)) == (0, 1)
    assert WORTH.machines(made)[0].startswith("- 26 runs: a, ")
    (first, second) = {entry["target"] for entry in made["marks"]["labels-memorised"]}
    for entry in made["marks"]["labels-memorised"]:
        entry["machine"] = int(entry["target"] == second)
    assert WORTH.machines(made)[:2] == [line for line in WORTH.machines(made) if line.startswith("- 13 runs: ")]
    assert "so no difference above is between machines" in WORTH.machines(made)[-1]
    next(entry for entry in made["marks"]["labels-memorised"] if entry["target"] == first)["machine"] = 1
    assert "in 1 of the pairs of a class and a seed they are not" in WORTH.machines(made)[-1]


def test_what_is_kept_of_a_cell_comes_back_as_it_was() -> None:
    entry = WORTH.brief(MARKS[0])
    assert CellScore.from_json(json.loads(json.dumps(entry.to_json()))) == entry
