"""What git and DVC have of a run: the pins, the split, and the sources at the commit it was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from megu.core import sources
from megu.core.errors import MeguError
from megu.core.files.store import canonical_json
from megu.core.processes import git
from megu.data import dvc
from megu.data import pins as dvc_pins
from megu.lineage.commitments import commit
from megu.lineage.dossier import sha256
from megu.lineage.keys import Keys
from megu.lineage.verify.context import Check, VerificationContext, summed

#: The files of the project that determine the data and the split; a dossier has their hashes.
FILES = ("data.dvc", "dvc.lock")


def entry_of(root: Path, name: str) -> dict[str, Any] | None:
    """Return the whole entry of a data set in ``data.dvc``; None when it is not pinned."""
    return next((out for out in _outs(root) if Path(str(out["path"])).name == name), None)


def _outs(root: Path) -> list[dict[str, Any]]:
    import yaml

    dvc_pins.read(root)  # says what is wrong with the file
    path = root / dvc_pins.FILE
    return list(yaml.safe_load(path.read_text(encoding="utf-8"))["outs"]) if path.is_file() else []


def check_pins(case: VerificationContext) -> Check:
    name, recorded = "dvc", case.dossier.data.files
    if case.project is None:
        return Check(name, None, "data.dvc and dvc.lock are not here")
    if not recorded:
        return Check(name, True, "neither data.dvc nor dvc.lock had anything on this run")
    wrong, missing, said = [], [], []
    commit, dirty = case.dossier.environment["git.commit"], case.dossier.environment["git.dirty"]
    try:
        committed = _committed(case, FILES)
    except MeguError as error:
        missing.append(str(error))
    else:
        for file, digest in recorded.items():
            if sha256(committed.get(file, b"")) == digest:
                said.append(f"{file} is the one at {commit[:12]}")
            elif dirty != "false":
                not_said = "" if dirty == "true" else ", as far as is known,"
                missing.append(f"{file} was not{not_said} committed when the run was made")
            else:
                wrong.append(f"{file} is different at {commit[:12]}")
    for file, look in (("data.dvc", _data_now), ("dvc.lock", _lock_now)):
        if file in recorded and (problem := look(case, recorded[file])):
            wrong.append(problem)
    return summed(name, wrong, missing, "; ".join(said))


def _committed(case: VerificationContext, names: Sequence[str]) -> dict[str, bytes]:
    """Return the files that the run's commit has, as they are there. Raises `MeguError` when they cannot be read here."""
    facts = case.dossier.environment
    if facts["git.commit"] == "unknown":
        raise MeguError(f"the run recorded no commit ({facts.get('git.why', 'it did not say why')})")
    assert case.project is not None
    return git.files_at(case.project.root, facts["git.commit"], names)


def check_remotes(case: VerificationContext) -> Check:
    """Check that the configured DVC remotes are there: for one that is not, nobody can say that what was erased is gone from it."""
    from megu.lineage.purged import locations as places

    assert case.project is not None
    found = places.remotes(case.project.root)
    said = ", ".join(remote.name for remote in found)
    return summed("dvc remotes", [], places.missing(found), f"{said}: there")


def _data_now(case: VerificationContext, digest: str) -> str:
    """Return what is wrong with ``data.dvc`` now; other data sets may have been added, and this one may have a newer version on disk."""
    assert case.project is not None
    path, name = case.project.root / "data.dvc", case.dossier.data.name
    if not path.is_file():
        return "data.dvc is gone"
    if sha256(path.read_bytes()) == digest:
        return ""
    try:
        outs = _outs(case.project.root)
    except MeguError as error:
        return error.what
    now = next((out for out in outs if Path(str(out["path"])).name == name), None)
    if now == case.dossier.data.pin:
        return "" if len(outs) != 1 else "data.dvc has changed, though it pins the same"
    folder = case.project.data(name)
    found = vars(dvc_pins.hash_dir(folder)) if folder.is_dir() else {}
    recorded = {key: getattr(case.dossier.data, "dvc_hash" if key == "md5" else key) for key in found}
    if not found or found == recorded or now != {**(case.dossier.data.pin or {}), **found}:
        return f"data.dvc does not pin {name} as this run had it, nor as it is on disk"
    return ""


def _lock_now(case: VerificationContext, digest: str) -> str:
    """Return what is wrong with ``dvc.lock`` now; it may be another request's, and must then be consistent itself."""
    assert case.project is not None
    root, scope = case.project.root, case.dossier.scope
    path = root / "dvc.lock"
    if not path.is_file():
        return "dvc.lock is gone"
    if sha256(path.read_bytes()) == digest:
        found = dvc_pins.hash_dir(root / "splits").md5 if (root / "splits").is_dir() else "gone"
        return "" if not scope.through_dvc or found == scope.dvc else f"splits/ has the DVC hash {found}, not {scope.dvc}"
    if not scope.through_dvc:
        return ""
    try:
        locked = dvc.locked_outs(root, "split")
        sizes = {name: dvc_pins.hash_dir(root / name) for name in locked.outs}
    except (MeguError, KeyError, TypeError, AttributeError) as error:
        return f"dvc.lock: {' '.join(str(error).split())}"
    if not locked.current or sizes != locked.outs:
        return f"dvc.lock has changed, and is not right for another request: {locked.why or 'its sizes are wrong'}"
    key = Keys(case.project.keys).commitment_key()
    same = key is not None and locked_request(path, key) == scope.locked
    return "dvc.lock has changed, though the request is the same" if same else ""


def locked_request(path: Path, key: bytes) -> str | None:
    """Return a commitment to the parameters that ``dvc.lock`` has for the split (they may name samples)."""
    import yaml

    try:
        params = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]["split"]["params"]["params.yaml"]
        return commit(key, canonical_json(json.loads(json.dumps(params, default=str)))).hex()  # it may hold dates
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None


def check_code(case: VerificationContext) -> Check:
    name = "code"
    recorded = {
        part.removeprefix("code "): str(value)
        for record in case.records
        for part, value in record.parts.items()
        if part.startswith("code ")
    }
    now = {module: digest for module, digest in _installed(recorded).items() if digest == recorded[module]}
    others = {module: digest for module, digest in recorded.items() if module not in now}
    if not others:
        return Check(name, True, f"the {len(recorded)} modules that the stages ran are those installed")
    commit = case.dossier.environment["git.commit"]
    names = [f"{module.replace('.', '/')}{end}" for module in others for end in (".py", "/__init__.py")]
    committed, why = None, "the project is not here"
    if case.dossier.environment["git.dirty"] == "true":
        why = "the run was made with changes that were not committed"
    elif case.project is not None:
        try:
            committed = _committed(case, names)
        except MeguError as error:
            why = str(error)
    if committed is None:
        found = f"{', '.join(list(others)[:3])}{' …' if len(others) > 3 else ''}: other versions are installed, and {why}"
        return summed(name, [], [found], "")
    wrong: list[str] = []
    missing: list[str] = []
    for module, digest in others.items():
        path = module.replace(".", "/")
        source = committed.get(f"{path}.py", committed.get(f"{path}/__init__.py"))
        if source is None:
            missing.append(f"{module} is not in the recorded commit")
        elif hashlib.sha256(sources.meaning(source.decode()).encode()).hexdigest() != digest:
            (wrong if case.dossier.environment["git.dirty"] == "false" else missing).append(
                f"{module} is different at the recorded commit"
            )
    return summed(name, wrong, missing, f"{len(now)} modules as installed, {len(others)} as at {commit[:12]}")


def _installed(modules: dict[str, str]) -> dict[str, str]:
    """Return the digest of each installed module of ours."""
    found = {}
    for module in modules:
        path = sources.module_file(module, sources.ROOT) if module.split(".")[0] in sources.PACKAGES else None
        if path is not None:
            found[module] = sources.file_digest(module, path)
    return found
