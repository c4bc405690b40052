"""Runs in real MLflow databases: what is logged arrives, projects keep apart, and every fault is one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from megu import tracking
from megu.core.errors import MeguError
from megu.servers import addresses
from megu.tracking import Run, closing, lineage

ROOT = Path(tracking.__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_team_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for the module: making one takes a second or two."""
    return tmp_path_factory.mktemp("project") / ".megu"


def start(home: Path, **tags: Any) -> Run:
    return Run.start(home, "megu", "forget Sneaker", tags)


def data(run: Run) -> Any:
    return run.client.get_run(run.id).data


def test_importing_it_brings_no_mlflow() -> None:
    program = (
        "import sys, megu.tracking, megu.tracking.environment\nassert not {'mlflow', 'torch', 'sqlalchemy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_a_run_is_complete(home: Path) -> None:
    run = start(home, request="Sneaker")
    run.log(params={"unlearn.alpha": 0.7, "long": "x" * 20_000}, metrics={"Ar": 90.5}, tags={"long": "y" * 20_000})
    run.dataset("fashion-mnist", "0123456789abcdef0123456789abcdef.dir", "https://example.org", "training")
    run.artifacts({"figures/noise.png": b"\x89PNG", "report.html": b"<p>"})
    run.artifacts({"a.txt": b"a"}, "folder")
    run.finish()

    kept = run.client.get_run(run.id)
    assert kept.info.status == "FINISHED"
    assert kept.info.run_name == "forget Sneaker"
    assert kept.data.params == {"unlearn.alpha": "0.7", "long": "x" * 6000}
    assert kept.data.metrics == {"Ar": 90.5}
    assert kept.data.tags["request"] == "Sneaker"
    assert len(kept.data.tags["long"]) == 8000
    given = kept.inputs.dataset_inputs[0]
    assert (given.dataset.name, given.dataset.digest) == ("fashion-mnist", "0123456789abcdef0123456789abcdef.dir")
    assert json.loads(given.dataset.source) == {"uri": "https://example.org"}
    assert [(tag.key, tag.value) for tag in given.tags] == [("mlflow.data.context", "training")]
    folder = Path(kept.info.artifact_uri.removeprefix("file://"))
    assert folder.is_relative_to(home / "mlartifacts")
    assert (folder / "figures" / "noise.png").read_bytes() == b"\x89PNG"
    assert (folder / "folder" / "a.txt").read_bytes() == b"a"


def test_more_than_mlflow_takes_in_one_batch_arrives_whole(home: Path) -> None:
    run = start(home)
    names = [f"n{i}" for i in range(1801)]
    run.log(params=dict.fromkeys(names[:201], "p"), metrics=dict.fromkeys(names, 1.0), tags=dict.fromkeys(names[:201], "t"))
    kept = data(run)
    assert set(kept.metrics) == set(names)
    assert set(kept.params) == set(names[:201])
    assert set(names[:201]) <= set(kept.tags)


def test_nothing_to_log_is_nothing(home: Path) -> None:
    run = start(home)
    run.log()
    assert (data(run).params, data(run).metrics) == ({}, {})


def test_two_projects_of_one_process_keep_apart(home: Path, tmp_path: Path) -> None:
    one, two = start(home), start(tmp_path / "other")
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert (tmp_path / "other" / "mlflow.db").is_file()
    again = start(home)
    assert again.experiment_id == one.experiment_id
    with pytest.raises(MeguError):
        Run(two.client, again.id, again.experiment_id).finish()


def test_a_team_says_where(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = f"sqlite:///{home / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", theirs)
    run = start(tmp_path / "unused")
    assert os.environ["MLFLOW_TRACKING_URI"] == theirs
    assert run.client.tracking_uri == theirs
    assert not (tmp_path / "unused" / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), (ValueError(), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(1), "KILLED")],
)
def test_a_run_ends_as_its_block_did(home: Path, error: BaseException | None, status: str) -> None:
    run = start(home)
    if error is None:
        with closing(run):
            pass
    else:
        with pytest.raises(type(error)), closing(run):
            raise error
    assert run.client.get_run(run.id).info.status == status


def test_what_went_wrong_is_told_though_mlflow_is_gone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(home)

    def gone(status: str = "") -> None:
        raise MeguError("MLflow is gone")

    monkeypatch.setattr(run, "finish", gone)
    with pytest.raises(MeguError, match="the real cause"), closing(run):
        raise MeguError("the real cause")
    with pytest.raises(MeguError, match="MLflow is gone"), closing(run):
        pass


def test_a_run_is_found_by_its_tag(home: Path) -> None:
    run = start(home, **{"prefect.flow_run_id": "8f3e"})
    assert start(home).with_tag("prefect.flow_run_id", "8f3e") == run.id
    assert run.with_tag("prefect.flow_run_id", "none") is None


def test_the_page_of_a_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(home)
    page = f"#/experiments/{run.experiment_id}/runs/{run.id}"
    assert run.url(None) is None
    assert run.url("http://127.0.0.1:5000/") == f"http://127.0.0.1:5000/{page}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example.org")
    assert run.url(None) == f"https://mlflow.example.org/{page}"  # the link goes into reports: no login in it


def test_a_deleted_experiment_is_named(home: Path) -> None:
    run = Run.start(home, "short-lived", "n", {})
    run.client.delete_experiment(run.experiment_id)
    with pytest.raises(MeguError, match=r"'short-lived' has been deleted"):
        Run.start(home, "short-lived", "n", {})


def refused(home: Path) -> MeguError:
    with pytest.raises(MeguError) as caught:
        start(home)
    assert "\n" not in str(caught.value)
    assert caught.value.fix
    return caught.value


def test_a_database_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    assert "not a database" in refused(tmp_path).what


def test_a_database_that_cannot_be_opened_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    began = time.monotonic()
    error = refused(tmp_path)
    assert time.monotonic() - began < 30  # MLflow alone tries for 100 seconds
    assert str(tmp_path / "mlflow.db") in error.what


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    assert str(tmp_path / "home") in refused(tmp_path / "home").what


def test_a_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    error = refused(tmp_path)
    assert "http://127.0.0.1:9 does not answer" in error.what
    assert "secret" not in str(error)
    with pytest.raises(MeguError, match="does not answer"):  # and not "there is no such model"
        tracking.fetch_model("models:/megu/1", tmp_path, home=tmp_path)


def test_a_database_without_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg2://me:secret@127.0.0.1:9/db")
    error = refused(tmp_path)
    assert "driver is missing" in error.what
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("address", "printed"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://me:secret@host:1/path", "https://host:1/path"),
        ("postgresql://me:p@ss@host/db", "postgresql://host/db"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
    ],
)
def test_an_address_is_shown_without_its_login(address: str, printed: str) -> None:
    assert addresses.shown(address) == printed


def test_nested_values_get_dotted_names() -> None:
    assert tracking.flat({"seed": 0, "unlearn": {"alpha": 0.7, "deep": {"er": [1]}}}) == {
        "seed": 0,
        "unlearn.alpha": 0.7,
        "unlearn.deep.er": [1],
    }


@pytest.mark.parametrize(
    ("note", "known"),
    [
        ("model_name: megu\nmodel_version: '2'\n", True),
        ("model_name: megu\nmodel_version: '3'\n", False),
        ("model_name: other\nmodel_version: '2'\n", False),
        ("model_name: megu\nmodel_version: '2'\nmore: 1\n", False),
        ("a: [", False),
        (None, False),
    ],
)
def test_the_note_that_mlflow_leaves_where_it_serves_is_known_by_what_it_says(
    tmp_path: Path, note: str | None, known: bool
) -> None:
    if note is not None:
        (tmp_path / "registered_model_meta").write_text(note)
    assert lineage.noted(tmp_path, "megu", "2") == ({"registered_model_meta"} if known else set())
