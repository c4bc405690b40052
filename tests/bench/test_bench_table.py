"""The table's statistics by hand."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from bench_fixtures import mark

from megu.bench import page, table
from megu.bench.config import load
from megu.bench.expansion import expand
from megu.bench.published import published
from megu.bench.scores import CellScore, numeric

#: Student's t for 95% and 1, 2, 3 degrees of freedom, from a printed table.
T = {1: 12.706, 2: 4.303, 3: 3.182}


def row(rows: list[table.Row], method: str, target: str = "") -> table.Row:
    return next(entry for entry in rows if (entry.method, entry.target) == (method, target))


def test_a_row_is_the_mean_and_the_interval_over_its_seeds() -> None:
    # Ar off by 3, 6 and 9 points, the rest right: gaps of 1, 2 and 3.
    marks = [mark("ssd", seed=seed, Ar=90.0 + seed - 3 * (seed + 1)) for seed in range(3)]
    found = row(table.rows(marks), "ssd", "Bag").values["gap"]
    assert found["mean"] == pytest.approx(2)
    assert found["high"] - found["mean"] == pytest.approx(T[2] * 1 / math.sqrt(3), rel=1e-3)
    assert row(table.rows(marks), "ssd", "Bag").cell("gap", 2) == "2.00 ± 2.48"
    assert row(table.rows(marks), "ssd", "Bag").values["seconds"]["mean"] == 4, "noise and unlearning"


def test_the_retrains_gap_is_that_between_seeds() -> None:
    # From seed to seed Ar and MIA of the retrain grow by 1: gaps of 2/3, 4/3 and 2/3.
    marks = [mark(method, seed=seed) for seed in range(3) for method in ("ssd", "delete")]
    found = row(table.rows(marks), table.REFERENCE, "Bag")
    assert found.values["gap"]["mean"] == pytest.approx((2 / 3 + 4 / 3 + 2 / 3) / 3)
    assert found.values["gap"]["n"] == 3
    assert found.values["Ar"]["mean"] == pytest.approx(91)
    assert found.values["seconds"]["mean"] == pytest.approx(20)
    assert found.n == 3
    # ToW by hand: only Ar_train, Af_train and the whole test set count, and they are the same.
    assert found.values["ToW"]["mean"] == pytest.approx(1)


def test_with_one_seed_there_is_no_floor_and_no_interval() -> None:
    rows = table.rows([mark("ssd", Ar=87.0)])
    assert "gap" not in row(rows, table.REFERENCE, "Bag").values
    assert row(rows, table.REFERENCE, "Bag").cell("gap", 2) == "—"
    assert row(rows, "ssd", "Bag").cell("gap", 2) == "1.00"


def test_the_originals_gap_and_tug_of_war() -> None:
    found = row(table.rows([mark("ssd")]), table.ORIGINAL, "Bag").values
    assert found["gap"]["mean"] == pytest.approx((0 + 96 + 60) / 3)
    assert found["ToW"]["mean"] == pytest.approx(0), "the forgotten are all right, in the retrain none is"


def test_the_summary_is_over_all_pairs_and_sorted_by_the_gap() -> None:
    marks = [mark("far", target, seed, Ar=60.0 + seed) for target in ("Bag", "Coat") for seed in (0, 1)]
    marks += [
        mark("near", target, seed, Ar=90.0 + seed - off)
        for (target, seed), off in {("Bag", 0): 3, ("Bag", 1): 6, ("Coat", 0): 9, ("Coat", 1): 12}.items()
    ]
    found = table.summary(marks)
    assert [entry.method for entry in found] == [table.REFERENCE, "near", "far", table.ORIGINAL]
    near = row(found, "near").values["gap"]
    assert (near["mean"], near["n"]) == (pytest.approx(2.5), 4)
    assert near["high"] - near["mean"] == pytest.approx(T[3] * math.sqrt(5 / 3) / 2, rel=1e-3)
    floor = row(found, table.REFERENCE).values["gap"]
    assert (floor["mean"], floor["n"]) == (pytest.approx(2 / 3), 2), "within a target only"


def test_a_failed_run_is_counted_and_in_no_mean() -> None:
    marks = [mark("ssd", seed=0, Ar=87.0), mark("ssd", seed=1, error="NaN"), mark("scrub", seed=0, error="NaN")]
    rows = table.rows(marks)
    assert (row(rows, "ssd", "Bag").n, row(rows, "ssd", "Bag").failed) == (1, 1)
    assert row(rows, "ssd", "Bag").values["gap"]["mean"] == pytest.approx(1)
    assert "1 (1 failed)" in table.markdown(rows)
    assert table.summary(marks)[-1].method == "scrub", "what never worked is last"
    assert "| Bag | scrub | — |" in table.markdown(rows)
    assert table.rows([mark("ssd", error="NaN")])[0].n == 0, "a target of which nothing worked"


def test_a_metric_that_nobody_foresaw_is_in_the_table() -> None:
    marks = [mark("ssd", seed=seed, further={"rmia_auc": 0.5 + seed / 10}) for seed in (0, 1)]
    rows = table.rows(marks)
    assert "rmia_auc" in table.more(rows)
    found = {entry["method"]: entry for entry in csv.DictReader(io.StringIO(table.as_csv(rows)))}
    assert float(found["ssd"]["rmia_auc"]) == pytest.approx(0.55)
    assert float(found["ssd"]["rmia_auc_low"]) == pytest.approx(0.55 - T[1] * 0.05, rel=1e-2)
    assert found[table.ORIGINAL]["rmia_auc"] == ""


def test_deep_checks_are_columns_where_they_were_measured() -> None:
    checked = {"probe": 98.0, "relearn_retain": 90.0, "relearn_few": 99.0}
    plain, deep = table.rows([mark("ssd")]), table.rows([mark("ssd", further=checked)])
    assert table.columns_of(plain) == table.COLUMNS
    assert "probe" not in table.as_csv(plain).splitlines()[0]
    head, *_ = table.markdown(deep, table.columns_of(deep)).splitlines()
    assert "| probe % | relearn retain % | relearn few % |" in head
    assert not set(checked) & set(table.more(deep)), "once is enough"
    (line,) = (entry for entry in csv.DictReader(io.StringIO(table.as_csv(deep))) if entry["method"] == "ssd")
    assert {name: float(line[name]) for name in checked} == checked


def test_numbers_are_taken_from_whatever_the_evaluation_gives() -> None:
    values = {"Ar": 90, "Af": None, "rmia": {"auc": 0.5, "curve": [1, 2]}, "note": "x", "ok": True}
    assert numeric(values) == {"Ar": 90.0, "rmia.auc": 0.5}


def test_a_mark_survives_json() -> None:
    import json

    before = mark("ssd", swept=("noise.lam", 0.1))
    assert CellScore.from_json(json.loads(json.dumps(before.to_json()))) == before


def test_published_numbers_stand_beside_the_rows_they_belong_to(tmp_path: Path) -> None:
    from dataclasses import replace

    from megu.config.tree import parse

    config = parse({"data": {"name": "cifar100"}, "forget": {"classes": ["rocket"]}})
    as_paper = config.model_copy(update={"train": _with_arch(config.train, "resnet18")})
    found = published(as_paper, "megu")
    assert (found["Ar"], found["Af"], found["MIA"]) == (75.75, 0.0, 0.0)
    assert found["gap"] == pytest.approx((abs(75.75 - 76.19) + 0 + 8.06) / 3)
    assert published(as_paper, "retrain")["gap"] == 0
    assert published(as_paper, "original")["Af"] == 82.81
    assert published(as_paper, "random_labels")["MIA"] == 28.62
    assert published(as_paper, "scrub") == {}
    assert published(config, "megu") == {}, "another architecture"
    limited = as_paper.model_copy(update={"data": replace(config.data, per_class=50)})
    assert published(limited, "megu") == {}, "less data"
    two = as_paper.model_copy(update={"forget": replace(config.forget, classes=("rocket", "sea"))})
    assert published(two, "megu") == {}, "two classes"


def test_a_published_random_request_has_bad_teacher_where_the_others_have_unsir() -> None:
    from megu.config.tree import parse

    config = parse({"data": {"name": "cifar10"}, "forget": {"scenario": "random", "count": 100}})
    config = config.model_copy(update={"train": _with_arch(config.train, "resnet18")})
    assert published(config, "bad_teacher")["MIA"] == 47.08
    assert published(config, "unsir") == {}


def _with_arch(params: object, arch: str) -> object:
    """The parameters under an architecture's name, whether or not this version can build it."""
    import copy

    changed = copy.copy(params)
    object.__setattr__(changed, "arch", arch)
    return changed


def test_the_means_of_the_published_gaps_are_those_of_the_method_file() -> None:
    """METHOD: mean gap computed from the published tables, CIFAR-100 class, nine rows."""
    from megu.bench.published import HEADLINE, _rows

    keys = {key[:3] for key in _rows() if key[0] == "cifar100-class"}
    assert len(keys) == 9
    for column, mean in {"FT": 7.29, "UNSIR": 9.09, "AMNC": 10.74, "SSD": 1.07, "MeGU": 1.26}.items():
        gaps = [
            abs(float(_rows()[(*key, name)][column]) - float(_rows()[(*key, name)]["retrain"]))
            for key in keys
            for name in HEADLINE
        ]
        assert sum(gaps) / len(gaps) == pytest.approx(mean, abs=0.006)


def test_the_page_has_the_command_the_tables_the_figures_and_what_failed() -> None:
    marks = [mark("ssd", seed=0, Ar=87.0, further={"rmia_auc": 0.5}), mark("ssd", seed=1, error="loss is NaN at step 3")]
    content = page.Content(
        title="Some benchmark",
        command="megu bench bench/some.yaml --set=seeds=[0]",
        environment={"cpu": "one"},
        config={"name": "some", "seeds": [0, 1]},
        marks=marks,
        rows=table.rows(
            marks, lambda target, algorithm: {"Ar": 1.5, "Af": 0.0, "MIA": 2.0, "gap": 3.25} if algorithm == "ssd" else {}
        ),
        summary=table.summary(marks),
        figures={"gap-time": "some-gap-time.png"},
        note="Read this first.",
    )
    text = page.render(content)
    assert text.startswith("# Some benchmark\n\n**Read this first.**\n\nMade by the command")
    assert page.render(replace(content, note="")).startswith("# Some benchmark\n\nMade by the command")
    for needed in (
        "# Some benchmark",
        "$ megu bench bench/some.yaml --set=seeds=[0]",
        "2 runs, 1 failed",
        "](some-gap-time.png)",
        "- Bag, ssd, seed 1: loss is NaN at step 3",
        "rmia_auc",
        "| Bag | ssd | 87.00 | 1.50 | 0.00 | 0.00 |",
        "arXiv 2602.17088",
        "- cpu: one",
    ):
        assert needed in text, needed
    assert yaml.safe_load(text.split("```yaml\n")[1].split("```")[0]) == {"name": "some", "seeds": [0, 1]}


def test_the_label_of_a_row_is_the_variants(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text("methods: [ssd, {name: 'ssd | strong', method: ssd, set: {unlearn.alpha: 2}}]\nseeds: [0]\n")
    labels = [cell.variant.label for cell in expand(load(path))]
    text = table.markdown(table.rows([mark(label) for label in labels]))
    assert r"| ssd \| strong |" in text


def test_the_passes_are_in_the_table_beside_the_time() -> None:
    """Of what the retrain did: each seed's .5 and .7 are .6; the retrain's own is all of it."""
    rows = table.rows([mark("ssd", seed=seed, pass_share=value) for seed, value in enumerate((0.5, 0.7))])
    assert row(rows, "ssd", "Bag").values["pass_share"]["mean"] == pytest.approx(0.6)
    assert row(rows, table.REFERENCE, "Bag").values["pass_share"]["mean"] == 100
    assert "of its passes %" in table.markdown(rows)
    without = table.rows([mark("ssd", pass_share=None)])
    assert "pass_share" not in row(without, "ssd", "Bag").values
