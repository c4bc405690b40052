"""Records, their chain, and what is said of files that are not as they were written."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megu.core.errors import MeguError
from megu.core.files.store import Ref, canonical_json
from megu.core.stages import Result
from megu.lineage.record import FORMAT, Newer, Record, build, faults, from_lines, hide_params, root, to_lines


def result(stage: str, parts: dict[str, Any], **values: Any) -> Result:
    return Result(stage, parts, {"weights": Ref("bin", "ab" * 32, 3)}, values, {"seconds": 1}, 2.0, {"created": "then"})


def key(stage: str, parts: dict[str, Any]) -> str:
    return f"{stage}-{hashlib.sha256(canonical_json(parts)).hexdigest()[:40]}"


def chain(seconds: float = 1.0, alpha: float = 0.7) -> list[Record]:
    data = result("dataset", {"name": "photos"}, dvc_hash="d41")
    first = build("dataset", key("dataset", dict(data.parts)), data, [], {"seconds": seconds}, b"k" * 32)
    parts = {"input data": data.digest, "alpha": alpha}
    second = build("unlearn", key("unlearn", parts), result("unlearn", parts), [first], {"seconds": seconds}, b"k" * 32)
    return [first, second]


def test_the_root_is_the_hash_of_the_digests_in_order() -> None:
    records = chain()
    by_hand = ["megu lineage", 1, [hashlib.sha256(canonical_json(record.identity)).hexdigest() for record in records]]
    assert root(records) == hashlib.sha256(canonical_json(by_hand)).hexdigest()
    assert root(records[::-1]) != root(records)


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_how_long_it_took_is_no_part_of_the_root(one: float, two: float) -> None:
    assert root(chain(one)) == root(chain(two))


def test_a_parameter_is() -> None:
    assert root(chain(alpha=0.7)) != root(chain(alpha=0.6))


@pytest.mark.parametrize("field", ["label", "stage", "key", "parts", "files", "values", "parents"])
def test_so_is_every_field_of_a_record_but_its_circumstances(field: str) -> None:
    first, second = chain()
    value = getattr(second, field)
    other = f"{value}x" if isinstance(value, str) else {**value, "more": {"kind": "x", "sha256": "y", "size": 1}}
    assert root([first, replace(second, **{field: other})]) != root([first, second])


def test_lines_are_read_back_as_they_were() -> None:
    assert from_lines(to_lines(chain()), "records.jsonl") == chain()


def changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    value = json.loads(to_lines(chain()).splitlines()[0])
    change(value)
    return canonical_json(value) + b"\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (to_lines(chain())[:-20], "records.jsonl is cut off"),
        (changed(lambda value: value.update(more=1)), "line 1 has the unknown field more"),
        (changed(lambda value: value["identity"].update(more=1)), "line 1 has the unknown field more"),
        (changed(lambda value: value["identity"].pop("parts")), "is not a record"),
        (changed(lambda value: value["identity"].update(files={"a": 1})), "is not a record"),
        (changed(lambda value: value.update(format="1")), "has no format that megu wrote"),
        (b"{\n", "is not a record"),
    ],
)
def test_a_file_that_is_not_as_written_is_refused_in_one_line(content: bytes, said: str) -> None:
    with pytest.raises(MeguError) as caught:
        from_lines(content, "records.jsonl")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, Newer)


def test_a_newer_format_is_said_to_be_newer() -> None:
    with pytest.raises(Newer, match=f"knows up to {FORMAT}: install a newer megu"):
        from_lines(changed(lambda value: value.update(format=FORMAT + 1)), "records.jsonl")


def test_a_whole_chain_has_no_fault() -> None:
    assert faults(chain()) == []


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("parents", {}, "the inputs of unlearn are not what came before it"),
        ("parents", {"dataset": "0" * 64}, "unlearn was made from a different dataset"),
        ("parents", {"nobody": "0" * 64}, "unlearn names nobody, which does not come before it"),
        ("parts", {"alpha": 0.7}, "the key of unlearn does not follow from its parts"),
        ("label", "dataset", "there are two records dataset"),
    ],
)
def test_what_does_not_fit_in_a_chain_is_named(field: str, value: Any, said: str) -> None:
    first, second = chain()
    assert said in faults([first, replace(second, **{field: value})])


def test_sample_ids_are_hidden_and_hiding_them_again_changes_nothing() -> None:
    ids = ["a" * 32, "cat/001.png"]
    parts = {"forget.ids": ids, "forget.files": [], "forget.scenario": "ids"}
    made = build("split", "split-x", result("split", parts), [], {}, b"k" * 32)
    commitments = sorted(hmac.digest(b"k" * 32, name.encode(), "sha256").hex() for name in ids)
    assert made.parts == {"forget.ids": commitments, "forget.files": [], "forget.scenario": "ids"}
    assert build("split", "split-x", result("split", dict(made.parts)), [], {}, b"k" * 32) == made


def test_what_mlflow_once_had_in_plain_is_still_compared() -> None:
    value = "['a']"
    recorded = {"forget.ids": f"hmac:{hmac.digest(b'k' * 32, value.encode(), 'sha256').hex()}", "seed": "0"}
    plain = {"forget.ids": value, "seed": "0"}
    assert hide_params(plain, recorded, b"k" * 32) == recorded
    assert hide_params({**plain, "forget.ids": "['b']"}, recorded, b"k" * 32) != recorded
    assert hide_params(plain, recorded, None)["forget.ids"] == "hmac: no key here"
    assert hide_params(plain, plain, b"k" * 32) == plain
