"""What a run leaves behind: its MLflow run, its Prefect artifacts, its page, its registered model. Never cached.

A stage whose result was cached did not run, so nothing may be logged from inside a stage; a run that computed nothing still leaves
all of this, with the run that each result came from.

One file because it is one record, written in this order.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from prefect import task
from prefect.artifacts import create_image_artifact, create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run

from megu import report, tracking
from megu.config.tree import Config
from megu.core.escaping import markdown, plain
from megu.core.files.store import canonical_json, writing
from megu.core.progress import stages
from megu.core.project import Project
from megu.core.stages import Device, Result
from megu.data.images.duplicates import copies_left
from megu.data.scope import RequestScope
from megu.evaluation import TEST_IMAGES
from megu.evaluation.gate import decide, provided_retrain
from megu.evaluation.summary import SPENT, StageSummary, Summary
from megu.lineage import graph
from megu.lineage.commitments import redact_parts
from megu.lineage.dossier import PRETRAINED, Gate, sha256
from megu.lineage.dossier import describe_provided_retrain as said_of_given
from megu.lineage.promoted.champions import CHAMPION
from megu.report.data import ReportData
from megu.servers import services
from megu.tracking import Run, charts, versions
from megu.tracking.environment import environment
from megu.tracking.lineage import FOLDER, aliases
from megu.unlearning.methods import METHODS, lookup
from tasks.prefect.arguments import as_is
from tasks.records import lineage
from tasks.run import cached
from tasks.run.engine import Executor, Finished, Ran

#: Default addresses of `megu up`, used in links while no server is running.
PREFECT_UI = "http://127.0.0.1:4200"
MLFLOW_UI = "http://127.0.0.1:5000"

#: Stages whose arrays are small enough to log to every MLflow run; the split of a request for single samples reveals which
#: they are, and stays in the project.
LOGGED = ("split", "entanglement", "labeling", "transition", "perturbing", "noise", "evaluation")


def prefect_url(project: Project) -> str:
    """Return the flow run's page."""
    base = services.endpoints(project.home).prefect_ui or PREFECT_UI
    return f"{base}/runs/flow-run/{flow_run.get_id()}"


def begin(project: Project, config: Config, tags: Mapping[str, str] | None = None) -> Run:
    """Start the MLflow run, tagged with the request, the Prefect flow run and the environment. tags: further ones."""
    words = describe_request(config)
    return Run.start(
        project.home,
        config.registry.name,
        f"forget {plain(words)}",
        {
            "request": plain(words),
            "prefect.flow_run_id": flow_run.get_id() or "",
            "prefect.flow_run_name": flow_run.get_name() or "",
            "prefect.flow_run_url": prefect_url(project),
            **environment(project.root),
            **(tags or {}),
        },
    )


def describe_request(config: Config) -> str:
    """Return what is to be forgotten, in a few words."""
    return str(RequestScope.of(vars(config.forget)))


def names_samples(config: Config) -> bool:
    """Whether the request names single samples."""
    return bool(config.forget.ids or config.forget.files)


@task(
    name="record-mlflow",
    task_run_name="record in MLflow",
    description="Log parameters, metrics and artifacts to the MLflow run",
    persist_result=False,
)
def record_mlflow(
    project: Project, config: Config, run: Run, executor: Executor, summary: Summary, page: str, origins: Mapping[str, str]
) -> dict[str, str]:
    """origins: see `reused_from`. Return the SHA-256 of each artifact, by name."""
    results, secret = {ran.decision.label: ran.result for ran in executor.ran}, lineage.secret(project)
    data, split, evaluation = results["dataset"], results["split"], results["evaluation"]
    values = evaluation.values
    metrics = charts.models(
        values["unlearned"]["metrics"],
        values["original"]["metrics"],
        values.get("reference", {}).get("metrics", {}),
        values.get("comparison", {}),
        values.get("spread"),
    )
    metrics |= {f"{charts.SECONDS}/{stage.name}": stage.seconds for stage in summary.stages}
    metrics |= {f"{charts.COMPUTED}/{stage.name}": stage.computed_seconds for stage in summary.stages}
    metrics |= {
        f"{charts.MEMORY}/{stage.name}": float(stage.peak_memory_bytes)
        for stage in summary.stages
        if stage.peak_memory_bytes is not None
    }
    metrics[f"{charts.COST}/cached_stages"] = float(sum(stage.hit for stage in summary.stages))
    if summary.time_share is not None:
        metrics[f"{charts.COST}/time_share"] = summary.time_share
    if summary.pass_share is not None:
        metrics[f"{charts.COST}/pass_share"] = summary.pass_share
    labeler = results["labeling"].values["labeler"] if "labeling" in results else None
    run.log(
        params=tracking.flat(lineage.parameters(config, secret)) | ({"labeler": labeler["kind"]} if labeler else {}),
        metrics=metrics,
        tags={
            "dvc.data": data.values["dvc_hash"],
            "split.sha256": split.files["positions"].sha256,
            **({"gate": summary.gate.decision} if summary.gate else {}),
            "Af.on": "test images"
            if summary.af_on == "test"
            else "forgotten training images (there are no test images of them)",
            "split.through_dvc": str(split.notes["through_dvc"]).lower(),
            **labeler_tags(config, results.get("labeling")),
            **{f"origin_run_id.{label}": origin for label, origin in origins.items()},
            **({"origin_run_id": Counter(origins.values()).most_common(1)[0][0]} if origins else {}),
            "mlflow.note.content": f"{report.summary_markdown(summary)}\n\n[Prefect flow run]({prefect_url(project)})",
        },
    )
    if summary.model_version:
        versions.describe(run.client, summary.model_version, run.id, version_card(project, run, summary))
    run.dataset(data.values["name"], data.values["dvc_hash"], data.values["source"], "training")
    contents = {f"figures/{name}.png": content for name, content in figures(project, results["figures"]).items()}
    contents["report.html"] = page.encode()
    contents["summary.json"] = canonical_json(summary.to_json())
    contents["config.json"] = canonical_json(lineage.parameters(config, secret))
    contents["stages.json"] = canonical_json(
        {
            ran.decision.label: {
                "key": ran.decision.key,
                **ran.result.to_json(),
                "parts": redact_parts(ran.result.parts, secret),
            }
            for ran in executor.ran
        }
    )
    contents["evaluation.json"] = canonical_json(dict(evaluation.values))
    for label in (label for label in LOGGED if label in results and not (label == "split" and names_samples(config))):
        for name, ref in results[label].files.items():
            contents[f"{label}/{name}.{ref.kind}"] = project.store.checked(ref).read_bytes()
    run.artifacts(contents)
    return {name: sha256(content) for name, content in contents.items()}


def version_card(project: Project, run: Run, summary: Summary) -> str:
    """Return what the registry shows for a version, in Markdown: its figures, the gate's verdict, and links to report and dossier."""
    page = run.url(services.endpoints(project.home).mlflow) or run.url(MLFLOW_UI)
    links = f"[Report]({page}/artifacts/report.html), [dossier]({page}/artifacts/{FOLDER}), [run]({page})"
    verdict = f"Gate: {summary.gate.decision}. " if summary.gate else ""
    evidence = f"\n\n{verdict}`megu verify {run.id}` checks the evidence. {links}"
    return report.summary_markdown(summary)[: versions.DESCRIBED - len(evidence)] + evidence


def labeler_tags(config: Config, labeling: Result | None) -> dict[str, str]:
    """Return which labeler made the labels, the same for a run and a model version. Empty if the method needed none."""
    if labeling is None:
        return {}
    labeler = labeling.values["labeler"]
    return {
        "labeler.kind": config.labeling.kind,
        "labeler.name": labeler["name"],
        "labeler.digest": labeler["digest"],
        "labeler.in_words": labeler["kind"],
    }


def reused_from(run: Run, executor: Finished) -> dict[str, str]:
    """Return the MLflow run in which each cached result was computed, by stage.

    Data set and split are made before their run has an MLflow run, so theirs is found by its Prefect flow run.
    """
    kept_here = {ran.decision.label: ran.result.origin for ran in executor.ran if ran.decision.hit}
    known = {origin["flow_run_id"]: origin["mlflow_run_id"] for origin in kept_here.values() if origin.get("mlflow_run_id")}
    found = {}
    for label, origin in kept_here.items():
        flow = origin["flow_run_id"]
        if flow not in known:
            known[flow] = run.with_tag("prefect.flow_run_id", flow) or ""
        if known[flow]:
            found[label] = known[flow]
    return found


@task(
    name="record-prefect",
    task_run_name="record in Prefect",
    description="Leave the main figures and a link to the MLflow run as Prefect artifacts",
    persist_result=False,
)
def record_prefect(project: Project, run: Run, summary: Summary, pictures: Mapping[str, bytes], graph: str) -> None:
    """graph: the lineage as Mermaid."""
    link = run.url(services.endpoints(project.home).mlflow) or run.url(MLFLOW_UI)
    create_markdown_artifact(
        f"{report.summary_markdown(summary)}\n\n[MLflow run]({link})", key="unlearning", description=markdown(summary.headline)
    )
    columns = f"Original, unlearned and {report.retrain_title(summary.given_reference)}"
    create_table_artifact(report.summary_rows(summary), key="unlearning-metrics", description=columns)
    for name in ("per-class-accuracy", "transition"):
        if name in pictures:
            picture = base64.b64encode(pictures[name]).decode()
            create_image_artifact(
                f"data:image/png;base64,{picture}", key=f"unlearning-{name}", description=name.replace("-", " ")
            )
    create_markdown_artifact(
        f"```mermaid\n{graph}\n```", key="unlearning-lineage", description="From the data to the model version"
    )
    create_link_artifact(
        str(link), link_text="MLflow run", key="unlearning-mlflow-run", description="Every artifact and metric of this run"
    )


@task(
    name="register",
    task_run_name="register the model",
    description="Make the unlearned model a version of the registered model",
    persist_result=False,
)
def register(
    project: Project,
    config: Config,
    run: Run,
    data: Result,
    labeling: Result | None,
    unlearned: Result,
    tags: Mapping[str, str] | None = None,
) -> str:
    import numpy as np

    from megu.tracking import registry

    loaded = cached.dataset(project, data)
    version = registry.register(
        run,
        project.store.checked(unlearned.files["weights"]),
        registry.Serving(loaded.classes, loaded.mean, loaded.std),
        np.asarray(loaded.test.images[:3]),
        name=config.registry.name,
        alias=config.registry.alias,
        tags={
            "request": plain(describe_request(config)),
            "dataset": loaded.name,
            "dvc.data": data.values["dvc_hash"],
            "method": config.unlearn.method,
            **labeler_tags(config, labeling),
            **(tags or {}),
        },
        params=tracking.flat(lineage.parameters(config, lineage.secret(project))),
    )
    stages().note(f"{'registered' if version.new else 'already registered:'} {version} as {config.registry.alias}")
    return str(version)


def figures(project: Project, result: Result) -> dict[str, bytes]:
    """Return the pictures by name, in the order of the page."""
    return {name: project.store.checked(ref).read_bytes() for name, ref in result.files.items()}


def summarise(config: Config, executor: Executor, run: Run, project: Project) -> Summary:
    """Return all results of a run, except the time and the registered version, which are not known yet."""
    values = executor["evaluation"].result.values
    comparison = values.get("comparison", {})
    reference = values.get("reference")
    live = services.endpoints(project.home)
    champion = aliases(run.client, config.registry.name).get(CHAMPION) if config.registry.enabled else None
    verdict = decide(values, config.gate, champion=champion)
    return Summary(
        headline=report.headline(describe_request(config), values, verdict.failures),
        stages=[stage_summary(ran) for ran in executor.ran],
        metrics=values["unlearned"]["metrics"],
        original=values["original"]["metrics"],
        reference=reference["metrics"] if reference else None,
        spread=values.get("spread", {}),
        comparison=comparison,
        gap=comparison.get("gap"),
        af_on=values["Af_on"],
        advice=way_out(config.unlearn.method) if verdict.still_remembered else "",
        gate=verdict,
        champion=champion,
        time_share=share(executor, "compute_seconds"),
        pass_share=share(executor, "passes"),
        mlflow_run_id=run.id,
        mlflow_url=run.url(live.mlflow),
        prefect_flow_run_id=flow_run.get_id() or "",
        prefect_url=prefect_url(project) if live.prefect_ui else None,
        caveats=[
            f"{said[0].upper()}{said[1:]}."
            for said in [*caveats(config, values), *shown(executor["figures"].result.values["retained copies"])]
        ],
        given_reference=provided_retrain(values),
    )


def caveats(config: Config, evaluation: Mapping[str, Any]) -> list[str]:
    """Return what was declared and cannot be checked here, and what the metrics leave out."""
    given = provided_retrain(evaluation)
    return [
        *([PRETRAINED] if config.train.pretrained else []),
        *([said_of_given(given)] if given else []),
        *left_out(evaluation.get(TEST_IMAGES, {})),
    ]


def left_out(images: Mapping[str, int]) -> list[str]:
    """Return how many test images are left out of every metric; empty if there are none."""
    if not images.get("calibration"):
        return []
    return [f"every metric uses {images['measured']:,} test images: the other {images['calibration']:,} calibrate the method"]


def shown(copies: int) -> list[str]:
    """Return what to do about remaining copies of forgotten images; empty if there are none."""
    return [f"{copies_left(copies)}: the report shows them, forget.near_duplicates=include forgets them too"] if copies else []


def way_out(method: str) -> str:
    """Return what to try if a method has not forgotten: its own parameters, another method, and the one that forgets for certain."""
    harder, others = lookup(method).harder, [name for name in METHODS if name not in (method, "retrain")]
    later = [*METHODS][[*METHODS].index(method) + 1 :] if method in METHODS else []
    following = next((name for name in later if name in others), others[0])
    own = f"{harder} (--set); " if harder else ""
    return (
        f"To forget more: {own}or use the next method, --set unlearn.method={following}; `megu bench FILE` compares them on your data, "
        "and unlearn.method=retrain forgets exactly, at the cost of a training."
    )


def stage_summary(ran: Ran) -> StageSummary:
    decision = ran.decision
    return StageSummary(
        decision.label,
        decision.hit,
        ran.seconds,
        ran.result.seconds,
        decision.why,
        decision.stage.says(ran.result),
        ran.result.notes.get("peak_memory_bytes"),
    )


def share(executor: Finished, note: str) -> float | None:
    """Return the cost of the unlearning (its noise, if any, and itself) in percent of the first retrain's, each when it was computed;
    None without a retrain. note: "compute_seconds", or "passes": images through the network forward and backward.
    """
    references = [ran for ran in executor.ran if ran.decision.stage.name == "reference"]
    if not references:
        return None
    return float(100 * spent(executor, note) / references[0].result.notes[note])


def spent(executor: Finished, note: str) -> float:
    """Return the sum of a note over the method's own stages."""
    return float(sum(ran.result.notes[note] for ran in executor.ran if ran.decision.stage.name in SPENT))


def publish(project: Project, config: Config, run: Run, executor: Executor, summary: Summary) -> Summary:
    """Write the page, log everything to MLflow and to Prefect, sign the dossier; return the summary with the page's path.

    The page is that of the latest run, where a person finds it; every run has its own in MLflow.
    """
    path = project.root / "results" / "report.html"
    summary = replace(summary, report=project.relative(path))
    origins = reused_from(run, executor)
    records = lineage.records(project, executor, origins)
    drawn = graph.mermaid(records, summary.model_version)
    forms = {"as text": graph.text(records, summary.model_version), "Mermaid": drawn}
    parameters = lineage.parameters(config, lineage.secret(project))
    content = page(project, config, executor, summary, run, forms, parameters)
    with writing(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
        temporary.chmod(0o644)
    done, pictures = executor.edges, figures(project, executor["figures"].result)
    logged = record_mlflow(project, as_is(config), run, as_is(executor), as_is(summary), as_is(content), origins, wait_for=done)
    record_prefect(project, run, as_is(summary), as_is(pictures), drawn, wait_for=done)
    words, said = describe_request(config), summary.gate
    assert said is not None
    gate = Gate(champion=summary.champion, decision=said.decision, rules=said.rules)
    version, climbed = summary.model_version, summary.ladder
    sealed = lineage.seal(
        project, as_is(config), run, as_is(executor), as_is(records), words, version, logged, gate, climbed, wait_for=done
    )
    return replace(summary, dossier=project.relative(sealed))


def labeler_facts(labeling: Result, request: Sequence[str]) -> dict[str, str]:
    """Return which labeler scored the similarity and, for one that queries a model, the outcome. request: the classes whose reasons
    are shown, if it gave any."""
    labeler, record = labeling.values["labeler"], labeling.notes.get("record")
    facts = {name: labeler[name] for name in ("kind", "name", "version", "digest")}
    if not record:
        return facts
    from megu.labeling.ollama.labeler import scoring_lines

    sane = ", ".join(f"{name} {value:.2f}" for name, value in record["sanity"].items() if value is not None)
    return facts | {
        "questions": f"{record['asked']:,} asked, {record['answered']:,} answered, {record['abstained']:,} abstained, "
        f"{record['retried']:,} retried; {record['seconds']:,.0f} s, {record['prompt_tokens'] + record['tokens']:,} tokens",
        **{("scores" if not at else f"scores ({at + 1})"): line for at, line in enumerate(scoring_lines(record["scoring"]))},
        "sanity": sane + (f" (overridden: {', '.join(record['overridden'])})" if record["overridden"] else ""),
        **{f"{name}, in its words": "; ".join(said) for name, said in record.get("because", {}).items() if name in request},
    }


def page(
    project: Project,
    config: Config,
    executor: Executor,
    summary: Summary,
    run: Run,
    lineage: Mapping[str, str],
    parameters: Mapping[str, Any],
) -> str:
    """Return the self-contained report of this run. lineage: its graph, by format. parameters: the configuration, without sample ids."""
    results = {ran.decision.label: ran.result for ran in executor.ran}
    live = services.endpoints(project.home)
    facts = environment(project.root)
    data, split, method = results["dataset"], results["split"], lookup(config.unlearn.method)
    content = ReportData(
        title=f"Forgetting {describe_request(config)}",
        summary=summary,
        entanglement=results["entanglement"].values,
        facts={
            "Data": {
                "data set": data.values["name"],
                "DVC hash": data.values["dvc_hash"],
                "obtained from": data.notes["provider"],
                "source": data.values["source"],
                "licence": data.values["licence"],
                "forget set": f"{split.notes['forget']:,} training images, {split.values['scenario']} request",
                "retain set": f"{split.notes['retain']:,} training images",
                "split": f"{split.files['positions'].sha256[:16]}…",
                "split pinned": "in dvc.lock"
                if split.notes["through_dvc"]
                else "no: params.yaml specifies another, or has names without quotes",
            },
            "Method": {"name": config.unlearn.method, "what it does": method.title, "paper": method.paper},
            **({"Labeler": labeler_facts(results["labeling"], config.forget.classes)} if "labeling" in results else {}),
            "Models": {
                name: ran.result.values["weights_digest"]
                for name, ran in ((r.decision.label, r) for r in executor.ran)
                if "weights_digest" in ran.result.values
            },
            "Machine": {
                "device": Device.of(config.device, config.deterministic),
                "seed": str(config.seed),
                **{key: facts[key] for key in ("cpu", "cpus", "threads", "platform")},
            },
            "Code": {"commit": facts["git.commit"], "uncommitted changes": facts["git.dirty"], "python": facts["python"]}
            | {key.removeprefix("version."): value for key, value in facts.items() if key.startswith("version.")},
        },
        params=parameters,
        lineage=lineage,
        links={
            "MLflow run": run.url(live.mlflow) or run.url(MLFLOW_UI) or run.id,
            "Prefect flow run": prefect_url(project),
            **({"registered model": summary.model_version} if summary.model_version else {}),
        },
    )
    return report.render(content, figures(project, results["figures"]))
