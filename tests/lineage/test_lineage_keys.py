"""The project's secrets, and commitments under them."""

from __future__ import annotations

import hashlib
import hmac
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megu.core.errors import MeguError
from megu.lineage.commitments import SIZE, commit, commit_all, holds, redact
from megu.lineage.keys import PASSPHRASE, Keys, public_of, read_public, sign, signed_by, signer


def test_a_commitment_is_hmac_sha256_of_the_id() -> None:
    assert commit(b"k" * 32, b"id") == hmac.new(b"k" * 32, b"id", hashlib.sha256).digest()
    assert redact(b"k" * 32, ["id"]) == [commit(b"k" * 32, b"id").hex()]


@given(st.sets(st.binary(max_size=8)), st.binary(max_size=8))
def test_a_set_of_commitments_holds_what_was_put_in_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, samples: set[bytes], asked: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "set.bin"
    path.write_bytes(commit_all(b"key", [*samples, *samples]))
    assert path.stat().st_size == SIZE * len(samples)
    assert holds(path, commit(b"key", asked)) == (asked in samples)
    assert all(holds(path, commit(b"key", sample)) for sample in samples)
    assert not any(holds(path, commit(b"another key", sample)) for sample in samples)


def test_the_key_of_commitments_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    assert keys.commitment_key() is None
    made = keys.commitment_key(create=True)
    assert made is not None
    assert len(made) == 32
    assert keys.commitment_key(create=True) == made
    assert Keys(tmp_path / "other").commitment_key(create=True) != made
    assert stat.S_IMODE((tmp_path / "keys" / "commitments.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "ab", "not hex at all", "ab" * 31, "AB" * 32, "ab" * 32 + "\n"])
def test_a_damaged_key_is_said_and_never_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "commitments.key").write_text(content)
    with pytest.raises(MeguError, match=r"commitments\.key is damaged"):
        Keys(tmp_path).commitment_key(create=True)
    assert (tmp_path / "commitments.key").read_text() == content


def test_what_is_signed_is_checked_with_the_public_half_alone(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    assert signer(keys, None) is None
    public = keys.create()
    key = signer(keys, None)
    assert key is not None
    assert read_public(public) == public_of(key)
    signature = sign(key, b"dossier")
    assert signed_by(public_of(key), signature, b"dossier")
    assert not signed_by(public_of(key), signature, b"dossiex")
    assert not signed_by(public_of(key), "00" * 64, b"dossier")
    assert not signed_by(public_of(key), "no hex", b"dossier")
    assert not signed_by("00" * 32, signature, b"dossier")
    assert stat.S_IMODE(keys.private.stat().st_mode) == 0o600


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    Keys(tmp_path).create()
    before = Keys(tmp_path).private.read_bytes()
    with pytest.raises(MeguError, match="there is already a key"):
        Keys(tmp_path).create()
    assert Keys(tmp_path).private.read_bytes() == before


def test_a_passphrase_is_needed_where_one_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSPHRASE, "secret")
    Keys(tmp_path).create()
    assert signer(Keys(tmp_path), None) is not None
    for wrong in ("other", ""):
        monkeypatch.setenv(PASSPHRASE, wrong)
        with pytest.raises(MeguError, match=PASSPHRASE):
            signer(Keys(tmp_path), None)


def test_another_kind_of_key_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "ec.pem", tmp_path / "ec.pub"
    private.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(MeguError, match="not an Ed25519 key"):
        signer(Keys(tmp_path), private)
    with pytest.raises(MeguError, match="not an Ed25519 public key"):
        read_public(public)
    for path in (tmp_path / "nowhere.pem", private):
        with pytest.raises(MeguError, match="not a public key"):
            read_public(path)
