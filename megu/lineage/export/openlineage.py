"""OpenLineage 2-0-2: a start and a completion for the run and for each stage, one event per line (https://openlineage.io/spec).

A stage's run is the computation that made its result, so a result that two runs share is one OpenLineage run, and sending its events
again changes nothing. All facets are from the specification; one of our own would need a schema at a public address.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from megu.core.files.store import canonical_json
from megu.lineage.dossier import Dossier
from megu.lineage.export.common import JSON, began, computed, ended, iso, model, producer, settings
from megu.lineage.reading import Found
from megu.lineage.record import Record

if TYPE_CHECKING:
    from megu.lineage.keys import Ed25519PrivateKey

FILE = "openlineage.ndjson"
_EVENT = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
#: Facet -> the version of its published schema.
_FACETS = {
    "DatasetVersionDatasetFacet": "1-0-1",
    "DatasourceDatasetFacet": "1-0-1",
    "DocumentationJobFacet": "1-1-0",
    "ExecutionParametersRunFacet": "1-0-0",
    "JobTypeJobFacet": "2-0-4",
    "OutputStatisticsOutputDatasetFacet": "1-0-2",
    "ParentRunFacet": "1-2-0",
    "ProcessingEngineRunFacet": "1-1-1",
    "TagsRunFacet": "1-0-0",
}


def export(found: Found, key: Ed25519PrivateKey | None) -> Mapping[str, bytes]:
    """Return the events as lines of JSON, as a file transport writes them."""
    return {FILE: b"".join(canonical_json(event) + b"\n" for event in events(found))}


def events(found: Found) -> Iterator[JSON]:
    """Yield the events: the run begins, each stage begins and ends, the run ends."""
    dossier, records = found.dossier, {record.label: record for record in found.records}
    whole = _Maker(dossier).whole(found)
    yield {**whole, "eventType": "START", "eventTime": iso(began(dossier))}
    for record in records.values():
        yield from _Maker(dossier).stage(record, [records[label] for label in record.parents])
    yield {**whole, "eventType": "COMPLETE", "eventTime": iso(ended(dossier))}


class _Maker:
    """Builds the parts of a dossier's events."""

    def __init__(self, dossier: Dossier) -> None:
        self.dossier = dossier
        self.producer = producer(dossier)
        self.namespace = f"megu/{(model(dossier) or ('unregistered', ''))[0]}"

    def facet(self, kind: str, **values: JSON) -> JSON:
        schema = f"https://openlineage.io/spec/facets/{_FACETS[kind]}/{kind}.json#/$defs/{kind}"
        return {"_producer": self.producer, "_schemaURL": schema, **values}

    def tags(self, **values: str) -> JSON:
        entries = [{"key": name.replace("_", "."), "value": value, "source": "megu"} for name, value in values.items()]
        return self.facet("TagsRunFacet", tags=entries)

    def whole(self, found: Found) -> JSON:
        """Return the run itself: from the data set to the model version."""
        dossier, registered = self.dossier, model(self.dossier)
        weights = self.stored(dossier.models.unlearned, "safetensors")
        version = (
            self.dataset("mlflow", registered[0], registered[1], f"models:/{registered[0]}/{registered[1]}")
            if registered
            else None
        )
        return {
            "producer": self.producer,
            "schemaURL": _EVENT,
            "run": {
                "runId": run_id(dossier.run.mlflow_run_id),
                "facets": {
                    "processing_engine": self.facet(
                        "ProcessingEngineRunFacet", name="Prefect", version=dossier.environment["version.prefect"]
                    ),
                    "executionParameters": self.parameters(dossier.parameters["unlearn"]),
                    "tags": self.tags(
                        lineage_root=dossier.root,
                        lineage_seal=found.seal.seal,
                        claim=dossier.claim.level,
                        verdict=dossier.evidence.verdict,
                        git_commit=dossier.environment["git.commit"],
                    ),
                },
            },
            "job": self.job("unlearn", str(dossier.method["title"])),
            "inputs": [self.data()],
            "outputs": [weights, *([version] if version else [])],
        }

    def stage(self, record: Record, parents: list[Record]) -> Iterator[JSON]:
        begin, end = computed(record)
        origin = record.circumstances["origin"]
        parent = origin.get("mlflow_run_id") or record.circumstances["origin_run"] or self.dossier.run.mlflow_run_id
        event = {
            "producer": self.producer,
            "schemaURL": _EVENT,
            "run": {
                "runId": run_id(origin["flow_run_id"], record.key),
                "facets": {
                    "parent": self.facet(
                        "ParentRunFacet",
                        run={"runId": run_id(str(parent))},
                        job={"namespace": self.namespace, "name": "unlearn"},
                    ),
                    "executionParameters": self.parameters(settings(record)),
                    "tags": self.tags(
                        record=record.digest,
                        cache_key=record.key,
                        git_commit=str(origin.get("git.commit", "unknown")),
                    ),
                },
            },
            "job": self.job(f"unlearn.{record.stage}", f"the stage {record.stage}"),
            "inputs": [entry for parent in parents for entry in self.made(parent)],
        }
        yield {**event, "eventType": "START", "eventTime": iso(begin), "outputs": []}
        yield {**event, "eventType": "COMPLETE", "eventTime": iso(end), "outputs": self.made(record, sizes=True)}

    def made(self, record: Record, *, sizes: bool = False) -> list[JSON]:
        """Return the outputs of a stage: the data set, files, or values alone."""
        if record.stage == "dataset":
            return [self.data()]
        files = [self.stored(ref.sha256, ref.kind, ref.size if sizes else None) for ref in record.refs.values()]
        return files or [self.dataset("megu-result", record.result_digest, record.result_digest)]

    def data(self) -> JSON:
        facts = self.dossier.data
        return self.dataset("dvc", facts.name, facts.dvc_hash, f"dvc:data/{facts.name}")

    def stored(self, digest: str, kind: str, size: int | None = None) -> JSON:
        entry = self.dataset("sha256", f"{digest}.{kind}", digest)
        if size is not None:
            entry["outputFacets"] = {
                "outputStatistics": self.facet("OutputStatisticsOutputDatasetFacet", size=size, fileCount=1)
            }
        return entry

    def dataset(self, namespace: str, name: str, version: str, uri: str | None = None) -> JSON:
        facets = {"version": self.facet("DatasetVersionDatasetFacet", datasetVersion=version)}
        if uri:
            facets["dataSource"] = self.facet("DatasourceDatasetFacet", name=namespace, uri=uri)
        return {"namespace": namespace, "name": name, "facets": facets}

    def job(self, name: str, description: str) -> JSON:
        return {
            "namespace": self.namespace,
            "name": name,
            "facets": {
                "jobType": self.facet("JobTypeJobFacet", processingType="BATCH", integration="MEGU", jobType="TASK"),
                "documentation": self.facet("DocumentationJobFacet", description=description),
            },
        }

    def parameters(self, values: Mapping[str, JSON]) -> JSON:
        entries = [{"key": name, "value": canonical_json(value).decode()} for name, value in sorted(values.items())]
        return self.facet("ExecutionParametersRunFacet", parameters=entries)


def run_id(*names: str) -> str:
    """Return a UUID: the run's own where it has one (32 hex characters), else one derived from the names, the same each time."""
    if len(names) == 1:
        with contextlib.suppress(ValueError):
            return str(uuid.UUID(names[0]))
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "megu:" + "/".join(names)))
