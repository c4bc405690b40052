"""W3C PROV in its JSON form (https://www.w3.org/submissions/prov-json/): data, files and model are entities, stages are activities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from megu.lineage.dossier import Dossier
from megu.lineage.export.common import JSON, began, computed, dvc_digest, ended, iso, model, pretty
from megu.lineage.reading import Found
from megu.lineage.record import Record

if TYPE_CHECKING:
    from megu.lineage.keys import Ed25519PrivateKey

FILE = "prov.json"
PREFIXES = {
    "megu": "urn:megu:",
    "sha256": "urn:megu:sha256:",
    "record": "urn:megu:record:",
    "result": "urn:megu:result:",
    "dvc": "urn:megu:dvc:",
    "model": "urn:megu:model:",
    "run": "urn:megu:run:",
    "key": "urn:megu:key:",
}


def export(found: Found, key: Ed25519PrivateKey | None) -> Mapping[str, bytes]:
    return {FILE: pretty(document(found))}


def document(found: Found) -> JSON:
    """Return the PROV document of a dossier."""
    dossier, records = found.dossier, {record.label: record for record in found.records}
    made = {"megu": _agent("prov:SoftwareAgent", f"megu {dossier.environment['version.megu']}")}
    if dossier.labeler:
        made["labeler"] = _agent("prov:SoftwareAgent", f"{dossier.labeler['name']} ({dossier.labeler['kind']})")
    entities, generated, used = dict[str, JSON](), list[JSON](), list[JSON]()
    activities = {_activity(record): _stage(record) for record in records.values()}
    for record in records.values():
        for name, described in outputs(record, dossier).items():
            entities.setdefault(name, described)
            time = iso(computed(record)[1])
            generated.append({"prov:entity": name, "prov:activity": _activity(record), "prov:time": time})
        used += [
            {"prov:activity": _activity(record), "prov:entity": name}
            for label in record.parents
            for name in outputs(records[label], dossier)
        ]
    run = f"run:{dossier.run.mlflow_run_id}"
    activities[run] = {
        "prov:label": dossier.run.name,
        "prov:startTime": iso(began(dossier)),
        "prov:endTime": iso(ended(dossier)),
        "megu:root": dossier.root,
        "megu:method": str(dossier.method["name"]),
        "megu:verdict": dossier.evidence.verdict,
        "megu:claim": dossier.claim.level,
        "megu:commit": dossier.environment["git.commit"],
    }
    seal = f"sha256:{found.seal.seal}"
    entities[seal] = _entity("Dossier", "dossier.json")
    generated.append({"prov:entity": seal, "prov:activity": run, "prov:time": iso(ended(dossier))})
    unlearned, original = f"sha256:{dossier.models.unlearned}", f"sha256:{dossier.models.original}"
    derived, attributed = [{"prov:generatedEntity": unlearned, "prov:usedEntity": original}], list[JSON]()
    if registered := model(dossier):
        version = f"model:{registered[0]}-{registered[1]}"
        entities[version] = _entity("ModelVersion", f"models:/{registered[0]}/{registered[1]}")
        derived.append({"prov:generatedEntity": version, "prov:usedEntity": unlearned})
    if dossier.previous:
        before = f"sha256:{dossier.previous.seal}"
        entities[before] = _entity("Dossier", "the dossier before this one")
        derived.append({"prov:generatedEntity": seal, "prov:usedEntity": before})
    if found.seal.public:
        made[f"key:{found.seal.public}"] = {"prov:label": "the holder of the signing key"}
        attributed.append({"prov:entity": seal, "prov:agent": f"key:{found.seal.public}"})
    associated = [{"prov:activity": name, "prov:agent": "megu:megu"} for name in activities]
    if "labeling" in records and dossier.labeler:
        associated.append({"prov:activity": _activity(records["labeling"]), "prov:agent": "megu:labeler"})
    informed = [
        {"prov:informed": run, "prov:informant": _activity(record)}
        for record in records.values()
        if record.label in ("unlearn", "evaluation")
    ]
    relations = {
        "wasGeneratedBy": generated,
        "used": used,
        "wasDerivedFrom": derived,
        "wasAttributedTo": attributed,
        "wasAssociatedWith": associated,
        "wasInformedBy": informed,
    }
    return {
        "prefix": PREFIXES,
        "entity": entities,
        "activity": activities,
        "agent": {name if ":" in name else f"megu:{name}": agent for name, agent in made.items()},
        **{kind: _numbered(kind, entries) for kind, entries in relations.items() if entries},
    }


def outputs(record: Record, dossier: Dossier) -> dict[str, JSON]:
    """Return the outputs of a stage as entities: the data set, files, or its values alone."""
    if record.stage == "dataset":
        return {f"dvc:{dvc_digest(dossier)}": _entity("DataSet", dossier.data.name)}
    files = {f"sha256:{ref.sha256}": _entity("File", f"{record.label}/{name}") for name, ref in record.refs.items()}
    return files or {f"result:{record.result_digest}": _entity("Values", record.label)}


def _stage(record: Record) -> JSON:
    begin, end = computed(record)
    return {
        "prov:label": record.label,
        "prov:startTime": iso(begin),
        "prov:endTime": iso(end),
        "megu:cacheKey": record.key,
        "megu:kept": {"$": str(bool(record.circumstances["cached"])).lower(), "type": "xsd:boolean"},
    }


def _activity(record: Record) -> str:
    return f"record:{record.digest}"


def _entity(kind: str, label: str) -> JSON:
    return {"prov:label": label, "prov:type": {"$": f"megu:{kind}", "type": "prov:QUALIFIED_NAME"}}


def _agent(kind: str, label: str) -> JSON:
    return {"prov:label": label, "prov:type": {"$": kind, "type": "prov:QUALIFIED_NAME"}}


def _numbered(kind: str, entries: list[JSON]) -> JSON:
    """Return relations that have no name of their own, named as blank nodes."""
    return {f"_:{kind}{number}": entry for number, entry in enumerate(entries, 1)}
