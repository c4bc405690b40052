"""Requests as people and programs write them: what can be read in one way is taken, the rest refused with the reason and the line."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.core.settings.sections import read
from megu.data import dvc, pins, splits
from megu.requests.inbox import Inbox
from megu.requests.intake import files, formats
from megu.requests.request import Request, RequestParams

TODAY = date(2026, 11, 24)
ID, OTHER = "0123456789abcdef0123456789abcdef", "f" * 32
WHOLE = {"basis": "contract", "requester": "court"}


def read_as(tmp_path: Path, name: str, content: str | bytes) -> list[Request]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return files.read(path, RequestParams(), TODAY)


# --- tables ------------------------------------------------------------------------------------------------------------------

ROWS = [["reference", "basis", "requester", "id", "class", "due"], ["DSR-1", "contract", "court", ID, "", "24.12.2026"]]
ROWS += [
    ["DSR-1", "contract", "court", OTHER, "", "24.12.2026"],
    ["DSR-2", "contract", "court", "", "Coat, long", "2026-12-24 09:30"],
]


def joined(delimiter: str, end: str = "\n") -> str:
    quoted = [[f'"{cell}"' if delimiter in cell else cell for cell in row] for row in ROWS]
    return end.join([*(delimiter.join(row) for row in quoted), ""])


@pytest.mark.parametrize(
    "content",
    [
        *(joined(delimiter) for delimiter in (",", ";", "\t", "|")),
        *(f"sep={delimiter}\n{joined(delimiter)}" for delimiter in (",", ";", "\t")),
        f'"sep=;"\r\n{joined(";", chr(13) + chr(10))}',
        joined(",", "\r\n"),
        joined(";", "\r"),
        joined(",").encode("utf-8-sig"),
        *(joined(delimiter).encode("utf-16") for delimiter in (",", "\t")),
        b"\xfe\xff" + joined(";").encode("utf-16-be"),
        joined(";") + ";;;;;\n\n ; ;;;;\n",
        joined(";").replace("\n", ";;\n"),
        "\n" + joined(","),
        joined(",").replace("reference", " Reference ").replace("basis", "BASIS").replace("id", "ID", 1),
    ],
)
def test_a_table_as_a_spreadsheet_saves_it_is_taken(tmp_path: Path, content: str | bytes) -> None:
    one, two = read_as(tmp_path, "a.csv", content)
    assert (one.reference, one.ids, one.due) == ("DSR-1", (ID, OTHER), "2026-12-24")
    assert (two.reference, two.classes, two.due) == ("DSR-2", ("Coat, long",), "2026-12-24")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("basis;requester;class\ncontract;court;Bag\ncontract;court\n", "line 3 has 2 columns, the first line has 3"),
        ("basis;requester;class\ncontract;court;Bag;more\n", "line 2 has 4 columns, the first line has 3"),
        ("sep=x\nbasisxrequester\n", "line 1: this delimiter is not supported"),
        ("basis,class,class\na,b,c\n", "line 1: two columns have the same heading"),
        ("sep=;\nbasis;requester;class\ncontract;court;Bag\nno;court;Bag\n", "line 4: basis must be one of"),
        ('basis,requester,class\ncontract,court,"Bag\n', "line 2 is not CSV"),
        ("basis,requester,class,due\ncontract,court,Bag,03/04/2026\n", "line 2: due must be a date whose day and month can be told apart"),
        ("basis,requester,sample id\ncontract,court,Anna\n", "a request has no 'sample id', and no free text"),
        ("reference,basis,requester,class\nR-A,x,y,z\nAB-1,contract,court,Bag\nAB-1,contract,court,Coat,\n\nAB-1,policy,court,Hat\n",
         "line 6 differs from line 3, which has the same reference"),
        ("basis,requester,class\ncontract,court,B\xe4r\n".encode("latin-1"), "line 2: the text is not UTF-8"),
        ("a\0b", "characters that are not text"),
        (";;;\n\n", "holds no request"),
        ("basis,requester,class\n<<<<<<< a\ncontract,court,Bag\n=======\nx,y,Hat\n>>>>>>> b\n", "line 2: a merge is not finished"),
    ],
)  # fmt: skip
def test_what_a_table_does_not_say_clearly_is_refused_with_the_line(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(MeguError) as caught:
        read_as(tmp_path, "a.csv", content)
    assert said in str(caught.value)
    assert str(caught.value).startswith("a.csv")
    assert "Anna" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"id\n{ID}\n", [ID]),
        (f"{ID}\n{OTHER}\n\n", [ID, OTHER]),
        (f"sep=;\nName;ID\nx;{ID.upper()}\n;;\n", [ID]),
        (f"name\tid\nx\t{ID}\ny\t\n", [ID]),
        (f"sample\n{ID}\n", "nor the heading `id`"),
        (f"name,sample\nx,{ID}\n", "has no column `id`"),
        (f"id\n{ID}\nAnna\n", "line 3 has no sample id"),
    ],
)
def test_a_heading_other_than_id_is_no_id(tmp_path: Path, text: str, found: Any) -> None:
    (tmp_path / "ids.csv").write_text(text)
    if isinstance(found, list):
        assert files.ids_in(tmp_path / "ids.csv") == found
        return
    with pytest.raises(MeguError, match=found) as caught:
        files.ids_in(tmp_path / "ids.csv")
    assert "Anna" not in str(caught.value)


# --- JSON and YAML -----------------------------------------------------------------------------------------------------------


def test_what_stands_in_yaml_is_a_name_whatever_yaml_takes_it_for(tmp_path: Path) -> None:
    named = "classes: [no, 07, null, 2024-01-01, 1e3, on], reference: 0123, due: 2026-12-24 10:00, reason: , data: ~"
    (one,) = read_as(tmp_path, "a.yaml", f"{{{named}, basis: contract, requester: court}}")
    assert one.classes == ("no", "07", "null", "2024-01-01", "1e3", "on")
    assert (one.reference, one.due, one.reason, one.data) == ("0123", "2026-12-24", "erasure-request", "")


@pytest.mark.parametrize("value", [{"classes": [7], "reference": 4711}, {"classes": 7, "reference": "4711"}])
def test_whole_numbers_of_json_are_names(tmp_path: Path, value: dict[str, Any]) -> None:
    (one,) = read_as(tmp_path, "a.json", json.dumps({**value, **WHOLE}))
    assert (one.classes, one.reference) == (("7",), "4711")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "classes: [a]\nbasis: contract\nclasses: [b]\n", "a.yaml, line 3: the request has this key twice"),
        ("a.yaml", "[" * 5000, "a.yaml, line 1: it is too deep"),
        ("a.yaml", "[" * 100_000, "a.yaml, line 1: it is too deep"),
        ("a.yaml", "- &a {x: y}\n- *a\n", "a.yaml, line 2: a request has no aliases"),
        ("a.yaml", "- {classes: a}\n- 7\n", "neither a request nor a list"),
        ("a.yaml", "basis: contract\nrequester: court\nclasses:\n  Anna: 1\n", "line 3: the value is neither text nor a list of names"),
        ("a.yaml", "? [a]\n: b\n", "line 1: a key is not text"),
        ("a.yaml", "classes: [a]\nbasis: x\nrequester: court\n", "a.yaml, line 1: basis must be"),
        ("a.json", "[" * 5000, "a.json is not JSON: it is too deep"),
        ("a.json", '{"classes": ["a"], "classes": ["b"]}', "it names a key twice"),
        ("a.json", '{"classes": [NaN]}', "NaN is not a JSON number"),
        ("a.json", '{"classes":\n [}', "a.json, line 2 is not JSON"),
        ("a.json", "{classes: [a]}", "a.json, line 1 is not JSON"),
    ],
)  # fmt: skip
def test_what_json_and_yaml_do_not_say_clearly_is_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(MeguError) as caught:
        read_as(tmp_path, name, text)
    assert said in str(caught.value)
    assert "Anna" not in str(caught.value)


# --- values ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["2026-12-24", "2026/12/24", "2026.12.24", "24.12.2026", "24/12/2026", "12/24/2026", "24-12-2026", " 24.12.2026 ",
     "2026-12-24T23:30:00Z", "2026-12-24 23:30", "24.12.2026 09:30:15", "12/24/2026 9:30", "2026-12-24T00:00:00.000+01:00"],
)  # fmt: skip
def test_a_date_that_can_be_read_in_one_way_is_taken(text: str) -> None:
    assert formats.day(text) == "2026-12-24"


def test_of_two_equal_numbers_nobody_need_ask_which_is_the_month() -> None:
    assert (formats.day("05/05/2026"), formats.day("3.4.2026"), formats.day("13/1/2026")) == (
        "2026-05-05",
        "2026-04-03",
        "2026-01-13",
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [("03/04/2026", "told apart"), ("3-4-2026", "told apart"), ("31.02.2026", "day of the calendar"), ("24.12.26", "such as"),
     ("45000", "such as"),
     ("24/12-2026", "such as"), ("tomorrow", "such as"), ("2026-12-24 soon", "such as"), ("2026-13-01", "day of the calendar")],
)  # fmt: skip
def test_a_date_that_cannot_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        formats.day(text)


@pytest.mark.parametrize(
    "reference",
    ["DSR-2026-0142", "ABC-123/4", "ABC-123.4", "INC0012345", "#123", "4711", "123e4567-e89b-12d3-a456-426614174000",
     "123E4567-E89B-12D3-A456-426614174000", "CASE_7"],
)  # fmt: skip
def test_references_as_ticket_systems_make_them(reference: str) -> None:
    assert Request(classes=("Bag",), **WHOLE, due="2026-12-24", reference=reference).reference == reference  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "reference", ["01701234567", "+49170123", "anna-1990", "Anna", "ABC", "ABC-", "12 34", "#", "a@b.c", "ABC-123\n"]
)
def test_what_may_be_a_person_is_no_reference(reference: str) -> None:
    with pytest.raises(ValueError, match="ticket"):
        Request(classes=("Bag",), **WHOLE, due="2026-12-24", reference=reference)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "file",
    ["train\\Cat\\001.png", "C:\\data\\train\\Cat\\001.png", "\\\\server\\share\\train\\Cat\\001.png", "train/Cat/001.png"],
)
def test_a_path_of_windows_names_the_same_file(file: str) -> None:
    asked = files.parse({"files": [file], **WHOLE}, "request", RequestParams(), TODAY)
    assert asked.files[0].endswith("train/Cat/001.png")
    assert splits.file_names(asked.files[0]) == ("Cat/001", "Cat/001.png")


def test_a_file_with_one_wrong_row_is_refused_whole(project: Project) -> None:
    inbox = Inbox(project)
    project.inbox.mkdir(parents=True)
    (project.inbox / "a.csv").write_text("basis;requester;class\ncontract;court;Bag\ncontract;nobody;Hat\n")
    (taken,) = files.take(inbox, RequestParams(), TODAY)
    assert "a.csv, line 3: requester must be one of" in taken.refused
    assert inbox.entries() == []
    assert (project.root / "requests" / "refused" / "a.csv").is_file()


@pytest.mark.parametrize("name", [b"\xff.yaml", b"a\nb.yaml", b"\x1b[31m.yaml"])
def test_a_file_of_any_name_can_be_refused(project: Project, name: bytes) -> None:
    project.inbox.mkdir(parents=True)
    path = project.inbox / os.fsdecode(name)
    path.write_text("{}")
    (taken,) = files.take(Inbox(project), RequestParams(), TODAY)
    assert "holds no request" in taken.refused
    assert not path.exists()
    (why,) = (project.root / "requests" / "refused").glob("*.why")
    assert why.read_text().count("\n") == 1
    assert "\x1b" not in why.read_text()


# --- a merge that is not finished ---------------------------------------------------------------------------------------------

MERGE = "a: 1\n<<<<<<< HEAD\nouts: 1\n=======\nouts: 2\n>>>>>>> branch\n"


@pytest.mark.parametrize("name", ["data.dvc", "params.yaml", "dvc.yaml", "dvc.lock", "splits"])
def test_the_marks_of_a_merge_are_one_line_that_names_the_file_and_the_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    (tmp_path / "dvc.yaml").write_text("stages: {split: {cmd: x}}\n")
    file = "params.yaml" if name == "splits" else name
    (tmp_path / file).write_text(MERGE)
    look = {
        "data.dvc": lambda: pins.read(tmp_path),
        "params.yaml": lambda: read(tmp_path / "params.yaml"),
        "dvc.yaml": lambda: dvc.locked_outs(tmp_path, "split"),
        "dvc.lock": lambda: dvc.locked_outs(tmp_path, "split"),
        "splits": lambda: splits.read_params(tmp_path),
    }
    with pytest.raises(MeguError, match=f"^{file}, line 2: a merge is not finished: finish it"):
        look[name]()
