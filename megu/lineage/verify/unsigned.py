"""Dossiers older than the project's key: the key signs a list of them, to tell them from dossiers whose signature was removed.

``.megu/keys/unsigned.json`` is written when the key is made, and lists every unsigned dossier of that time by its seal. Nobody can add to it
without the key, and no date is trusted: a dossier that was made later is not on it and, if unsigned, is a fault. What was not found at that
time (a dossier brought back from a backup) is added by hand, with ``megu keys adopt``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megu.core.errors import MeguError
from megu.core.files.store import canonical_json, writing
from megu.core.project import Project
from megu.lineage.keys import Keys, public_of, sign, signed_by

if TYPE_CHECKING:
    from megu.lineage.keys import Ed25519PrivateKey
    from megu.lineage.verify.context import Opened

FORMAT = 1
#: Prefixed to what is signed, so that the signature of a list is valid for nothing else.
_CONTEXT = b"megu unsigned 1\n"


def path(project: Project) -> Path:
    return project.keys / "unsigned.json"


def seals(project: Project, trusted: Sequence[str]) -> frozenset[str]:
    """Return the seals on the list; none where there is no list.

    Raises `MeguError` for a list that is not what one of the keys ``trusted`` (hex) signed.
    """
    found = _read(project, trusted)
    return frozenset(found["dossiers"].values()) if found else frozenset()


def _read(project: Project, trusted: Sequence[str]) -> dict[str, Any] | None:
    """Return the content of the list; None where there is no list. Raises as `seals` does."""
    file = path(project)
    if not file.is_file():
        return None
    try:
        value = json.loads(file.read_bytes())
        content = canonical_json(value["list"])
        believed = value["public"] in trusted and signed_by(value["public"], value["signature"], content, _CONTEXT)
        found: dict[str, Any] = value["list"]
        if believed and found["format"] <= FORMAT and isinstance(found["dossiers"], dict):
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise MeguError(
        f"{project.relative(file)} is not what a trusted key signed",
        "restore it from a backup, or delete it and name the dossiers again: `megu keys adopt RUN`",
    )


def begin(project: Project, key: Ed25519PrivateKey) -> list[str]:
    """Write the list for a key that has just been made. Return the MLflow ids of the runs on it."""
    found = {
        run_id: whole[0].seal.seal
        for run_id, whole in _every(project).items()
        if whole and not any(opened.seal.signed for opened in whole)
    }
    _write(project, key, {"created": _now(), "dossiers": found})
    return sorted(found)


def adopt(project: Project, key: Ed25519PrivateKey, names: Sequence[str]) -> list[str]:
    """Add dossiers to the list (named as for ``megu verify``). Return their runs' MLflow ids.

    Raises `MeguError` for one that is not whole, has a signature in any copy, or is younger than the key.
    """
    known = _read(project, [public_of(key)])
    made = known["created"] if known else _since(Keys(project.keys))
    found = {}
    for name in names:
        copies = _copies(project, name)
        if not copies or any(opened is None for opened in copies):
            raise MeguError(f"the dossier of {name} is not whole", f"`megu verify {name}` says what is wrong")
        whole = [opened for opened in copies if opened is not None]
        dossier = whole[0].dossier
        if any(opened.seal.signed for opened in whole):
            raise MeguError(f"the dossier of {name} is signed, or was", f"`megu verify {name}` says by whom")
        if datetime.fromisoformat(dossier.run.created) > datetime.fromisoformat(made):
            raise MeguError(
                f"the dossier of {name} ({dossier.run.created}) is younger than the key ({made}), which would have signed it",
                "it is not as megu wrote it: get it from a backup",
            )
        found[dossier.run.mlflow_run_id] = whole[0].seal.seal
    _write(project, key, {"created": made, "dossiers": {**(known["dossiers"] if known else {}), **found}})
    return list(found)


def _write(project: Project, key: Ed25519PrivateKey, said: Mapping[str, Any]) -> None:
    listed = {"format": FORMAT, **said}
    signature = sign(key, canonical_json(listed), _CONTEXT)
    with writing(path(project)) as temporary:
        temporary.write_bytes(canonical_json({"list": listed, "public": public_of(key), "signature": signature}))


def _every(project: Project) -> dict[str, list[Opened]]:
    """Return run -> the whole copies of its dossier, for every dossier here and those that are only in MLflow."""
    from megu.lineage.index import Index

    names = {folder.name for folder in project.dossiers.glob("*") if folder.is_dir()} if project.dossiers.is_dir() else set()
    names |= {row.run_id for row in Index(project.index).rows()}
    return {name: [opened for opened in _copies(project, name) if opened is not None] for name in sorted(names)}


def _copies(project: Project, name: str) -> list[Opened | None]:
    """Return the copies of a dossier, None for one that is not whole."""
    from megu.lineage.verify.run import copies, opened

    with ExitStack() as stack:
        try:
            return [opened(files, place)[0] for place, files in copies(name, project, stack).places.items()]
        except MeguError:
            return []


def _since(keys: Keys) -> str:
    """Return when a key without a list was made, as far as its file tells."""
    return datetime.fromtimestamp(keys.private.stat().st_mtime, UTC).isoformat() if keys.private.is_file() else _now()


def _now() -> str:
    return datetime.now(UTC).isoformat()
