"""``megu suppress``: each command, and what is said of input that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from purge_fixtures import garments
from suppression_fixtures import OTHER, REQUEST, folders, listing, record

from megu.cli import main as cli
from megu.core.project import Project
from megu.data.sources import providers
from megu.suppression.store import REMOVED, Suppressions

Call = Callable[..., tuple[int, str, str]]
IMAGES = garments(9, 3, size=32)


@pytest.fixture
def call(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command line in a project: code, what it prints, what it complains of."""
    monkeypatch.setenv("MEGU_PROJECT", str(project.root))

    def called(*arguments: str | Path) -> tuple[int, str, str]:
        words = [str(word) for word in arguments]
        code = cli.guarded(lambda: cli.app(words, standalone_mode=False))
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return called


def test_what_is_on_the_list(project: Project, call: Call) -> None:
    assert call("suppress", "list") == (0, "0 records, 0 samples\n", "")
    first, second = listing(project, IMAGES[:3]), listing(project, IMAGES[3:4], until="2026-12-24", requests=[])
    code, out, _ = call("suppress", "list")
    assert code == 0
    assert f"{first.header.id}  3 samples of photos, erased by {REQUEST}, on 2026-11-27, forever\n" in out
    assert f"{second.header.id}  1 samples of photos, erased by run run, on 2026-11-27, until 2026-12-24" in out
    assert out.endswith("2 records, 4 samples\n")
    records = json.loads(call("suppress", "list", "--json")[1])["records"]
    assert {entry["id"]: entry["samples"] for entry in records} == {first.header.id: 3, second.header.id: 1}


def test_a_folder_is_checked_and_what_was_erased_gives_another_exit_code(project: Project, call: Call, tmp_path: Path) -> None:
    listing(project, IMAGES[:2])
    own, clean = folders(tmp_path / "own", IMAGES), folders(tmp_path / "clean", garments(4, 3, seed=5, size=32))
    code, out, _ = call("suppress", "check", own)
    assert code == 1
    assert out.count(f": erased by {REQUEST}, on 2026-11-27\n") == 2
    assert out.endswith("9 images against 2 erased samples: 2 certain, 0 suspected\n")
    assert call("suppress", "check", clean) == (0, "4 images against 2 erased samples: 0 certain, 0 suspected\n", "")
    code, out, _ = call("suppress", "check", own, "--json")
    found = json.loads(out)
    assert (code, found["images"], [row["verdict"] for row in found["found"]]) == (1, 9, ["certain", "certain"])


def test_a_list_goes_out_and_comes_in_again(project: Project, call: Call, tmp_path: Path) -> None:
    first = listing(project, IMAGES[:2])
    code, out, _ = call("suppress", "export", tmp_path / "list")
    assert code == 0
    assert "1 records" in out
    assert (tmp_path / "list").read_bytes() == first.to_bytes()
    own = folders(tmp_path / "own", IMAGES)
    key = project.keys / "commitments.key"
    assert call("suppress", "check", own, "--list", tmp_path / "list", "--key", key)[0] == 1
    Suppressions(project).path(first.header.id).unlink()
    code, _, err = call("suppress", "list")
    assert code == 2
    assert "lacks the record" in err
    assert call("suppress", "import", tmp_path / "list") == (0, "1 records taken in, 2 samples\n", "")
    assert call("suppress", "import", tmp_path / "list") == (0, "0 records taken in, 0 samples\n", "")


def test_a_record_is_removed_for_a_reason(project: Project, call: Call, tmp_path: Path) -> None:
    first = listing(project, IMAGES[:2])
    code, _, err = call("suppress", "remove", first.header.id, "--reason", "because")
    assert code == 2
    assert "is not a reason to remove a record" in err
    assert call("suppress", "remove", first.header.id)[0] == 2
    assert call("suppress", "remove", first.header.id, "--reason", "consent-given")[0] == 0
    assert [event.facts["why"] for event in project.ledger.events(kind=REMOVED)] == ["consent-given"]
    (tmp_path / "list").write_bytes(first.to_bytes())
    code, out, _ = call("suppress", "import", tmp_path / "list")
    assert code == 0
    assert "is not imported again" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["check", "nowhere"], "nowhere"),
        (["check", "own", "--list", "nowhere"], "nowhere cannot be read"),
        (["check", "own", "--list", "params.yaml"], "not a suppression list"),
        (["check", "own", "--list", "other"], "does not open"),
        (["check", "own", "--list", "other", "--key", "nokey"], "not there"),
        (["import", "nowhere"], "nowhere cannot be read"),
        (["import", "params.yaml"], "not a suppression list"),
        (["import", "other"], "made under another key"),
        (["remove", "s0123456789abcdef", "--reason", "court-order"], "there is no suppression record"),
        (["export", "params.yaml/list"], "params.yaml"),
        (["export", "own"], "own is a folder: name a file"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    project: Project, call: Call, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    monkeypatch.chdir(project.root)
    listing(project, IMAGES[:2])
    folders(project.root / "own", IMAGES)
    (project.root / "other").write_bytes(record(IMAGES, OTHER).to_bytes())
    before = sorted(path.name for path in Suppressions(project).root.iterdir()), len(project.ledger.events())
    code, out, err = call("suppress", *words)
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.strip().splitlines()) == 1
    assert (sorted(path.name for path in Suppressions(project).root.iterdir()), len(project.ledger.events())) == before


def test_adding_and_fetching_do_as_the_configuration_says(project: Project, call: Call, tmp_path: Path) -> None:
    own = folders(tmp_path / "own", IMAGES)
    listing(project, IMAGES[:2])
    code, _, err = call("data", "add", own, "--name", "photos")
    assert code == 2
    assert "2 images that were erased" in err
    project.params.write_text("data: {suppressed: drop}\n")
    code, _, err = call("data", "add", own, "--name", "photos")
    assert code == 0
    assert "left out: 2 images erased" in err
    project.params.write_text("data: {suppressed: perhaps}\n")
    code, _, err = call("data", "fetch", "photos")
    assert code == 2
    assert "suppressed" in err
    assert providers.status(project.root)[-1].state == "ok"
