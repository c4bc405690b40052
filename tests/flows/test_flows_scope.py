"""Every scenario x {whole, per_class} x {a method with and without a labeler} x {registry off, on}, from a run to a purged one.

A cell goes through run -> explain -> verify -> certificate -> which -> process -> purge -> verify --sealed; what it cannot do is refused at
the start, in one line, and said here. The cells of both registries share a project: without a registry the run comes by itself, with one
it is the processing flow's, and one purge erases for both.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from lineage_fixtures import git, plant_secrets
from PIL import Image

from megu.config import tree as configuration
from megu.core.errors import MeguError
from megu.core.project import Project
from megu.data import arrays, pins
from megu.data.arrays import Dataset, coarse_view, limited, save, save_view
from megu.data.scope import RequestScope
from megu.data.splits import Scenario, make_split
from megu.erasure import run as purge
from megu.erasure.params import PurgeParams
from megu.lineage import indexing
from megu.lineage.export import exported
from megu.lineage.keys import Keys
from megu.lineage.purged.document import RESIDUAL
from megu.lineage.reading import dossier_of
from megu.lineage.verify.run import verify
from megu.promotion.params import LadderParams
from megu.report.certificate import certificate
from megu.requests.inbox import Inbox
from megu.requests.request import KINDS, Request
from megu.unlearning.methods import METHODS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
#: Finer classes, two of each class.
FINE = ("ant", "bee", "cat", "cow", "oak", "elm")
COARSE = ("insect", "insect", "mammal", "mammal", "tree", "tree")
#: Training and test images of each finer class; of each class so many training images where the set is limited.
TRAIN, TEST, LIMIT = 12, 3, 10
PARAMS = """
seed: 0
device: cpu
data: {name: beings}
forget: {scenario: class, classes: [mammal]}
train: {epochs: 1, batch_size: 32}
labeling: {exemplars: 1, references: 2, image_size: 32}
noise: {per_label: 1, steps: 1}
gate: {forget_margin: 100, retain_drop: 100, class_drop: 100, mia_band: 100, attack_margin: 100}  # so few images say nothing
"""
METHOD = {
    "with a labeler": (
        "unlearn.method=megu",
        "unlearn.steps=4",
        "unlearn.lr=0.01",
        "unlearn.batch_size=32",
        "unlearn.retain_samples=20",
    ),
    "without one": ("unlearn.method=ssd",),
}
SCENARIOS = get_args(Scenario)
#: Which finer classes go as a whole.
FINER: dict[str, set[str]] = {
    "class": {"oak", "elm"}, "subclass": {"oak"}, "random": set(), "ids": set(), "mixed": {"oak", "elm", "cow"},
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A project of its own. forget: the request. seen: the data set as its runs see it."""

    scenario: str
    limit: int | None
    method: str
    project: Project
    seen: Dataset
    forget: dict[str, Any]

    def settings(self, *more: str) -> list[str]:
        asked = [f"forget.{name}={list(value) if isinstance(value, tuple) else value}" for name, value in self.forget.items()]
        limit = [] if self.limit is None else [f"data.per_class={self.limit}"]
        shadows = ["evaluation.shadows=2"] if self.scenario == "mixed" else []
        return [*asked, *limit, *shadows, *METHOD[self.method], *more]

    def config(self, *more: str) -> configuration.Config:
        return configuration.load(self.project.params, self.settings(*more))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in git with a data set of two levels, and nothing computed yet."""
    root = tmp_path_factory.mktemp("scope") / "base"
    drawn = np.random.default_rng(0).integers(0, 256, ((TRAIN + TEST) * len(FINE), 4, 4), dtype=np.uint8)
    smooth = [np.asarray(Image.fromarray(image).resize((12, 12), Image.Resampling.BICUBIC)) for image in drawn]
    images = np.stack(smooth)[..., None]
    labels, cut = np.arange(len(images)) % len(FINE), TRAIN * len(FINE)
    parts = (images[:cut], labels[:cut]), (images[cut:], labels[cut:])
    fine = save(root / "fine", name="fine", classes=FINE, coarse=COARSE, train=parts[0], test=parts[1])
    save_view(root / "data" / "beings", coarse_view(fine), "beings")
    shutil.rmtree(root / "fine")
    (root / "params.yaml").write_text(PARAMS)
    (root / ".gitignore").write_text("/.megu/\n/data/\n/results/\n/requests/\n")
    pins.write(root, "beings", pins.hash_dir(root / "data" / "beings"))
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "a project")
    with pytest.MonkeyPatch.context() as patch:
        plant_secrets(patch)
        Keys(Project(root).keys).create()
    return Project(root)


#: One group a method: each is a worker's, so that two cores share the table.
CELLS = [
    pytest.param((scenario, limit, method), marks=pytest.mark.xdist_group(f"scope {method}"), id=f"{scenario} {limit} {method}")
    for scenario in SCENARIOS
    for limit in (None, LIMIT)
    for method in METHOD
]


@pytest.fixture(params=CELLS)
def cell(request: pytest.FixtureRequest, base: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cell:
    scenario, limit, method = request.param
    plant_secrets(monkeypatch)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project = Project(shutil.copytree(base.root, tmp_path / "project", symlinks=True))
    monkeypatch.setenv("MEGU_PROJECT", str(project.root))
    seen = limited(arrays.load(project.data("beings")), limit)
    insects = np.flatnonzero(seen.train.labels == seen.classes.index("insect"))[:3]
    ids = tuple(seen.train.ids[at].decode() for at in insects)
    asked: dict[str, dict[str, Any]] = {
        "class": {"classes": ("tree",)},
        "subclass": {"classes": ("oak",)},
        "random": {"count": 4},
        "ids": {"classes": (), "ids": ids},
        "mixed": {"classes": ("tree",), "subclasses": ("cow",), "ids": ids},
    }
    assert set(asked) == set(SCENARIOS), "a new scenario belongs into the table"
    return Cell(scenario, limit, method, project, seen, {"scenario": scenario, **asked[scenario]})


def requests(cell: Cell) -> list[Request]:
    """The same as requests of people; one names one kind. Nobody asks for images drawn at random."""
    said: dict[str, Any] = {"basis": "contract", "requester": "internal", "due": "2030-12-24"}
    forget = {name: tuple(value) for name, value in cell.forget.items() if name in ("classes", "subclasses", "ids")}
    if cell.scenario == "subclass":
        forget = {"subclasses": forget["classes"]}
    return [Request(**{"classes": (), **said, name: value}) for name, value in forget.items() if value]


@pytest.mark.usefixtures("prefect_server")
def test_a_cell_does_all_of_it_or_refuses_at_the_start(cell: Cell) -> None:
    from flows.process import process
    from flows.unlearn import plan, unlearn

    project, registry = cell.project, "registry.enabled=false"
    runs = [unlearn(settings=cell.settings(registry)).mlflow_run_id]
    decisions = plan(project, cell.config(registry))
    assert [decision.label for decision in decisions if not decision.hit] == []
    labels = {decision.label for decision in decisions}
    assert ("labeling" in labels) == (cell.method == "with a labeler")
    assert ("labeling apart" in labels) == (cell.method == "with a labeler" and cell.scenario in ("subclass", "mixed"))
    with pytest.raises(MeguError, match=r"^registry\.enabled is false.*: set registry\.enabled: true"):
        process(settings=cell.settings(registry))

    if cell.scenario == "random":
        assert "random" not in KINDS, "a request of a person for images drawn at random: a cell of its own"
        runs.append(unlearn(settings=cell.settings()).mlflow_run_id)
    else:
        runs += processed(cell, process)
    for number, run in enumerate(runs):
        signed_and_true(cell, run, replay=number == 0)
    which_says_what_was_seen(cell, runs)
    erased(cell, runs)


def processed(cell: Cell, process: Any) -> list[str]:
    """Ask for the same as people do; the runs of the processing flow, in order: a batch has one kind, so a mixed request comes of several."""
    asked, inbox = requests(cell), Inbox(cell.project)
    for request in asked:
        inbox.add(request)
    done = process(settings=[setting for setting in cell.settings() if not setting.startswith("forget.")])
    assert (done["rejected"], [batch["failed"] for batch in done["batches"]]) == (0, [None] * len(asked))
    assert [entry.state for entry in inbox.entries()] == ["verified"] * len(asked)
    found = {entry.fact("mlflow_run"): dossier_of(entry.fact("mlflow_run"), cell.project).dossier for entry in inbox.entries()}
    return sorted(found, key=lambda run: found[run].run.created)


def signed_and_true(cell: Cell, run: str, *, replay: bool) -> None:
    """Everything that is said of a run holds, and can be said."""
    report, found = verify(run, cell.project, replay=replay), dossier_of(run, cell.project)
    assert report.exit_code == 0, [check for check in report.checks if check.holds is not True]
    said = certificate(found, report, datetime.now(UTC))
    assert said.state == "good", said.lead
    assert all(value is not None for measure in said.measures for value in measure.values)
    assert len(exported(found, "all", None)) == 4
    asked = RequestScope.of(found.dossier.request)
    single = found.dossier.evidence.evaluation["unlearned"]["metrics"].get("Af_single")
    assert (single is not None) == bool(asked.names and asked.samples)
    assert found.dossier.evidence.evaluation["Af_on"] == ("test" if asked.names else "train")


def which_says_what_was_seen(cell: Cell, runs: list[str]) -> None:
    """Of every image, by the runs that forgot all that was asked for: the first, and the last of the processing flow."""
    split = make_split(cell.seen, cell.config().forget, 0)
    gone, seen = set(cell.seen.train.ids[split.forget].tolist()), set(cell.seen.train.ids.tolist())
    for identifier in arrays.load(cell.project.data("beings")).train.ids.tolist():
        found = {answer.row.run_id: answer for answer in indexing.which(cell.project, identifier.decode())[1]}
        wanted = (
            ("forgot" if identifier in gone else "trained", "trained") if identifier in seen else ("never saw", "never saw")
        )
        for run in (runs[0], runs[-1]):
            assert (found[run].unlearned, found[run].original) == wanted


def erased(cell: Cell, runs: list[str]) -> None:
    """Nothing of what was named is left, whatever the runs saw of it and whichever split it was in; nothing else is gone; all still holds."""
    split = make_split(cell.seen, cell.config().forget, 0)
    before, forgotten = arrays.load(cell.project.data("beings")), set(cell.seen.train.ids[split.forget].tolist())
    counts = len(before.train), len(before.test)
    outcome = purge.apply(cell.project, runs, PurgeParams(models_days=0))
    assert [surface for surface in outcome.surfaces if surface.verdict == RESIDUAL] == []
    after, finer = arrays.load(cell.project.data("beings")), FINER[cell.scenario]
    for part in (after.train, after.test):
        assert part.fine is not None
        assert after.fine is not None
        assert not {after.fine[k] for k in part.fine} & finer
        assert not forgotten & set(part.ids.tolist())
    single = {"random": 4, "ids": 3, "mixed": 3}.get(cell.scenario, 0)
    assert (counts[0] - len(after.train), counts[1] - len(after.test)) == (TRAIN * len(finer) + single, TEST * len(finer))
    for run in runs:
        report = verify(run, cell.project, sealed=True)
        assert report.exit_code == 0, [check for check in report.checks if check.holds is not True]
    if cell.limit is None:
        assert indexing.rebuild(cell.project) == (len(runs), [])


#: What decides about a cell.
TABLE = {"forget.scenario", "data.per_class", "unlearn.method", "registry.enabled"}
#: Every other setting, by why it is none of the table's.
ELSEWHERE: dict[str, set[str]] = {
    "which samples, within a scenario": {
        f"forget.{name}" for name in ("classes", "subclasses", "count", "ids", "files", "near_duplicates")
    },
    "which data set, and which model of it": {"data.name", "data.suppressed", "original.weights", "original.model"},
    "how a training goes": {"seed", "device", "deterministic"}
    | {f"train.{name}" for name in ("arch", "augment", "batch_size", "compile", "drop", "epochs", "label_smoothing", "lr")}
    | {f"train.{name}" for name in ("milestones", "optimiser", "pretrained", "schedule", "warmup", "weight_decay")},
    "how a method goes": {"unlearn.params", "labeling.kind", "labeling.params"}
    | {f"noise.{name}" for name in ("coverage", "lam", "lr", "per_label", "steps")}
    | {f"perturbing.{name}" for name in ("columns", "label", "matrix", "sharpness", "tau")},
    "what is measured, and how strictly": {f"reference.{name}" for name in ("enabled", "model", "repeats", "weights")}
    | {"calibration.share", "evaluation.seed", "evaluation.shadows"}
    | {f"evaluation.relearn{name}" for name in ("", "_batch_size", "_lr", "_steps", "_tolerance")}
    | {f"evaluation.deep{name}" for name in ("", "_batch_size", "_lr", "_steps")}
    | {
        f"gate.{name}"
        for name in ("attack_margin", "attack_required", "class_drop", "deep_margin", "forget_margin", "mia_band")
    }
    | {f"gate.{name}" for name in ("min_images", "min_seeds", "retain_drop")},
    "names, people and days": {"registry.alias", "registry.name", "lineage.key"}
    | {f"promotion.{name}" for name in ("policy", "served", "webhook")}
    | {f"promotion.ladder.{name}" for name in ("hours", "methods", "trials", "when")}
    | {f"requests.{name}" for name in ("attempts", "backups_days", "batch", "controller", "due_days")}
    | {"purge.models_days", "purge.test_images", "purge.shared_stores", "purge.suppress_days"},
}


def documented() -> set[str]:
    """The keys that the reference page explains; those that go with a method or a labeler as one, since they have a table each."""
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text()
    found = re.findall(r"^\| `([\w.]+)` \|", page, flags=re.MULTILINE)
    own = re.compile(r"(unlearn\.)(?!method$).*|(labeling\.)(?!kind$).*")
    return {own.sub(lambda key: f"{key[1] or key[2]}params", name) for name in found}


def keys_of(section: str, kind: Any) -> list[str]:
    """The keys of a section, those of the one section that is inside another too."""
    if section == "promotion.ladder":
        kind = LadderParams
    elif not dataclasses.is_dataclass(kind):
        return [section]
    return [key for entry in dataclasses.fields(kind) for key in keys_of(f"{section}.{entry.name}", None)]


def test_a_new_setting_belongs_into_the_table_or_is_said_not_to() -> None:
    keys = set()
    for name, field in configuration.Config.model_fields.items():
        kind: Any = configuration.UnlearnParams if name == "unlearn" else field.annotation
        keys |= set(keys_of(name, kind))
    said = [*TABLE, *(key for group in ELSEWHERE.values() for key in group)]
    assert keys == set(said), "say of a new setting whether what is signed depends on it"
    assert len(said) == len(set(said))
    assert documented() == keys, "every key is explained, and every explained key exists: python docs/reference.py"


def test_the_methods_of_the_table_are_one_with_a_labeler_and_one_without() -> None:
    needs = {name: METHODS[settings[0].partition("=")[2]].needs for name, settings in METHOD.items()}
    assert {name: "perturbing" in found for name, found in needs.items()} == {"with a labeler": True, "without one": False}
