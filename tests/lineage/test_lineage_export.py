"""Each export is what its published schema asks for, and says what the dossier says."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from enum import Enum
from importlib.resources import files
from typing import Any, Union, get_args, get_origin, get_type_hints

import dossier_fixtures as made
import pytest
from cryptography.exceptions import InvalidSignature

from megu.core.errors import MeguError
from megu.lineage.export import EXPORTERS, card, exported, intoto, openlineage, prov

#: The name that OpenLineage gives to a facet in an event -> its class in the client, which is generated from the schemas.
FACETS = {
    "parent": "parent_run.ParentRunFacet",
    "processing_engine": "processing_engine_run.ProcessingEngineRunFacet",
    "executionParameters": "execution_parameters_run.ExecutionParametersRunFacet",
    "tags": "tags_run.TagsRunFacet",
    "jobType": "job_type_job.JobTypeJobFacet",
    "documentation": "documentation_job.DocumentationJobFacet",
    "version": "dataset_version_dataset.DatasetVersionDatasetFacet",
    "dataSource": "datasource_dataset.DatasourceDatasetFacet",
    "outputStatistics": "output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet",
}


def test_every_form_is_made_and_another_is_refused() -> None:
    found = made.found()
    every = exported(found, "all", made.SIGNING)
    assert set(every) == {openlineage.FILE, prov.FILE, intoto.FILE, intoto.ENVELOPE, card.FILE}
    assert every == {name: content for form in EXPORTERS for name, content in exported(found, form, made.SIGNING).items()}
    assert every == exported(found, "all", made.SIGNING)
    with pytest.raises(
        MeguError, match="there is no export rdf: --format is one of openlineage, prov, intoto, model-card, all"
    ):
        exported(found, "rdf", None)


def strict(kind: Any, value: Any) -> Any:
    """An object of a generated OpenLineage class from JSON: an unknown field, one that is missing, a wrong type is an error."""
    if get_origin(kind) in (Union, type(int | None)):
        options = [option for option in get_args(kind) if option is not type(None)]
        return None if value is None else strict(options[0], value)
    if get_origin(kind) is list:
        return [strict(get_args(kind)[0], entry) for entry in value]
    if get_origin(kind) is dict:
        return {name: facet(name, entry) for name, entry in value.items()}
    if not hasattr(kind, "__attrs_attrs__"):
        if issubclass(kind, Enum):
            return kind(value)
        assert isinstance(value, kind), f"{value!r} is no {kind.__name__}"
        return value
    hints = get_type_hints(kind)
    fixed = {"schemaURL", "_schemaURL"} & set(value)
    assert all(value[name] == kind._get_schema() for name in fixed)
    arguments = {name: strict(hints[name], entry) for name, entry in value.items() if name not in fixed}
    return kind(**{name.lstrip("_"): entry for name, entry in arguments.items()})


def facet(name: str, value: Any) -> Any:
    import importlib

    module, _, kind = FACETS[name].partition(".")
    assert {"_producer", "_schemaURL"} <= set(value)
    return strict(getattr(importlib.import_module(f"openlineage.client.generated.{module}"), kind), value)


def test_openlineage_events_are_those_of_the_published_schema() -> None:
    from openlineage.client.event_v2 import RunEvent

    found = made.found()
    lines = exported(found, "openlineage", None)[openlineage.FILE].splitlines()
    events = [strict(RunEvent, json.loads(line)) for line in lines]
    assert len(events) == 2 * (1 + len(found.records))
    broken = json.loads(lines[0])
    for change in ({"more": 1}, {"job": {"namespace": "megu"}}, {"eventTime": "today"}, {"run": {"runId": "7"}}):
        with pytest.raises((TypeError, ValueError, KeyError)):
            strict(RunEvent, {**broken, **change})


def test_openlineage_starts_before_it_ends_and_leads_from_data_to_model() -> None:
    found = made.found()
    events = list(openlineage.events(found))
    runs: dict[str, list[Any]] = {}
    for event in events:
        runs.setdefault(event["run"]["runId"], []).append(event)
    for start, complete in runs.values():
        assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
        assert datetime.fromisoformat(start["eventTime"]) <= datetime.fromisoformat(complete["eventTime"])
    whole = events[-1]
    assert [entry["name"] for entry in whole["inputs"]] == ["photos"]
    assert [entry["namespace"] for entry in whole["outputs"]] == ["sha256", "mlflow"]
    outputs = {(entry["namespace"], entry["name"]) for event in events for entry in event["outputs"]}
    unlearn = next(event for event in events if event["job"]["name"] == "unlearn.unlearn")
    assert {(entry["namespace"], entry["name"]) for entry in unlearn["inputs"]} <= outputs
    assert openlineage.run_id(made.RUN) == "01234567-89ab-cdef-0123-456789abcdef"


def test_prov_is_what_the_published_schema_asks_for() -> None:
    import jsonschema
    from prov.model import ProvDocument

    schema = json.loads((files("prov") / "tests" / "schemas" / "prov-json.schema.json").read_text())
    assert schema["description"].startswith("Schema for a PROV-JSON document")
    content = exported(made.found(), "prov", None)[prov.FILE]
    jsonschema.validate(json.loads(content), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(content), "more": {}}, schema)
    read = ProvDocument.deserialize(content=content.decode(), format="json")
    assert len(read.get_records()) == sum(len(part) for name, part in json.loads(content).items() if name != "prefix")


def test_prov_leads_from_the_version_back_to_the_data() -> None:
    said = prov.document(made.found())
    derived = {entry["prov:generatedEntity"]: entry["prov:usedEntity"] for entry in said["wasDerivedFrom"].values()}
    weights = derived["model:megu-2"]
    assert derived[weights] == f"sha256:{made.dossier().models.original}"
    makes = {entry["prov:entity"]: entry["prov:activity"] for entry in said["wasGeneratedBy"].values()}
    uses: dict[str, set[str]] = {}
    for entry in said["used"].values():
        uses.setdefault(entry["prov:activity"], set()).add(entry["prov:entity"])
    assert "dvc:" + "d" * 32 in uses[makes[weights]]
    named = set(said["entity"]) | set(said["activity"]) | set(said["agent"])
    ends = {
        value for kind, part in said.items() if kind[0].islower() and kind not in ("prefix", "entity", "activity", "agent")
        for entry in part.values() for key, value in entry.items() if key != "prov:time"
    }  # fmt: skip
    assert ends <= named


def test_the_statement_is_in_totos_and_its_predicate_slsas() -> None:
    from google.protobuf.json_format import ParseDict, ParseError
    from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    said = json.loads(exported(made.found(), "intoto", None)[intoto.FILE])
    Statement.copy_from_pb(ParseDict(said, statement_pb2.Statement())).validate()
    provenance = ParseDict(said["predicate"], Provenance())
    assert provenance.run_details.builder.id == "pkg:generic/megu@1.0"
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    assert said["subject"][0]["digest"]["sha256"] == made.dossier().models.unlearned
    with pytest.raises(ParseError):
        ParseDict({**said["predicate"], "more": 1}, Provenance())
    assert intoto.ENVELOPE not in exported(made.found(), "intoto", None)


def test_the_envelope_is_signed_over_dsses_encoding() -> None:
    assert intoto.encoded(b"hello") == b"DSSEv1 28 application/vnd.in-toto+json 5 hello"
    said = json.loads(exported(made.found(), "intoto", made.SIGNING)[intoto.ENVELOPE])
    payload, signature = base64.b64decode(said["payload"]), base64.b64decode(said["signatures"][0]["sig"])
    assert json.loads(payload) == intoto.statement(made.found())
    made.SIGNING.public_key().verify(signature, intoto.encoded(payload))
    with pytest.raises(InvalidSignature):
        made.SIGNING.public_key().verify(signature, intoto.encoded(payload + b" "))
    assert said["signatures"][0]["keyid"] == made.SIGNING.public_key().public_bytes_raw().hex()


def test_the_card_is_read_by_the_hubs_own_library() -> None:
    from huggingface_hub import ModelCard

    found = made.found()
    read = ModelCard(exported(found, "model-card", None)[card.FILE].decode(), ignore_metadata_errors=False)
    assert read.data.pipeline_tag == "image-classification"
    assert "machine-unlearning" in read.data.tags
    values = {result.metric_name: result.metric_value for result in read.data.eval_results}
    assert values == {"Ar: retained, test": 91.3, "Af: forgotten, test": 0.0, "whole test set": 82.2, "forgotten, train": 0.0}
    assert {result.dataset_revision for result in read.data.eval_results} == {found.dossier.data.dvc_hash}
    assert "| Af: forgotten, test | 97.0% | 0.0% | 0.0% |" in read.text
    assert all(limit in read.text for limit in found.dossier.claim.limits)


def test_the_card_says_where_there_were_no_test_images_and_what_part_of_the_data_was_used() -> None:
    judged = {**made.evaluation(), "Af_on": "train"}
    found = made.found(evidence={"evaluation": judged}, parameters={"data": {"per_class": 50}})
    measured = card.metadata(found)["model-index"][0]["results"][0]["metrics"]
    assert [(entry["name"], entry["args"]) for entry in measured if entry["name"].startswith("Af")] == [
        ("Af: forgotten, train (no test)", {"split": "train"})
    ]
    text = card.card(found)
    assert "| Af: forgotten, train (no test) | 97.0% |" in text
    assert "Per class, at most 50 training images were used (`data.per_class`)" in text
    assert "Af: forgotten, test" not in text


def test_without_a_registered_version_a_labeler_or_a_retrain_each_form_is_still_made() -> None:
    judged = made.evaluation(reference=False)
    bare = made.found(
        signed=False,
        labeler=None,
        previous=None,
        tracked={"version": None, "alias": None},
        evidence={"evaluation": judged, "failures": [], "verdict": "x", "reference": "no retrain reference"},
        environment={"git.commit": "unknown"},
    )
    assert b"no retrain reference" in exported(bare, "all", None)[card.FILE]
    assert "model:" not in "".join(prov.document(bare)["entity"])
    assert [entry["name"] for entry in intoto.statement(bare)["subject"]] == ["unlearned/weights.safetensors"]


def test_no_export_names_a_sample() -> None:
    hidden = ["a" * 32, "b" * 32]
    assert not [
        name
        for name, content in exported(made.found(), "all", made.SIGNING).items()
        for sample in hidden
        if sample.encode() in content
    ]
