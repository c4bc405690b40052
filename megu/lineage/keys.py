"""The project's secrets, in ``.megu/keys/``: the key of its commitments, and a key to sign dossiers with.

Signatures are Ed25519 by ``cryptography``, which MLflow and Prefect already install and which needs no network. OpenSSF's
model-signing does the same for files, but brings in sigstore, TUF and a dozen more packages that a plain key never uses.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from megu.core.errors import MeguError
from megu.core.params import STRICT

if TYPE_CHECKING:
    # The type, for modules that may not import cryptography.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey as Ed25519PrivateKey  # noqa: PLC0414

PASSPHRASE = "MEGU_KEY_PASSPHRASE"
#: Prefixed to what is signed, so that the signature of a dossier is valid for nothing else.
_CONTEXT = b"megu dossier 1\n"


@dataclass(frozen=True, kw_only=True)
class LineageParams:
    """key: a private key (Ed25519, PEM) to sign dossiers with, relative to the project; null uses the one that ``megu keys create``
    made. Without one, a dossier is left unsigned and says so. The passphrase is ``$MEGU_KEY_PASSPHRASE``.
    """

    __pydantic_config__ = STRICT

    key: str | None = None


@dataclass(frozen=True)
class Keys:
    """The keys in a folder. Creating the object touches nothing on disk."""

    folder: Path

    @property
    def private(self) -> Path:
        return self.folder / "signing.pem"

    @property
    def public(self) -> Path:
        return self.folder / "signing.pub"

    def commitment_key(self, *, create: bool = False) -> bytes | None:
        """Return the 32 random bytes of the commitment key; made once, with ``create``; None when there is none.

        Raises `MeguError` when the file is damaged: a new key would match no earlier commitment.
        """
        path = self.folder / "commitments.key"
        if create and not path.exists():
            with contextlib.suppress(FileExistsError):  # another run was first
                write_secret(path, secrets.token_bytes(32).hex().encode())
        return read_commitment_key(path) if path.exists() else None

    def create(self) -> Path:
        """Create a signing key. Return the file of its public half, which may be given to anyone.

        Raises `MeguError` when there already is one.
        """
        from cryptography.hazmat.primitives import serialization as form
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if self.private.exists() or self.public.exists():
            raise MeguError(
                f"there is already a key in {self.folder}", "move it away, and keep its public half: old dossiers need it"
            )
        key = Ed25519PrivateKey.generate()
        passphrase = os.environ.get(PASSPHRASE)
        locked = form.BestAvailableEncryption(passphrase.encode()) if passphrase else form.NoEncryption()
        write_secret(self.private, key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, locked))
        public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
        write_secret(self.public, public, mode=0o644)
        return self.public


def read_commitment_key(path: Path) -> bytes:
    """Read the 32 bytes of a commitment key file. Raises `MeguError` when it is damaged or missing."""
    try:
        text = path.read_text(encoding="ascii")
        key = bytes.fromhex(text)
    except (OSError, ValueError):
        text, key = "", b""
    if len(key) != 32 or text != key.hex():  # capitals would be the same key in a different file
        what = "damaged" if path.is_file() else "not there"
        raise MeguError(f"{path} is {what}", "restore it from a backup: no other key matches the commitments made with it")
    return key


def write_secret(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file that must not exist yet, whole or not at all, readable by nobody else unless ``mode`` says so."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


#: Length of an AES-GCM nonce in bytes.
_NONCE = 12


def encrypted(key: bytes, content: bytes, bound: bytes) -> bytes:
    """Encrypt content with AES-256-GCM: a random nonce (12 bytes), the ciphertext and the tag (16). key: 32 bytes, for few contents.
    bound: what stands beside it in the clear, and cannot be changed either."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = secrets.token_bytes(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, content, bound)


def decrypted(key: bytes, content: bytes, bound: bytes) -> bytes | None:
    """Return what was encrypted; None with a different key, or when a bit of it or of ``bound`` was changed."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(key).decrypt(content[:_NONCE], content[_NONCE:], bound)
    except (InvalidTag, ValueError):
        return None


def signer(keys: Keys, named: Path | None) -> Ed25519PrivateKey | None:
    """Return the key to sign with: the one in the file ``named``, else the project's own, else None.

    Raises `MeguError` when the file is not an Ed25519 private key, or its passphrase is wrong or missing.
    """
    path = named or (keys.private if keys.private.is_file() else None)
    if path is None:
        return None
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    passphrase = os.environ.get(PASSPHRASE)
    try:
        key = load_pem_private_key(path.read_bytes(), passphrase.encode() if passphrase else None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MeguError(
            f"lineage.key: {path} cannot be used ({str(error).splitlines()[0]})",
            f"name an Ed25519 private key in PEM; its passphrase goes into {PASSPHRASE}",
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise MeguError(f"lineage.key: {path} is not an Ed25519 key", "make one with `megu keys create`")
    return key


def public_of(key: Ed25519PrivateKey) -> str:
    """Return the public half in hex: 64 characters."""
    return key.public_key().public_bytes_raw().hex()


def sign(key: Ed25519PrivateKey, content: bytes, context: bytes = _CONTEXT) -> str:
    """Return the signature in hex. context: the prefix of what is signed; an envelope with its own prefix (DSSE) needs none."""
    return key.sign(context + content).hex()


def signed_by(public: str, signature: str, content: bytes, context: bytes = _CONTEXT) -> bool:
    """Return whether ``signature`` is a signature of ``content`` by the key ``public``, both in hex as `sign` and `public_of` write it."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        written = [bytes.fromhex(text) for text in (public, signature)]
        if [each.hex() for each in written] != [public, signature]:
            return False  # hex has other spellings (A for a): a document with one is not the one that was signed
        Ed25519PublicKey.from_public_bytes(written[0]).verify(written[1], context + content)
    except (InvalidSignature, ValueError):
        return False
    return True


def read_public(path: Path) -> str:
    """Return the key of a public key file (PEM) in hex.

    Raises `MeguError` when the file is not one.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise MeguError(f"{path} is not a public key ({str(error).splitlines()[0]})", "name a PEM file") from None
    if not isinstance(key, Ed25519PublicKey):
        raise MeguError(f"{path} is not an Ed25519 public key", "name the .pub file that goes with the signing key")
    return key.public_bytes_raw().hex()
