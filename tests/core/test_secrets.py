"""Secrets come from the environment and are written down nowhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from lineage_fixtures import SECRETS, Finished, plant_secrets
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from promoting import approval, copied

from megu.cli import main as cli
from megu.config import tree as config
from megu.lineage.keys import Keys
from megu.promotion import moves as promotion

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flow")]


def files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def found_in(folder: Path, words: list[str]) -> dict[str, list[str]]:
    """The words that are in any file below a folder, and in which."""
    held = {path: path.read_bytes() for path in files(folder)}
    return {
        word: where
        for word in words
        if (where := [str(path) for path, content in held.items() if word.encode() in content or word in path.name])
    }


def secrets() -> list[str]:
    """The telling part of each: of a database's address the login."""
    return [value.partition("megu:")[2].partition("@")[0] or value for value in SECRETS.values()]


def test_a_run_and_a_promotion_leave_no_secret_anywhere(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLflow's database and artifacts, Prefect's database, report, dossiers, store, results, ledger, index, and what is printed."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert b"ENCRYPTED" in Keys(finished.project.keys).private.read_bytes(), "the passphrase was there and used"
    plant_secrets(monkeypatch)
    project = copied(finished, tmp_path / "project")
    promotion.promote(project, config.load(project.params), approval(project))
    monkeypatch.setenv("MEGU_PROJECT", str(project.root))
    for command in (["promote"], ["params"], ["lineage", "show"]):
        assert cli.guarded(lambda command=command: cli.app(command, standalone_mode=False)) == 0  # type: ignore[misc]
    printed = capsys.readouterr()
    places = [finished.project.root, project.root]
    # Of the shared fixture, Prefect's server has a file of its own; in memory there is nothing to look at.
    database = Path(str(PREFECT_API_DATABASE_CONNECTION_URL.value() or "").partition("///")[2].partition("?")[0])
    if database.is_file():
        places.append(database.parent)
    for place in places:
        assert found_in(place, secrets()) == {}, place
        assert found_in(place, ["unlearning-lineage", "Sneaker"]), "the search finds what is there"
    assert not [word for word in secrets() if word in printed.out + printed.err]
    assert "Sneaker" in printed.out


@pytest.mark.parametrize("scheme", ["postgresql", "mysql+pymysql", "http", "https"])
def test_a_login_in_an_address_is_not_shown_when_nobody_answers(
    finished: Finished, scheme: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEGU_PROJECT", str(finished.project.root))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://megu:planted-7-login@127.0.0.1:9/mlflow")
    assert cli.guarded(lambda: cli.app(["promote"], standalone_mode=False)) == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert "planted-7-login" not in printed.out + printed.err
    assert os.environ["MLFLOW_TRACKING_URI"].startswith(scheme)
