"""A table of subjects as teams write it: what is taken, and what is refused in one line that repeats no value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_fixtures import toy

from megu.core.errors import MeguError
from megu.data.arrays import Dataset
from megu.subjects import table

NAMES = {"train": ["Cat/001", "Cat/002.png", "Cat/002.jpg", "Hund/Zoë"], "test": ["Cat/001", "Cat/009"]}


def dataset(**changes: Any) -> Dataset:
    """Four training and two test images that came as files; the first has one name in both splits."""
    whole = toy(n=4)
    parts = {
        split: replace(part, names=np.array([name.encode() for name in NAMES[split]]))
        for split, part in {
            "train": whole.train,
            "test": replace(whole.test, images=whole.test.images[:2], labels=whole.test.labels[:2], ids=whole.test.ids[:2]),
        }.items()
    }
    return replace(whole, **parts, **changes)


def read(folder: Path, content: str | bytes, **changes: Any) -> table.Table:
    path = folder / "subjects.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return table.read(path, dataset(**changes))


def ids(split: str, *positions: int) -> list[bytes]:
    return [bytes(getattr(dataset(), split).ids[at]) for at in positions]


@pytest.mark.parametrize(
    "content",
    [
        "subject,sample\nAnna,{0}\nBo,train/Cat/002.png\nBo,train/Cat/001.png\n",
        "Sample;Subject\n{0};Anna\n\n{0};Anna\nCat/002.png; Bo \ntrain\\Cat\\001.png;Bo\n",
        "\ufefffile,SUBJECT,,\n{0},Anna,,\nvia/train/Cat/002.png,Bo\ntrain/Cat/001,Bo\n",
        "sep=|\nid|subject\n{0}|Anna\nCat/002.png|Bo\nTRAIN/Cat/001.png|Bo\n".replace("TRAIN", "train"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_table_names_samples_by_id_or_file(tmp_path: Path, content: str, encoding: str) -> None:
    first, second, third = ids("train", 0, 1, 3)
    text = content.format(third.decode().upper())
    assert read(tmp_path, text.removeprefix("\ufeff" if encoding == "utf-16" else "").encode(encoding)) == table.Table(
        frozenset({(third, "Anna"), (second, "Bo"), (first, "Bo")})
    )


def test_names_are_found_in_either_split_and_spelling(tmp_path: Path) -> None:
    decomposed = "subject,sample\nZoe\u0308,Hund/Zoe\u0308.png\nZoë,test/Cat/001.png\nZoë,Cat/009\n"
    assert read(tmp_path, decomposed).pairs == {(one, "Zoë") for one in (*ids("train", 3), *ids("test", 0, 1))}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("subject,sample\nAnna,Cat/003\n", "line 2: the sample is none of the data set"),
        (f"subject,sample\nAnna,{'f' * 32}\n", "line 2: the sample is none of the data set"),
        ("subject,sample\nAnna,Cat/001\n", "line 2: the file is in train and in test"),
        ("subject,sample\nAnna,train/Cat/009\n", "line 2: the sample is none of the data set"),
        ("subject,sample\n ,Hund/Zoë\n", "line 2: the subject is empty"),
        ("subject,sample\nAnna,\n", "line 2: the sample is empty"),
        (f"subject,sample\n{'Anna' * 90},Hund/Zoë\n", "line 2: the subject is not text of at most 255 characters"),
        ('subject,sample\n"Anna\nBo",Hund/Zoë\n', "the subject is not text"),
        ("subject,sample,subject\nAnna,Hund/Zoë,Bo\n", "line 1: two columns have the same heading"),
        ("subject,sample,file\nAnna,Hund/Zoë,Cat/002.png\n", "the first line does not have the headings"),
        ("Anna,Hund/Zoë\n", "the first line does not have the headings"),
        ("", "the first line does not have the headings"),
        ("subject,sample\n", "names no sample of 'toy'"),
        ("subject,sample\nAnna\n", "line 2 has 1 columns, the first line has 2"),
        ("subject,sample\nAnna,Hund/Zoë\nZoë,Cat/009".encode("latin-1"), "line 2: the text is not UTF-8"),
        ("subject,sample\nAnna,Cat/009\n".encode("utf-16-le"), "contains characters that are not text"),
    ],
)
def test_what_is_wrong_is_one_line_that_repeats_nothing(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(MeguError) as error:
        read(tmp_path, content)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not {name for name in ("Anna", "Zoë", "Cat") if name in str(error.value)}


def test_rows_of_images_that_were_left_out_are_counted(tmp_path: Path) -> None:
    rows = "subject,sample\nAnna,Hund/Zoë\nAnna,Cat/404.png\n"
    assert read(tmp_path, rows, left_out=("train/Cat/404.png: it cannot be read",)).absent == 1
    assert read(tmp_path, rows, reduced="at most 40 of each class").absent == 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(MeguError, match=r"gone\.csv cannot be read"):
        table.read(tmp_path / "gone.csv", dataset())


def test_subjects_alone(tmp_path: Path) -> None:
    path = tmp_path / "asked.csv"
    path.write_text("subject;why\nAnna;x\n Bo ;y\nAnna;z\n")
    assert table.subjects(path) == ["Anna", "Bo"]
    for content, said in {"who\nAnna\n": "no column 'subject'", "subject\n": "names no subject"}.items():
        path.write_text(content)
        with pytest.raises(MeguError, match=said):
            table.subjects(path)
