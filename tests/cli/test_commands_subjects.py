"""Subjects from a terminal: tables of two data sets, requests of one person and of many, and the name of nobody anywhere."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from purge_fixtures import garments
from suppression_fixtures import folders

from megu.cli import main as cli
from megu.config.tree import load
from megu.core.project import Project
from megu.data import arrays
from megu.data.splits import make_split
from megu.requests.inbox import NEVER_SEEN, Inbox
from tasks.records import processing

Call = Callable[..., tuple[int, str, str]]
ANNA, BO, SAID = "anna.smith@example.org", "4711", ["--basis", "gdpr-17-1-b", "--requester", "data-subject"]
#: Training images 0-2 are of class a, 4-6 of b; 3 and 7 are test images.
TABLE = f"""subject,sample
{ANNA},train/a/000.png
{ANNA},train/b/004.png
{ANNA},test/a/003.png
{BO},train/a/000.png
{BO},train/a/001.png
"""


@pytest.fixture
def call(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command line in a project: code, what it prints, what it complains of."""
    monkeypatch.setenv("MEGU_PROJECT", str(project.root))
    project.params.write_text("data: {name: photos}\n")

    def called(*arguments: str | Path) -> tuple[int, str, str]:
        words = [str(word) for word in arguments]
        code = cli.guarded(lambda: cli.app(words, standalone_mode=False))
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return called


@pytest.fixture
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of images and a table, outside of the project."""
    root = tmp_path_factory.mktemp("sources")
    folders(root / "photos", garments(8, 3, size=16))
    folders(root / "badges", garments(8, 3, seed=1, size=12))
    (root / "subjects.csv").write_text(TABLE)
    (root / "some.csv").write_text(f"subject,sample\n{ANNA},b/005.png\n{ANNA},b/006\n")
    return root


@pytest.fixture
def two(call: Call, sources: Path) -> Path:
    """Two data sets with subjects, one of them given its table later."""
    assert call("data", "add", sources / "photos", "--name", "photos", "--subjects", sources / "subjects.csv")[0] == 0
    assert call("data", "add", sources / "badges", "--name", "badges")[0] == 0
    assert call("data", "subjects", "badges", sources / "some.csv")[:2] == (
        0, "badges: 1 subjects of 2 samples, as keyed hashes in .megu/subjects\n",
    )  # fmt: skip
    return sources


def test_a_request_of_a_person_finds_every_sample_in_every_data_set(call: Call, two: Path, project: Project) -> None:
    assert call("data", "subjects", "photos") == (0, "photos: 2 subjects of 4 samples\n", "")
    code, out, _ = call("request", "add", "--subject", ANNA, *SAID, "--reference", "DSR-1")
    assert code == 0
    assert ": 3 samples in photos (2 training and 1 test images); r" in out
    assert ": 2 samples in badges (2 training and 0 test images); r" in out
    asked = {entry.data: entry for entry in Inbox(project).entries()}
    assert {entry.facts["person"] for entry in asked.values()} == {out.partition(":")[0]}, "one name ties them together"
    photos = arrays.load(project.data("photos"))
    target = Inbox(project).target(asked["photos"].id)
    assert target is not None
    assert set(target["samples"]) == {one.decode() for one in (*photos.train.ids[[0, 3]], photos.test.ids[0])}
    assert "3 samples of p" in call("request", "list")[1]
    again = json.loads(call("request", "add", "--subject", ANNA, *SAID, "--reference", "DSR-1", "--json")[1])
    assert {row["id"] for row in again["requests"]} == {entry.id for entry in asked.values()}
    assert not any(row["new"] for row in again["requests"])
    only = json.loads(call("request", "add", "--subject", ANNA, *SAID, "--data", "badges", "--json")[1])
    assert [row["data"] for row in only["requests"]] == ["badges"]


def test_many_people_come_by_a_table_a_file_or_standard_input(
    call: Call, two: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (two / "asked.csv").write_text(f"subject\n{ANNA}\n{BO}\n")
    code, out, _ = call("request", "add", "--csv", two / "asked.csv", *SAID, "--json")
    assert (code, [(row["data"], row["samples"]) for row in json.loads(out)["requests"]]) == (
        0, [("photos", 3), ("badges", 2), ("photos", 2)],
    )  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{BO}\n"))
    assert "there already" in call("request", "add", "--subject", "-", *SAID)[1]
    project.inbox.mkdir(parents=True)
    rows = f"subject,basis,requester,reference\n{ANNA},contract,internal,DSR-7\n{BO},contract,internal,DSR-8\n"
    (project.inbox / "people.csv").write_text(rows)
    assert call("request", "take") == (0, "people.csv: 3 new, 0 there already\n", "")
    (project.inbox / "one.json").write_text(
        json.dumps({"subjects": [ANNA, "nobody"], "basis": "contract", "requester": "internal"})
    )
    code, out, _ = call("request", "take")
    assert (code, out) == (
        1,
        "one.json, request 1: there is no sample of this subject in photos, badges: write the subject as the table of subjects has it\n",
    )
    (project.root / "requests" / "refused" / "one.json").unlink()
    assert named_in(project.root, ANNA, BO) == []


def test_the_whole_of_a_person_is_erased_and_nobody_is_named(
    call: Call, two: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the table to what a run would forget and a purge would take, in a part of the data set that has one of her training images."""
    started = list[Any]()
    real = subprocess.Popen.__init__
    monkeypatch.setattr(
        subprocess.Popen,
        "__init__",
        lambda self, args, *more, **named: (started.append(args), real(self, args, *more, **named))[1],
    )
    code, out, err = call("request", "add", "--subject", ANNA, *SAID)
    assert code == 0
    photos, inbox = arrays.load(project.data("photos")), Inbox(project)
    settings, seen = ["data.per_class=1"], arrays.limited(photos, 1)
    hers = {bytes(one) for one in photos.train.ids[[0, 3]]} | {bytes(photos.test.ids[0])}
    config = load(project.params, settings)
    lanes = processing.lanes(project, config, inbox)
    assert processing.review(inbox, lanes) == (2, 0)
    states = {entry.data: (entry.state, entry.reason) for entry in inbox.entries()}
    in_use = hers & set(seen.train.ids.tolist())
    assert states["photos"][0] == ("accepted" if in_use else "promoted")
    if in_use:
        target = inbox.target(next(entry.id for entry in inbox.entries() if entry.data == "photos"))
        assert target is not None
        forget = processing.forget_set(project, config, inbox, lanes["photos"].has, [target])  # type: ignore[arg-type]
        assert {one.encode() for one in forget.ids} == in_use
    else:
        assert states["photos"][1] == NEVER_SEEN
    whole = processing.lanes(project, load(project.params), inbox)["badges"]
    target = inbox.target(next(entry.id for entry in inbox.entries() if entry.data == "badges"))
    assert target is not None
    split = make_split(
        arrays.load(project.data("badges")), processing.forget_set(project, whole.config, inbox, whole.has, [target]), 0
    )  # type: ignore[arg-type]
    assert split.forget.tolist() == [4, 5]
    assert named_in(project.root, ANNA) == []
    assert not any(ANNA in text for text in (out, err, str(started)))


WRONG: list[tuple[list[str], str]] = [
    (["request", "add", "--subject", "Nobody Here", *SAID], "there is no sample of this subject in photos, badges"),
    (["request", "add", "--subject", " ", *SAID], "the subject is empty"),
    (["request", "add", "--subject", ANNA, "--class", "a", *SAID], "subjects and classes are two requests"),
    (["request", "add", "--subject", ANNA], "it lacks basis and requester"),
    (["request", "add", "--subject", ANNA, *SAID, "--data", "other"], "data set 'other' has no subjects"),
    (["request", "add", "--csv", "{sources}/subjects.csv.gone", *SAID], "cannot be read"),
    (["data", "subjects", "photos", "{sources}/bad.csv"], "bad.csv, line 2: the sample is none of the data set"),
    (["data", "subjects", "nowhere", "{sources}/subjects.csv"], "no data set in"),
    (["data", "subjects", "nowhere"], "data set 'nowhere' has no subjects"),
]


def test_what_is_wrong_is_one_line_without_the_name(call: Call, two: Path, project: Project) -> None:
    (two / "bad.csv").write_text("subject,sample\nNobody Here,a/404\n")
    before = project.ledger.head
    for arguments, said in WRONG:
        code, out, err = call(*(word.replace("{sources}", str(two)) for word in arguments))
        assert (code, out, err.count("\n")) == (2, "", 1), arguments
        assert said in err
        assert "Nobody" not in err
        assert ANNA not in err
    assert project.ledger.head == before
    assert list(project.home.glob("requests/*")) == []


def test_without_subjects_or_their_data_set_nothing_is_asked(call: Call, sources: Path, project: Project) -> None:
    assert call("data", "add", sources / "badges", "--name", "badges")[0] == 0
    code, _, err = call("request", "add", "--subject", ANNA, *SAID)
    assert (code, err) == (2, "megu: no data set here has subjects: add them with `megu data subjects NAME FILE`\n")
    (sources / "bad.csv").write_text(f"subject,sample\n{ANNA},a/404\n")
    code, _, err = call("data", "add", sources / "photos", "--name", "photos", "--subjects", sources / "bad.csv")
    assert code == 2
    assert "bad.csv, line 2: the sample is none of the data set" in err
    assert not project.data("photos").exists()
    assert "photos" not in (project.root / "data.dvc").read_text()
    assert call("data", "add", sources / "photos", "--name", "photos", "--subjects", sources / "subjects.csv")[0] == 0
    code, _, err = call("request", "add", "--subject", ANNA, *SAID)
    assert (code, err) == (0, "without subjects, so only equal images were searched for: badges\n")
    shutil.rmtree(project.data("photos"))
    code, _, err = call("request", "add", "--subject", ANNA, *SAID)
    assert code == 2
    assert "data set photos has samples of this subject and is not here: bring it back" in err


def named_in(root: Path, *names: str) -> list[Path]:
    """Every file below a folder in which one of the names is."""
    return [path for path in root.rglob("*") if path.is_file() for name in names if name.encode() in path.read_bytes()]
