"""The checks of what MLflow holds: the run, its files, the registered version, its alias, the chain of dossiers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from megu.lineage import dossier as folder_of
from megu.lineage.dossier import MAIN, Dossier, sha256
from megu.lineage.keys import Keys
from megu.lineage.promoted.champions import CHAMPION, PREVIOUS, Status, status
from megu.lineage.record import hide_params
from megu.lineage.verify.context import JSON, Check, VerificationContext, differences, summed


def _home(case: VerificationContext, name: str) -> Check | None:
    """Return the check to report when MLflow has nothing on this run."""
    if case.connected is None:
        return Check(name, None, case.unreachable)
    if case.run() is None:
        return Check(name, None, f"this MLflow has no run {case.dossier.run.mlflow_run_id}")
    return None


def run_in_mlflow(case: VerificationContext) -> Check:
    """Check the parameters, metrics, tags and inputs of the MLflow run."""
    name = "run in MLflow"
    if away := _home(case, name):
        return away
    found, recorded = dict(case.run() or {}), dict(case.dossier.tracked.run)
    key = Keys(case.project.keys).commitment_key() if case.project else None
    found["params"] = hide_params(found["params"], recorded["params"], key)
    wrong = []
    for kind in ("params", "metrics", "tags"):
        wrong += [f"{kind[:-1]} {text}" for text in differences(recorded.pop(kind), found[kind], more=kind != "tags")]
    later = sorted(set(found["tags"]) - set(case.dossier.tracked.run["tags"]) - _own_tags())
    rest = {key: value for key, value in found.items() if key not in ("params", "metrics", "tags", "status")}
    wrong += differences({key: value for key, value in recorded.items() if key != "status"}, rest)
    if found["status"] != "FINISHED":
        wrong.append(f"its status is {found['status']}, not FINISHED")
    numbers = ", ".join(f"{len(found[kind])} {kind}" for kind in ("params", "metrics"))
    return summed(name, wrong, [], numbers + (f"; tags added since: {', '.join(later)}" if later else ""))


def _own_tags() -> set[str]:
    from megu.tracking import lineage

    return {lineage.ROOT_TAG, lineage.SEAL_TAG}


def seal_in_mlflow(case: VerificationContext) -> Check:
    """Check the root and the seal that MLflow has held since the run."""
    name = "seal in MLflow"
    if away := _home(case, name):
        return away
    from megu.tracking import lineage

    tags = (case.run() or {})["tags"]
    wanted = {lineage.ROOT_TAG: case.dossier.root, lineage.SEAL_TAG: sha256(case.opened.content)}
    return summed(
        name, differences(wanted, tags, more=False), [], f"{lineage.ROOT_TAG} and {lineage.SEAL_TAG} are this dossier's"
    )


def artifacts_in_mlflow(case: VerificationContext) -> Check:
    """Check the files of the MLflow run."""
    name = "artifacts in MLflow"
    if away := _home(case, name):
        return away
    from megu.tracking import lineage

    recorded = case.dossier.tracked.artifacts
    assert case.connected is not None
    with lineage.run_files(case.connected, case.dossier.run.mlflow_run_id) as folder:
        if folder is None:
            return Check(name, None, "they are gone")
        found = {path: digest for path, digest in lineage.hashes(folder).items() if not path.startswith(f"{lineage.FOLDER}/")}
    return _files(case, name, recorded, found, f"{len(set(recorded) & set(found))} files are unchanged")


def _files(case: VerificationContext, name: str, recorded: Mapping[str, str], found: Mapping[str, str], said: str) -> Check:
    wrong = [f"{path} has changed" for path, digest in recorded.items() if path in found and found[path] != digest]
    wrong += [f"{path} was added" for path in found if path not in recorded]
    gone = {path: case.erased(digest) for path, digest in recorded.items() if path not in found}
    missing = [f"{path} is gone" for path, by in gone.items() if by is None]
    return case.without_erased(name, wrong, missing, [by for by in gone.values() if by is not None], said)


def model_version(case: VerificationContext) -> Check:
    """Check the registered version: what the registry says about it, and each of its files, including the weights."""
    name, recorded = "model version", case.dossier.tracked.version
    if recorded is None:
        return Check(name, True, "none was registered")
    if away := _home(case, name):
        return away
    from megu.tracking import lineage
    from megu.tracking.versions import DIGEST_TAG, WEIGHTS

    assert case.connected is not None
    found = lineage.version_facts(case.connected, recorded["name"], recorded["version"])
    if found is None:
        by = case.erasures.version(recorded["name"], recorded["version"]) if case.erasures else None
        which = f"models:/{recorded['name']}/{recorded['version']}"
        return case.without_erased(name, [], [] if by else [f"{which} is gone"], [by] if by else [], which)
    plain = [key for key in recorded if key not in ("tags", "files")]
    wrong = differences({key: recorded[key] for key in plain}, {key: found[key] for key in plain})
    wrong += [f"tag {text}" for text in differences(recorded["tags"], found["tags"], more=False)]
    later = sorted(set(found["tags"]) - set(recorded["tags"]))
    with lineage.version_files(case.connected, recorded["source"]) as folder:
        if folder is None:
            return summed(name, wrong, ["its files are gone"], "")
        files = lineage.hashes(folder)
        added = set(files) - set(recorded["files"])
        caches, odd = lineage.compiled(folder, added)
        noted = added & lineage.noted(folder, recorded["name"], recorded["version"])
    if not files.get(WEIGHTS) == recorded["tags"].get(DIGEST_TAG) == case.dossier.models.unlearned:
        wrong.append("its weights are not the unlearned model's")
    wrong += [f"{path} is not what its source compiles to" for path in odd]
    plain_files = {path: digest for path, digest in files.items() if path not in caches | noted}
    checked = _files(case, name, recorded["files"], plain_files, f"{len(recorded['files'])} files")
    said = f"models:/{recorded['name']}/{recorded['version']}: {checked.says}, weights {case.dossier.models.unlearned[:16]}…"
    said += f"; tags added since: {', '.join(later)}" if later else ""
    found_wrong, gone = ([checked.says] if checked.holds is state else [] for state in (False, None))
    return summed(name, wrong + found_wrong, gone, said)


def alias(case: VerificationContext) -> Check:
    """Check the alias that the run assigned: still this version's, or moved on by a later recorded run."""
    name, recorded, given = "alias", case.dossier.tracked.version, case.dossier.tracked.alias
    if recorded is None or given is None:
        return Check(name, True, "none was given")
    if away := _home(case, name):
        return away
    from megu.tracking import lineage

    assert case.connected is not None
    now = lineage.aliases(case.connected, recorded["name"])
    later = [entry for entry in _newer(case) if entry.tracked.alias == given and entry.tracked.version is not None]
    latest = later[0] if later else case.dossier
    wanted = (latest.tracked.version or {})["version"]
    if now.get(given) != wanted:
        by = "" if not later else f", which run {latest.run.mlflow_run_id} gave it"
        where = f"version {now[given]}" if given in now else "no version"
        return Check(name, False, f"{given} is at {where}, not at version {wanted}{by}")
    if wrong := _champion(case, now, recorded):
        return Check(name, False, wrong)
    others = sorted(found for found, number in now.items() if number == recorded["version"] and found != given)
    by_us = _standing(case, recorded["name"]).version is not None
    outside = [found for found in others if not (by_us and found in (CHAMPION, PREVIOUS))]
    more = "".join(f"; also {found}" for found in others if found not in outside)
    more += f"; also {', '.join(outside)}, given outside of the recorded runs" if outside else ""
    moved = "" if not later else f" (moved on by run {latest.run.mlflow_run_id})"
    return Check(name, True, f"{given} is at version {wanted}{moved}{more}")


def _standing(case: VerificationContext, name: str) -> Status:
    return status(case.project.ledger.events(name, "champion.")) if case.project else Status()


def _champion(case: VerificationContext, now: Mapping[str, str], recorded: Mapping[str, JSON]) -> str | None:
    """Return what is wrong when this version is the champion only in MLflow or only in the ledger, and no move is under way."""
    at = _standing(case, str(recorded["name"]))
    if at.version is None or at.intent is not None or now.get(CHAMPION) == at.version:
        return None
    if recorded["version"] not in (at.version, now.get(CHAMPION)):
        return None
    return f"{CHAMPION} is at version {now.get(CHAMPION, 'none')}, and by the ledger at version {at.version}"


def chain_of_dossiers(case: VerificationContext) -> Check:
    """Check the chain of dossiers of the registered model: the one before this, and the path from the newest to this one."""
    name, recorded, before = "chain of dossiers", case.dossier.tracked.version, case.dossier.previous
    if recorded is None:
        return Check(name, True, "no registered model, so no chain")
    if away := _home(case, name):
        return away
    assert case.connected is not None
    wrong, missing = [], []
    if before is not None:
        copies = _mains_of(case, before.mlflow_run_id)
        if not copies or None in copies:
            missing.append(f"the dossier before it ({before.mlflow_run_id}) is gone")
        if any(sha256(content) != before.seal for content in copies if content is not None):
            wrong.append(f"the dossier before it ({before.mlflow_run_id}) has changed")
    newer = _newer(case)
    if broken := str(case.memo.get("broken", "")):
        wrong.append(broken)
    where = "the first" if before is None else f"after {before.seal[:16]}…"
    return summed(name, wrong, missing, f"{where}, {len(newer)} newer")


def _newer(case: VerificationContext) -> list[Dossier]:
    """Return the dossiers from the newest of the registered model back to this one, without this one, newest first."""
    if "newer" in case.memo:
        found: list[Dossier] = case.memo["newer"]
        return found
    from megu.tracking import lineage

    assert case.connected is not None
    assert case.dossier.tracked.version is not None
    name, newer = str(case.dossier.tracked.version["name"]), list[Dossier]()
    step = lineage.head(case.connected, name)
    while True:
        if step is None:
            case.memo["broken"] = f"the chain of {name} does not lead to this dossier"
            break
        run_id, seal = step
        if run_id == case.dossier.run.mlflow_run_id:
            if seal != sha256(case.opened.content):
                case.memo["broken"] = f"the chain of {name} has another dossier of this run"
            break
        content = next((copy for copy in _mains_of(case, run_id) if copy is not None), None)
        if content is None or sha256(content) != seal:
            case.memo["broken"] = (
                f"in the chain of {name} the dossier of run {run_id} is {'gone' if content is None else 'another'}"
            )
            break
        newer.append(folder_of.parse(content, MAIN))
        step = (newer[-1].previous.mlflow_run_id, newer[-1].previous.seal) if newer[-1].previous else None
    case.memo["newer"] = newer
    return newer


def _mains_of(case: VerificationContext, run_id: str) -> list[bytes | None]:
    """Return the copies of another run's ``dossier.json``, in its folder and in MLflow; None for one that is gone from its place.

    A folder that is not here at all belongs to another project.
    """
    from megu.tracking import lineage

    assert case.project is not None
    assert case.connected is not None
    copies = [_read(case.project.dossiers / run_id)] if (case.project.dossiers / run_id).is_dir() else []
    if lineage.run_facts(case.connected, run_id) is not None:
        with lineage.run_files(case.connected, run_id) as folder:
            copies.append(_read(folder / lineage.FOLDER) if folder else None)
    return copies


def _read(folder: Path) -> bytes | None:
    return (folder / MAIN).read_bytes() if (folder / MAIN).is_file() else None


ALL = (run_in_mlflow, seal_in_mlflow, artifacts_in_mlflow, model_version, alias, chain_of_dossiers)
