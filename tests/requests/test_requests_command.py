"""The inbox from a terminal: `megu request …`, by the command line itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from megu.cli import main as cli

REPOSITORY = Path(__file__).resolve().parents[2]
ADD = ["request", "add", "--basis", "gdpr-17-1-b", "--requester", "data-subject"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copyfile(REPOSITORY / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.setenv("MEGU_PROJECT", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return tmp_path


def call(*arguments: str) -> int:
    return cli.guarded(lambda: cli.app(list(arguments), standalone_mode=False))


@pytest.mark.usefixtures("root")
def test_a_request_is_added_listed_shown_and_withdrawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*ADD, "--class", "Bag", "--reference", "DSR-1", "--due", "2026-12-24", "--json") == 0
    added = json.loads(capsys.readouterr().out)
    assert (added["new"], added["state"], added["due"]) == (True, "received", "2026-12-24")
    assert call(*ADD, "--class", "Bag", "--reference", "DSR-1") == 0
    assert "there already" in capsys.readouterr().out
    assert call("request", "list", "--json") == 0
    (listed,) = json.loads(capsys.readouterr().out)["requests"]
    assert (listed["id"], listed["basis"], listed["reference"]) == (added["id"], "gdpr-17-1-b", "DSR-1")
    assert call("request", "show", added["id"], "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["target"]["classes"] == ["Bag"]
    assert [event["kind"] for event in shown["events"]] == ["request.received"]
    assert call("request", "withdraw", added["id"]) == 0
    assert call("request", "list", "--state", "withdrawn") == 0
    assert added["id"] in capsys.readouterr().out
    assert call("request", "show", added["id"]) == 0
    assert "names: Bag" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*ADD], "one kind per request"),
        ([*ADD, "--class", "Bag", "--requester", "Anna Smith"], "requester must be one of"),
        ([*ADD, "--class", "Bag", "--reference", "for Anna"], "a ticket's number"),
        (["request", "add", "--class", "Bag"], "it lacks basis and requester"),
        ([*ADD, "--csv", "nowhere.csv"], "nowhere.csv cannot be read"),
        (["request", "show", "r0"], "there is no request r0"),
        (["request", "withdraw", "r0"], "there is no request r0"),
        (["request", "retry", "r0"], "there is no request r0"),
        (["request", "close", "r0"], "there is no request r0"),
        (["request", "list", "--state", "lost"], "there is no state lost"),
        (["request", "serve"], "MEGU_REQUEST_TOKEN"),
    ],
)
@pytest.mark.usefixtures("root")
def test_what_is_wrong_is_one_line_without_the_value(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.delenv("MEGU_REQUEST_TOKEN", raising=False)
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert "Anna" not in error


def test_files_are_taken_in_and_one_that_is_refused_gives_exit_code_1(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = root / "requests" / "inbox"
    folder.mkdir(parents=True)
    (folder / "a.yaml").write_text("{classes: [Bag], basis: contract, requester: internal}")
    assert call("request", "take", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["files"][0]["added"]) == 1
    (folder / "b.yaml").write_text("{}")
    assert call("request", "take") == 1
    assert "b.yaml holds no request" in capsys.readouterr().out


@pytest.mark.usefixtures("root")
def test_status_says_it_all_in_words_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("status", "--json") == 0
    assert set(json.loads(capsys.readouterr().out)) >= {"services", "requests", "champion", "runs", "schedules", "person"}
    assert call("status") == 0
    assert "## Needs a person" in capsys.readouterr().out
