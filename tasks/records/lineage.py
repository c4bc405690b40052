"""The evidence of a finished run: its records, and the signed dossier. Never cached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import task

from megu.config.tree import Config
from megu.core.files.locks import file_lock
from megu.core.files.store import sha256_file, without_nan
from megu.core.progress import stages
from megu.core.project import Project
from megu.core.stages import Result
from megu.data import dvc, pins
from megu.data.arrays import Ids
from megu.data.writing import atomic_folder
from megu.evaluation.gate import provided_retrain, without_retrain
from megu.evaluation.summary import Rung
from megu.evaluation.text import headline
from megu.lineage import dossier as folder_of
from megu.lineage import indexing
from megu.lineage import record as records_of
from megu.lineage.commitments import SIZE, commit, commit_all, fingerprint, redact_parts
from megu.lineage.dossier import Dossier, sha256
from megu.lineage.keys import Keys
from megu.lineage.record import Record
from megu.lineage.verify import versioned
from megu.tracking import Run
from megu.tracking import lineage as tracked
from megu.tracking.environment import environment
from megu.unlearning.methods import lookup
from tasks.run import cached, inputs
from tasks.run.engine import Executor, Ran


def records(project: Project, executor: Executor, origins: Mapping[str, str]) -> list[Record]:
    """Return one record for each stage, in the order they ran. origins: the MLflow run in which each cached result was computed, by
    label."""
    key = secret(project)
    made: dict[str, Record] = {}
    for ran in executor.ran:
        label = ran.decision.label
        made[label] = records_of.build(
            label,
            ran.decision.key,
            ran.result,
            [made[parent] for parent in ran.parents],
            circumstances(ran, origins.get(label)),
            key,
        )
    return list(made.values())


def secret(project: Project) -> bytes:
    """Return the key of the project's commitments; create it if there is none."""
    key = Keys(project.keys).commitment_key(create=True)
    assert key is not None
    return key


def circumstances(ran: Ran, origin_run: str | None) -> dict[str, Any]:
    """Return what varies from run to run. origin: where and when it was computed, on what code and machine."""
    return {
        "cached": ran.decision.hit,
        "seconds": ran.seconds,
        "seconds_computed": ran.result.seconds,
        "notes": without_nan(ran.result.notes),
        "origin": dict(ran.result.origin),
        "origin_run": origin_run,
    }


@task(
    name="seal",
    task_run_name="sign the dossier",
    description="Write, sign and log the dossier of the run",
    persist_result=False,
)
def seal(
    project: Project,
    config: Config,
    run: Run,
    executor: Executor,
    chained: list[Record],
    words: str,
    version: str | None,
    artifacts: Mapping[str, str],
    gate: folder_of.Gate,
    ladder: Sequence[Rung],
) -> Path:
    """version: what was registered (``models:/name/3``). artifacts: SHA-256 of each artifact of the MLflow run. ladder: the rungs up
    to it."""
    signing, key = inputs.signing_key(project, config), secret(project)
    results = {ran.decision.label: ran.result for ran in executor.ran}
    ids, positions = cached.dataset(project, results["dataset"]).train.ids, cached.forget_split(project, results["split"])
    forgotten = commit_all(key, (bytes(value) for value in ids[positions.forget]))
    lines = records_of.to_lines(chained)
    name, _, number = (version or "").removeprefix("models:/").rpartition("/")
    # Two runs that end together would both chain to the same dossier.
    with file_lock(project.home / "lineage.lock"):
        head = tracked.head(run.client, name) if version else None
        dossier = Dossier(
            format=folder_of.FORMAT,
            root=records_of.root(chained),
            files={folder_of.RECORDS: sha256(lines), folder_of.FORGOTTEN: sha256(forgotten)},
            run=run_facts(run),
            request=request(config, words, key),
            scope=scope(project, results, ids, positions, forgotten, key),
            data=data_facts(project, results),
            models=models(results),
            labeler=results["labeling"].values["labeler"] if "labeling" in results else None,
            method=method(config),
            parameters=parameters(config, key),
            environment=environment(project.root),
            device=device(config, project),
            seeds=seeds(config),
            evidence=evidence(config, words, results["evaluation"], gate),
            claim=folder_of.claim(
                config.unlearn.method,
                results["original"].stage == "given",
                config.train.pretrained,
                provided_retrain(results["evaluation"].values),
                without_retrain(results["evaluation"].values),
            ),
            results={label: sha256_file(project.results / ran.decision.key) for label, ran in by_label(executor).items()},
            previous=folder_of.Previous(mlflow_run_id=head[0], seal=head[1]) if head else None,
            tracked=folder_of.Tracked(
                run=mlflow_now(run),
                artifacts=dict(artifacts),
                version=registered(run, name, number) if version else None,
                alias=config.registry.alias if version else None,
            ),
            ladder=list(ladder),
        )
        files = folder_of.sealed(dossier, lines, forgotten, signing)
        run.artifacts(files, tracked.FOLDER)
        with atomic_folder(project.dossiers / run.id) as folder:
            for file, content in files.items():
                (folder / file).write_bytes(content)
        sealed = sha256(files[folder_of.MAIN])
        run.log(tags={tracked.ROOT_TAG: dossier.root, tracked.SEAL_TAG: sealed})
        if version:
            tracked.set_head(run.client, name, run.id, sealed)
        indexing.add(project, dossier, sealed, forgotten)
    stages().note(f"dossier {project.relative(project.dossiers / run.id)}, {'signed' if signing else 'unsigned'}")
    return project.dossiers / run.id


def by_label(executor: Executor) -> dict[str, Ran]:
    return {ran.decision.label: ran for ran in executor.ran}


def run_facts(run: Run) -> folder_of.RunFacts:
    facts = tracked.run_facts(run.client, run.id) or {}
    return folder_of.RunFacts(
        mlflow_run_id=run.id,
        experiment=str(facts["experiment_id"]),
        name=str(facts["name"]),
        prefect_flow_run_id=str(facts["tags"].get("prefect.flow_run_id", "")),
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
    )


def request(config: Config, words: str, key: bytes) -> dict[str, Any]:
    return {"words": words, **parameters(config, key)["forget"]}


def parameters(config: Config, key: bytes) -> dict[str, Any]:
    """Return the whole configuration, with commitments instead of sample ids and names."""
    values = config.to_json()
    forget = {f"forget.{name}": value for name, value in values["forget"].items()}
    return {**values, "forget": {name.removeprefix("forget."): value for name, value in redact_parts(forget, key).items()}}


def scope(
    project: Project, results: Mapping[str, Result], ids: Ids, positions: Any, forgotten: bytes, key: bytes
) -> folder_of.Scope:
    split = results["split"]
    through_dvc = bool(split.notes["through_dvc"])
    return folder_of.Scope(
        scenario=split.values["scenario"],
        **{group: len(getattr(positions, group)) for group in ("forget", "retain", "test_forget", "test_retain")},
        split=split.files["positions"].sha256,
        through_dvc=through_dvc,
        dvc=dvc.locked_outs(project.root, "split").outs["splits"].md5 if through_dvc else None,
        locked=versioned.locked_request(project.root / "dvc.lock", key) if through_dvc else None,
        key=fingerprint(key),
        commitments=len(forgotten) // SIZE,
        retained=commit(key, b"".join(sorted(bytes(value) for value in ids[positions.retain]))).hex(),
    )


def data_facts(project: Project, results: Mapping[str, Result]) -> folder_of.DataFacts:
    data = results["dataset"]
    name = str(data.values["name"])
    found = pins.hash_dir(project.data(name), project.root)
    entry = versioned.entry_of(project.root, name)
    watched = [
        file for file, counts in zip(versioned.FILES, (entry, results["split"].notes["through_dvc"]), strict=True) if counts
    ]
    return folder_of.DataFacts(
        name=name,
        dvc_hash=data.values["dvc_hash"],
        size=found.size,
        nfiles=found.nfiles,
        source=data.values["source"],
        licence=data.values["licence"],
        train=data.notes["train_images"],
        test=data.notes["test_images"],
        pin=entry,
        files={file: sha256_file(project.root / file) for file in watched},
    )


def models(results: Mapping[str, Result]) -> folder_of.ModelFacts:
    before, after = results["original"], results["unlearn"]
    return folder_of.ModelFacts(
        original=before.files["weights"].sha256,
        original_digest=before.values["weights_digest"],
        given=before.stage == "given",
        unlearned=after.files["weights"].sha256,
        unlearned_digest=after.values["weights_digest"],
    )


def method(config: Config) -> dict[str, Any]:
    found = lookup(config.unlearn.method)
    return {"name": config.unlearn.method, "title": found.title, "paper": found.paper}


def device(config: Config, project: Project) -> dict[str, str]:
    import torch

    from megu.core.device import resolve

    found = resolve(config.device)
    name = torch.cuda.get_device_name(found) if found.type == "cuda" else environment(project.root)["cpu"]
    return {"asked": config.device, "class": found.type, "name": name}


def seeds(config: Config) -> dict[str, int]:
    return {"run": config.seed, "labeling": config.labeling.params.seed, "retrains": trained_here(config)}


def trained_here(config: Config) -> int:
    """Return how many retrains the run trains."""
    return config.reference.repeats if config.reference.enabled and not config.reference.provided else 0


def evidence(config: Config, words: str, evaluation: Result, gate: folder_of.Gate) -> folder_of.Evidence:
    values, failures = dict(evaluation.values), [rule.reason for rule in gate.rules if rule.holds is False]
    count, given = trained_here(config), provided_retrain(values)
    seeded = f"seed {config.seed}" if count == 1 else f"seeds {config.seed} to {config.seed + count - 1}"
    start = "the same pretrained" if config.train.pretrained else "fresh"
    return folder_of.Evidence(
        evaluation=values,
        thresholds=asdict(config.gate),
        reference=f"true retrain from {start} weights on the retain set, {seeded}"
        if count
        else folder_of.describe_provided_retrain(given)
        if given
        else "no retrain reference",
        verdict=headline(words, values, failures),
        failures=failures,
        gate=gate,
    )


def mlflow_now(run: Run) -> dict[str, Any]:
    """Return the MLflow run in its present state; "FINISHED" is what it will be."""
    return {**(tracked.run_facts(run.client, run.id) or {}), "status": "FINISHED"}


def registered(run: Run, name: str, version: str) -> dict[str, Any] | None:
    facts = tracked.version_facts(run.client, name, version)
    if facts is None:
        return None
    with tracked.version_files(run.client, facts["source"]) as folder:
        return {**facts, "files": tracked.hashes(folder) if folder else {}}
