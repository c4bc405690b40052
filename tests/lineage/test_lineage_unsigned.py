"""A dossier that is older than the key is told from one whose signature was taken away."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dossier_fixtures import RUN, SIGNING, found, written

from megu.cli import main as cli
from megu.core.errors import MeguError
from megu.core.files.store import canonical_json
from megu.core.project import Project
from megu.lineage.dossier import SEAL
from megu.lineage.keys import Keys, signer
from megu.lineage.verify import unsigned
from megu.lineage.verify.context import Check
from megu.lineage.verify.run import verify

OTHER = "f" * 32


def signature(project: Project, run_id: str = RUN) -> Check:
    return next(check for check in verify(run_id, project, sealed=True).checks if check.name == "signature")


def put(project: Project, *, run_id: str = RUN, signed: bool = False, created: str = "2026-01-01T00:00:00+00:00") -> Path:
    return written(project.dossiers / run_id, found(signed=signed, run={"mlflow_run_id": run_id, "created": created}))


def make_key(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """``megu keys create``."""
    monkeypatch.setenv("MEGU_PROJECT", str(project.root))
    monkeypatch.setattr("sys.argv", ["megu", "keys", "create"])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 0


def test_a_dossier_from_before_the_key_is_no_fault(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(project)
    assert signature(project).says == "unsigned: nothing says who made it"
    make_key(project, monkeypatch)
    assert "1 unsigned dossiers are older than the key" in capsys.readouterr().out
    assert signature(project) == Check("signature", True, "unsigned: older than the key, and on the list that the key signed")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_signature_that_was_taken_away_is_missed(project: Project, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """A dossier of another key too, if it says in its own words that it is old."""
    put(project)
    make_key(project, monkeypatch)
    days = timedelta(days=-300 if when == "before" else 1)
    folder = put(project, run_id=OTHER, signed=True, created=(datetime.now(UTC) + days).isoformat())
    (folder / SEAL).write_bytes(
        canonical_json({**json.loads((folder / SEAL).read_bytes()), "signed": False, "public": None, "signature": None})
    )
    assert signature(project, OTHER).holds is False
    assert "should have signed it (`megu keys adopt RUN`" in signature(project, OTHER).says
    assert signature(project).holds


def test_another_dossier_of_the_same_run_is_not_the_one_on_the_list(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    put(project)
    make_key(project, monkeypatch)
    put(project, created="2026-01-02T00:00:00+00:00")
    assert signature(project).holds is False


def changed(value: dict[str, Any]) -> None:
    value["list"]["dossiers"][OTHER] = "0" * 64


def of_another_key(value: dict[str, Any]) -> None:
    from megu.lineage.keys import public_of, sign

    changed(value)
    value["public"] = public_of(SIGNING)
    value["signature"] = sign(SIGNING, canonical_json(value["list"]), unsigned._CONTEXT)


def of_a_newer_megu(value: dict[str, Any]) -> None:
    value["list"]["format"] = 2


def cut_off(value: dict[str, Any]) -> None:
    value.clear()


@pytest.mark.parametrize("change", [changed, of_another_key, of_a_newer_megu, cut_off])
def test_a_list_that_the_key_did_not_sign_is_believed_of_nobody(
    project: Project, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    put(project)
    make_key(project, monkeypatch)
    value = json.loads(unsigned.path(project).read_bytes())
    change(value)
    unsigned.path(project).write_text(json.dumps(value))
    assert signature(project).holds is False
    assert "unsigned.json is not what a trusted key signed" in signature(project).says


def key(project: Project) -> Any:
    return signer(Keys(project.keys), None)


def test_a_key_of_an_older_megu_has_no_list_and_a_person_names_the_dossiers(project: Project) -> None:
    Keys(project.keys).create()
    put(project)
    assert signature(project).holds is False
    assert unsigned.adopt(project, key(project), [RUN]) == [RUN]
    assert signature(project).holds
    put(project, run_id=OTHER)
    assert unsigned.adopt(project, key(project), [OTHER]) == [OTHER]
    assert signature(project).holds, "those on the list stay there"


def test_what_is_younger_than_the_key_signed_or_not_whole_is_not_adopted(project: Project) -> None:
    Keys(project.keys).create()
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    put(project, created=later)
    with pytest.raises(MeguError, match="is younger than the key"):
        unsigned.adopt(project, key(project), [RUN])
    unsigned.begin(project, key(project))
    with pytest.raises(MeguError, match="is younger than the key"):
        unsigned.adopt(project, key(project), [RUN])
    put(project, signed=True)
    with pytest.raises(MeguError, match="is signed, or was"):
        unsigned.adopt(project, key(project), [RUN])
    (project.dossiers / RUN / SEAL).unlink()
    with pytest.raises(MeguError, match="is not whole"):
        unsigned.adopt(project, key(project), [RUN])
