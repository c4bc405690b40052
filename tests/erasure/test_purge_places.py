"""Every file of a project has its surface; what cannot be reached is known."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.lineage.purged import locations as places


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
        ("requests/split/forget.npy", places.SPLITS),
        ("requests/forget.json", places.LEFTOVERS),
        ("requests/refused/a.csv", places.LEFTOVERS),
        ("requests/inbox/a.csv", places.OTHERS),
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


def test_a_remote_for_all_projects_counts_too_and_is_relative_to_its_configuration(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    (tmp_path / "user" / "dvc").mkdir(parents=True)
    (tmp_path / "user" / "dvc" / "config").write_text("['remote \"shared\"']\n    url = ../store\n")
    assert [(remote.name, remote.folder) for remote in places.remotes(project.root)] == [
        ("shared", tmp_path / "user" / "store")
    ]


def test_a_remote_that_is_not_there_is_said_in_one_line_and_soon(project: Project, tmp_path: Path) -> None:
    with socket.socket() as free, socket.create_server(("127.0.0.1", 0)) as listening:
        free.bind(("127.0.0.1", 0))
        closed, answering = free.getsockname()[1], listening.getsockname()[1]
        (project.root / ".dvc").mkdir()
        (project.root / ".dvc" / "config").write_text(
            f"['remote \"gone\"']\n    url = {tmp_path / 'gone'}\n"
            f"['remote \"closed\"']\n    url = ssh://127.0.0.1:{closed}/dvc\n"
            f"['remote \"minio\"']\n    url = s3://bucket\n    endpointurl = http://127.0.0.1:{closed}\n"
            f"['remote \"there\"']\n    url = http://127.0.0.1:{answering}/dvc\n"
            "['remote \"cloud\"']\n    url = s3://bucket\n"
            "['remote \"wrong\"']\n    url = http://here:port\n"
        )
        began = time.monotonic()
        said = places.missing(places.remotes(project.root))
    assert time.monotonic() - began < places.REACH_S + 1
    assert [line.partition(" (")[0] for line in said] == [
        "the DVC remote closed does not answer",
        "the DVC remote gone is not there",
        "the DVC remote minio does not answer",
        "the DVC remote wrong has no address",
    ]
    assert all("`dvc remote " in line and "\n" not in line for line in said)


def test_a_configuration_that_cannot_be_read_is_no_configuration_without_remotes(project: Project) -> None:
    (project.root / ".dvc").mkdir()
    (project.root / ".dvc" / "config").write_text("nonsense\n")
    with pytest.raises(MeguError, match=r"\.dvc/config cannot be read"):
        places.remotes(project.root)
