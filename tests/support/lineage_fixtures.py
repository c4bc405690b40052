"""One tiny finished run on real data, for everything that looks at a run afterwards: real Prefect, MLflow, DVC and git."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megu.core.project import Project
from megu.data import arrays, dvc, pins
from megu.data.arrays import Dataset
from megu.evaluation.summary import Summary
from megu.lineage.keys import Keys

REPOSITORY = Path(__file__).resolve().parents[2]
PARAMS = """
seed: 0
device: cpu
data: {name: slice}
forget: {scenario: class, classes: [Sneaker]}
train: {epochs: 1, batch_size: 64}
labeling: {exemplars: 2, references: 3, image_size: 64}
noise: {per_label: 1, steps: 2}
unlearn: {steps: 5, lr: 0.01, batch_size: 64, retain_samples: 200}
gate: {forget_margin: 100, retain_drop: 100, class_drop: 100, mia_band: 100}  # so few images say nothing
"""

#: What a team's environment holds and nothing may write down; there in every run of the fixtures (`test_secrets.py` looks for it).
SECRETS = {
    "MEGU_KEY_PASSPHRASE": "planted-1-passphrase",
    "MLFLOW_TRACKING_TOKEN": "planted-2-token",
    "MLFLOW_TRACKING_PASSWORD": "planted-3-password",
    "OLLAMA_API_KEY": "planted-4-key",
    "AWS_SECRET_ACCESS_KEY": "planted-5-key",
    "DATABASE_URL": "postgresql://megu:planted-6-login@127.0.0.1/mlflow",
}


def slice_of(dataset: Dataset, root: Path, train: int = 120, test: int = 20) -> None:
    """The first images of each class as a data set of their own."""

    def first(partition: arrays.Partition, count: int) -> tuple[Any, Any]:
        at = np.sort(np.concatenate([np.flatnonzero(partition.labels == k)[:count] for k in range(dataset.num_classes)]))
        return np.asarray(partition.images[at]), np.asarray(partition.labels[at])

    arrays.save(
        root / "data" / "slice",
        name="slice",
        classes=dataset.classes,
        train=first(dataset.train, train),
        test=first(dataset.test, test),
        source="Fashion-MNIST",
        licence="MIT",
    )


def git(root: Path, *arguments: str) -> str:
    named = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *named, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def make_project(root: Path, dataset: Dataset) -> Project:
    """A project in git, everything committed, with a key to sign with."""
    slice_of(dataset, root, train=30, test=10)
    (root / "params.yaml").write_text(PARAMS)
    shutil.copyfile(REPOSITORY / "dvc.yaml", root / "dvc.yaml")
    (root / ".gitignore").write_text("/.megu/\n/data/\n/splits/\n/results/\n")
    pins.write(root, "slice", pins.hash_dir(root / "data" / "slice"))
    git(root, "init", "-q")
    dvc.repro(root, "split")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "a project")
    with pytest.MonkeyPatch.context() as patch:
        plant_secrets(patch)
        Keys(Project(root).keys).create()
    return Project(root)


def new_databases(home: Path, made: Path) -> None:
    """Give a new project copies of MLflow's and Prefect's databases, which take ten seconds to make. made: a folder with one of each."""
    (home / "prefect").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(made / "mlflow.db", home / "mlflow.db")
    shutil.copyfile(made / "prefect.db", home / "prefect" / "prefect.db")


def plant_secrets(patch: pytest.MonkeyPatch) -> None:
    for name, secret in SECRETS.items():
        patch.setenv(name, secret)


@dataclass(frozen=True)
class Finished:
    """A project in which two runs have finished; ``older`` is no longer the challenger.

    pristine: a copy from then, without MLflow's files, which stay where they are; later tests run more in the project. whole: with them.
    """

    project: Project
    older: Summary
    newer: Summary
    pristine: Path
    whole: Path


def run_in(project: Project) -> Callable[..., Summary]:
    """Runs the flow in ``project``; the environment that says so lasts as long as the run, not as the session."""

    def run(*settings: str) -> Summary:
        from flows.unlearn import unlearn

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MEGU_PROJECT", str(project.root))
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            plant_secrets(patch)
            summary: Summary = unlearn(settings=list(settings))
        return summary

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, fashion_mnist: Dataset, prefect_server: None) -> Finished:
    project = make_project(tmp_path_factory.mktemp("finished"), fashion_mnist)
    go = run_in(project)
    older, newer = go("unlearn.alpha=0.6"), go()
    left = shutil.ignore_patterns("checkpoints", "answers", "mlartifacts")
    pristine = shutil.copytree(project.root, tmp_path_factory.mktemp("pristine") / "project", symlinks=True, ignore=left)
    whole = shutil.copytree(project.root, tmp_path_factory.mktemp("whole") / "project", symlinks=True)
    return Finished(project, older, newer, pristine, whole)
