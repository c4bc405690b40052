"""A purge's document is believed when it is whole, of a known form and signed by a key that is trusted; else it is said why not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from megu.core.errors import MeguError
from megu.core.files.store import canonical_json
from megu.lineage.commitments import commit, commit_all
from megu.lineage.dossier import sha256
from megu.lineage.keys import public_of
from megu.lineage.purged import erasures
from megu.lineage.purged.document import Covered, DataErased, Entry, Location, Purge, Rows, Sealed, parse, sealed
from megu.lineage.purged.erasures import Erasures

KEY = Ed25519PrivateKey.generate()
TRUSTED = [public_of(KEY)]
SECRET = bytes(32)


def rows(ids: list[bytes], positions: list[int]) -> Rows:
    return Rows(positions=positions, commitments="".join(commit(SECRET, ids[at]).hex() for at in positions))


def step(ids: list[bytes], positions: list[int], before: str, after: str) -> DataErased:
    return DataErased(
        name="some",
        before={"md5": before, "size": 1, "nfiles": 7},
        after={"md5": after, "size": 1, "nfiles": 7},
        trained=sha256(commit_all(SECRET, ids)),
        train=rows(ids, positions),
        test=Rows(positions=[], commitments=""),
    )


def document(**fields: Any) -> Sealed:
    purge = Purge(
        format=1,
        created="2026-11-24T12:00:00+00:00",
        previous=None,
        key="k",
        policy={"models_days": 30},
        covers=[Covered(mlflow_run_id="r", seal="s", request="Sneaker", forgotten="f")],
        data=[],
        witnessed=[{"mlflow_run_id": "other", "seal": "t"}],
        erased=[Entry(surface="content store", what=".megu/store/aa/aa.png", sha256="a" * 64, why="12 images", until=None)],
        retained=[],
        residual=[],
        surfaces=[Location(name="content store", verdict="ERASED", says="1 erased")],
        looked={"samples": 1},
        environment={},
    )
    return sealed(replace(purge, **fields), KEY)


def test_what_was_written_is_read() -> None:
    assert parse(document().to_bytes(), "purge.json", TRUSTED) == document()


@given(place=st.integers(0, len(document().to_bytes()) - 1), bit=st.integers(0, 7))
def test_no_changed_bit_is_believed(place: int, bit: int) -> None:
    content = bytearray(document().to_bytes())
    content[place] ^= 1 << bit
    with pytest.raises(MeguError):
        parse(bytes(content), "purge.json", TRUSTED)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: value["purge"].update(format=2), "format 2"),
        (lambda value: value["purge"].update(more=1), "the field purge.more is unknown"),
        (lambda value: value["purge"].pop("erased"), "the field purge.erased is missing"),
        (lambda value: value["purge"]["covers"].clear(), "does not match its seal"),
        (lambda value: value.update(signature="00" * 64), "the signature is not by the key"),
    ],
)
def test_what_is_wrong_is_said(change: Any, said: str) -> None:
    value = json.loads(document().to_bytes())
    change(value)
    with pytest.raises(MeguError, match=said):
        parse(canonical_json(value), "purge.json", TRUSTED)


def test_a_cut_file_and_another_persons_key_are_said() -> None:
    with pytest.raises(MeguError, match="cut off"):
        parse(document().to_bytes()[:-5], "purge.json", TRUSTED)
    with pytest.raises(MeguError, match="is not trusted here"):
        parse(document().to_bytes(), "purge.json", [public_of(Ed25519PrivateKey.generate())])


def test_only_what_is_named_is_accounted_for_and_a_covered_run_needs_sealed() -> None:
    own = Erasures((document(),), (), "r")
    assert own.file("a" * 64) == f"erased by purge {document().seal[:12]}…"
    assert own.file("b" * 64) is None
    assert not own.accepted
    assert Erasures((document(),), (), "r", True).accepted
    assert Erasures((document(),), (), "another").accepted


def test_a_document_that_is_not_believed_accounts_for_nothing() -> None:
    found = erasures.load(None, {"purge.json": document().to_bytes()[:-1]}, TRUSTED, "r", True)
    assert (found.documents, len(found.problems)) == ((), 1)


@given(
    count=st.integers(4, 30),
    data=st.data(),
)
def test_positions_are_followed_through_several_purges(count: int, data: st.DataObject) -> None:
    """What is at the new positions are the very samples that were at the old ones, without those that are gone."""
    ids = [f"{number:032x}".encode() for number in range(count)]
    here, steps = list(ids), list[DataErased]()
    for number in range(2):
        gone = data.draw(st.sets(st.integers(0, len(here) - 1), max_size=len(here) - 1))
        steps.append(step(here, sorted(gone), f"v{number}", f"v{number + 1}"))
        here = [entry for at, entry in enumerate(here) if at not in gone]
    asked = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1)))
    positions, gone_count = erasures.retained_positions(np.array(asked), steps)
    assert [here[at] for at in positions] == [ids[at] for at in asked if ids[at] in here]
    assert gone_count == len(asked) - len(positions)
    assert erasures.makes_up(SECRET, here, steps)
    assert not erasures.makes_up(SECRET, here[1:], steps)
    known = Erasures(tuple(document(data=[entry], created=f"2026-11-2{n}") for n, entry in enumerate(steps)))
    assert known.data("v0") == steps
    assert known.data("v1") == steps[1:]
    assert known.data("other") == []
