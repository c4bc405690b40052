"""Every file of a project has its surface; what cannot be reached is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from megu.errors import MeguError
from megu.project import Project
from megu.purge import places


@pytest.mark.parametrize(
    ("path", "surface"),
    [
        ("data/some/train_images.npy", places.DATA),
        ("splits/forget.npy", places.SPLITS),
        (".dvc/cache/files/md5/aa/bb", places.CACHE),
        (".dvc/tmp/x", places.LEFTOVERS),
        (".megu/store/aa/aa.png", places.STORE),
        (".megu/results/split-1", places.RESULTS),
        (".megu/checkpoints/a.safetensors", places.CHECKPOINTS),
        (".megu/prefect/prefect.db-wal", places.PREFECT),
        (".megu/mlflow.db", places.TRACKED),
        (".megu/mlartifacts/r/artifacts/report.html", places.ARTIFACTS),
        (".megu/answers/a.jsonl", places.ANSWERS),
        (".megu/lineage/index.db", places.LEFTOVERS),
        ("results/dossiers/r/dossier.json", places.DOSSIERS),
        ("results/report.html", places.REPORTS),
        ("photos.zip", places.OTHERS),
    ],
)
def test_each_file_has_its_surface(project: Project, path: str, surface: str) -> None:
    file = project.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x")
    assert (surface, file.resolve()) in list(places.files(project))


def test_keys_the_journal_and_programs_are_not_looked_into(project: Project) -> None:
    for path in (".megu/keys/k", ".megu/purge/plan.json", ".git/objects/x", ".venv/lib/x"):
        (project.root / path).parent.mkdir(parents=True, exist_ok=True)
        (project.root / path).write_bytes(b"x")
    assert [path.name for _, path in places.files(project)] == ["params.yaml"]


def test_remotes_here_gone_and_elsewhere_are_told_apart(project: Project, tmp_path: Path) -> None:
    (project.root / ".dvc").mkdir()
    (tmp_path / "backup").mkdir()
    (project.root / ".dvc" / "config").write_text(
        f"['remote \"here\"']\n    url = {tmp_path / 'backup'}\n['remote \"gone\"']\n    url = ../nowhere\n"
        "['remote \"cloud\"']\n    url = s3://bucket/data\n[cache]\n    dir = ../elsewhere\n"
    )
    found = {remote.name: (remote.folder is not None, remote.there) for remote in places.remotes(project.root)}
    assert found == {"cloud": (False, False), "gone": (True, False), "here": (True, True)}
    assert places.cache(project.root).resolve() == (project.root / "elsewhere").resolve()


def test_a_configuration_that_cannot_be_read_is_no_configuration_without_remotes(project: Project) -> None:
    (project.root / ".dvc").mkdir()
    (project.root / ".dvc" / "config").write_text("nonsense\n")
    with pytest.raises(MeguError, match=r"\.dvc/config cannot be read"):
        places.remotes(project.root)
