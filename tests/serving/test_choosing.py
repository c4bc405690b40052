"""Which test images are probes, and what is kept of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import dossier_fixtures as fixtures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scoring_server import CLASSES, RUN, moved, photos

from megu import tracking
from megu.core.errors import MeguError
from megu.core.project import Project
from megu.data import arrays
from megu.lineage.commitments import commit, commit_all
from megu.lineage.index import Index
from megu.lineage.keys import Keys
from megu.lineage.promoted.probes import MADE, ORIGINAL, faults
from megu.lineage.reading import Found
from megu.lineage.verify.run import copies, opened
from megu.models import MODELS, build
from megu.serving import choosing
from megu.training.weights import ModelInfo, save_weights


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 10))
def test_the_probes_are_those_on_which_two_versions_differ_most(seed: int, count: int, kept: int) -> None:
    rng = np.random.default_rng(seed)
    champion, other = (rng.dirichlet(np.ones(3), count).astype(np.float32) for _ in range(2))
    chosen = choosing.telling(champion, other, kept)
    apart = np.abs(champion - other).max(axis=1)
    assert len(set(chosen.tolist())) == min(kept, count)
    rest = np.setdiff1d(np.arange(count), chosen)
    assert not len(rest) or apart[chosen].min() >= apart[rest].max()


@pytest.fixture
def photographed(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Project:
    """A project of two champions: their weights, dossiers and forget sets (class "b", and two test images that were in train)."""
    key, dataset = Keys(project.keys).commitment_key(create=True), photos(project.root)
    assert key is not None
    forgotten = commit_all(key, [bytes(value) for value in dataset.test.ids[:2]])
    Index(project.index).put(forgotten)
    weights = {}
    for seed, name in enumerate(("original", "1", "2")):
        weights[name] = tmp_path / f"{name}.safetensors"
        save_weights(weights[name], build(next(iter(MODELS)), 4, 1, seed=seed), ModelInfo(next(iter(MODELS)), 4, 1))
    original = project.store.put_file(weights["original"])

    def dossier_of(target: str, here: Project) -> Found:
        request = {"words": "b", "scenario": "class", "classes": ["b"]}
        found = fixtures.found(request=request, models={"original": original.sha256})
        changed = fixtures.dossier(
            request=request,
            models={"original": original.sha256},
            files={**found.dossier.files, "forgotten.hmac": Index(project.index).put(forgotten)},
        )
        return Found(changed, found.records, found.seal, found.files)

    def fetch(name: str, folder: Path, **rest: Any) -> Path:
        if not weights[name.rpartition("/")[2]].is_file():
            raise MeguError(f"there is no {name}")
        return Path(shutil.copy(weights[name.rpartition("/")[2]], folder / "w.safetensors"))

    monkeypatch.setattr(choosing, "dossier_of", dossier_of)
    monkeypatch.setattr(tracking, "fetch_model", fetch)
    (project.dossiers / fixtures.RUN).mkdir(parents=True)
    return project


def test_nothing_that_was_forgotten_is_a_probe_and_all_is_kept_once(photographed: Project) -> None:
    event = moved(photographed, "2", "1")
    made = choosing.ensure(photographed, event)
    dataset, key = arrays.load(photographed.data("photos")), Keys(photographed.keys).commitment_key()
    assert key is not None
    at = {commit(key, bytes(value)).hex(): number for number, value in enumerate(dataset.test.ids)}
    chosen = [at[sample] for sample in made.samples]
    assert len(chosen) == choosing.KEPT
    assert not {CLASSES[dataset.test.labels[number]] for number in chosen} & {"b"}
    assert not {0, 1} & set(chosen)
    assert (made.version, made.before) == ("2", "1")
    assert np.abs(np.asarray(made.champion).sum(axis=1) - 1).max() < 1e-4
    assert np.abs(np.asarray(made.champion) - np.asarray(made.other)).max() > 0.01
    assert choosing.ensure(photographed, event) == made
    assert len(photographed.ledger.events("megu", MADE)) == 1
    # The answers are those of the served form, to the digits that are kept.
    numbers, images = choosing.images_of(photographed, made)
    assert numbers == list(range(choosing.KEPT))
    assert (images == dataset.test.images[chosen]).all()


def test_killed_before_the_ledger_has_them_they_are_made_again_and_are_the_same(
    photographed: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = moved(photographed, "2", "1")
    with monkeypatch.context() as patch:
        patch.setattr(choosing, "sha256", lambda content: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            choosing.ensure(photographed, event)
    (left,) = (photographed.dossiers / fixtures.RUN).glob("probes-*.json")
    assert photographed.ledger.events("megu", MADE) == []
    made = choosing.ensure(photographed, event)
    assert made.to_bytes() == left.read_bytes()
    assert list((photographed.dossiers / fixtures.RUN).iterdir()) == [left]


def test_a_version_that_does_not_run_on_the_data_set_is_one_line(
    photographed: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_weights(tmp_path / "2.safetensors", build(next(iter(MODELS)), 4, 3, seed=0), ModelInfo(next(iter(MODELS)), 4, 3))
    with pytest.raises(MeguError, match=r"a version does not run on data/photos \(.*\): see `megu verify`"):
        choosing.ensure(photographed, moved(photographed, "2", "1"))


def test_the_first_champion_is_compared_with_the_original(photographed: Project) -> None:
    assert choosing.ensure(photographed, moved(photographed, "1", None)).before == ORIGINAL


def test_a_version_before_whose_weights_are_gone_leaves_the_champion_alone(photographed: Project, tmp_path: Path) -> None:
    (tmp_path / "1.safetensors").unlink()
    made = choosing.ensure(photographed, moved(photographed, "2", "1"))
    assert (made.before, made.other, len(made.champion)) == ("", [], choosing.KEPT)


def test_without_the_champions_weights_or_its_dossier_there_are_none(photographed: Project, tmp_path: Path) -> None:
    (tmp_path / "2.safetensors").unlink()
    event = moved(photographed, "2", "1")
    with pytest.raises(MeguError, match="there is no models:/megu/2"):
        choosing.ensure(photographed, event)
    (photographed.dossiers / fixtures.RUN).rmdir()
    with pytest.raises(MeguError, match="the dossier of models:/megu/2 is not here"):
        choosing.ensure(photographed, event)
    assert photographed.ledger.events("megu", MADE) == []


def test_probes_beside_a_dossier_are_no_fault_of_it_and_changed_ones_are_seen(tmp_path: Path) -> None:
    from contextlib import ExitStack

    folder = fixtures.written(tmp_path / fixtures.RUN, fixtures.found())
    (folder / "probes-0123456789abcdef.json").write_bytes(b"{}")
    with ExitStack() as stack:
        found = copies(str(folder), None, stack)
    assert opened(found.places["dossier"], "dossier")[1].holds
    assert faults(list(found.probes.items()), []) == ["dossier: probes-0123456789abcdef.json has changed"]
    assert faults([], ["ab" * 32]) == ["probes-abababababababab.json is gone"]
    assert RUN == fixtures.RUN
