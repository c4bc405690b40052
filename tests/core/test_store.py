from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from megu.core.errors import MeguError
from megu.core.files.store import Missing, Ref, Store, canonical_json, writing
from megu.core.files.text import write_text

JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(JSONS)
def test_canonical_json_is_json_and_does_not_depend_on_the_order_of_keys(value: object) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    if isinstance(value, dict):
        assert canonical_json(dict(reversed(value.items()))) == text


def test_canonical_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"loss": float("nan")})


def test_what_is_put_comes_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3).T, "a": np.array([1, 2], dtype=np.int64)}
    ref = store.put_arrays(arrays, {"labeler": "prototype"})
    loaded = store.arrays(ref)
    assert set(loaded) == {"a", "b"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype
    assert Ref.from_json(json.loads(json.dumps(ref.to_json()))) == ref


def test_equal_content_is_one_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "given.json").write_bytes(b"{}")
    assert store.put_json({}) == store.put_bytes("json", b"{}") == store.put_file(tmp_path / "given.json")
    assert len(list(tmp_path.rglob("*/*.json"))) == 1


@pytest.mark.parametrize("damage", [b"", b"{ }", b'{"a":2}'])
def test_damage_is_found_when_reading_and_mended_by_putting_again(tmp_path: Path, damage: bytes) -> None:
    store = Store(tmp_path)
    ref = store.put_json({"a": 1})
    store.path(ref).write_bytes(damage)
    assert not store.holds(ref)
    with pytest.raises(Missing):
        store.json(ref)
    assert store.put_json({"a": 1}) == ref
    assert store.json(ref) == {"a": 1}


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "file"

    def fail() -> None:
        with writing(target) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(target.parent.iterdir()) == []


def test_a_text_is_written_as_it_is_where_it_is_with_the_mode_it_has(tmp_path: Path) -> None:
    write_text(tmp_path / "folder" / "new", "a\r\nb\n")
    assert (tmp_path / "folder" / "new").read_bytes() == b"a\r\nb\n"
    assert (tmp_path / "folder" / "new").stat().st_mode & 0o777 == 0o644
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("before")
    real.chmod(0o600)
    link.symlink_to(real)
    write_text(link, "after")
    assert (real.read_text(), link.is_symlink(), real.stat().st_mode & 0o777) == ("after", True, 0o600)


def test_a_full_disk_is_said_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with pytest.raises(MeguError, match="the disk is full"), writing(target):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_any_other_error_of_a_write_is_the_one_that_was_raised(tmp_path: Path) -> None:
    error = OSError(errno.EIO, "the disk does not answer")
    with pytest.raises(OSError, match="does not answer") as caught, writing(tmp_path / "file"):
        raise error
    assert caught.value is error
    assert caught.value.__cause__ is None
    assert list(tmp_path.iterdir()) == []


def test_equal_arrays_with_equal_facts_are_one_file_every_time(tmp_path: Path) -> None:
    """The library writes the facts in an order of its own each time."""
    arrays = {"b": np.arange(3), "a": np.ones((2, 2), dtype=np.float32)}
    meta = dict.fromkeys("zyxwvu", "é" * 3)
    refs = {Store(tmp_path).put_arrays(arrays, meta) for _ in range(20)}
    assert len(refs) == 1
    with safe_open(str(Store(tmp_path).path(*refs)), framework="np") as file:
        assert file.metadata() == meta
    kept = Store(tmp_path).arrays(*refs)
    assert {name: array.tolist() for name, array in kept.items()} == {name: array.tolist() for name, array in arrays.items()}
