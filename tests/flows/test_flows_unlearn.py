"""The real flow on a small real slice: real Prefect, real MLflow, real DVC."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lineage_fixtures import slice_of

from megu.core import sources
from megu.core.errors import MeguError
from megu.core.project import Project
from megu.core.stages import Stage
from megu.data import arrays, dvc
from megu.data.arrays import Dataset
from megu.evaluation.summary import Summary
from megu.lineage.verify.context import Opened, VerificationContext

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server"), pytest.mark.xdist_group("flow")]

REPOSITORY = Path(__file__).resolve().parents[2]
PARAMS = """
seed: 0
device: cpu
data: {name: slice}
forget: {scenario: class, classes: [Sneaker]}
train: {epochs: 1, batch_size: 64}
labeling: {exemplars: 3, references: 5, image_size: 64}
noise: {per_label: 2, steps: 3}
unlearn: {steps: 10, lr: 0.01, batch_size: 64, retain_samples: 400}
"""
STAGES = [
    "dataset", "split", "original", "predict original", "entanglement", "labeling", "transition", "perturbing", "noise",
    "unlearn", "predict unlearned", "reference", "predict reference", "evaluation", "duplicates", "figures",
]  # fmt: skip
Go = Callable[..., Summary]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, fashion_mnist: Dataset) -> Project:
    root = tmp_path_factory.mktemp("project")
    slice_of(fashion_mnist, root, train=60, test=20)
    (root / "params.yaml").write_text(PARAMS)
    shutil.copyfile(REPOSITORY / "dvc.yaml", root / "dvc.yaml")
    return Project(root)


@pytest.fixture(scope="module")
def environment(project: Project) -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEGU_PROJECT", str(project.root))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield patch


@pytest.fixture(scope="module")
def go(project: Project, environment: pytest.MonkeyPatch) -> Go:
    def run(*settings: str) -> Summary:
        from flows.unlearn import unlearn

        summary: Summary = unlearn(settings=list(settings))
        return summary

    return run


@pytest.fixture(scope="module")
def first(go: Go, sketched: Callable[..., dict[str, bytes]]) -> Summary:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("megu.report.figures.draw", sketched)
        return go()


def cache(summary: Summary) -> dict[str, bool]:
    return {stage.name: stage.hit for stage in summary.stages}


def mlflow_run(project: Project, summary: Summary) -> Any:
    from megu.tracking import client

    return client(project.home).get_run(summary.mlflow_run_id)


def artifacts(project: Project, summary: Summary) -> Path:
    folder = mlflow_run(project, summary).info.artifact_uri.removeprefix("file://")
    return Path(folder)


def test_the_first_run_computes_every_stage(first: Summary) -> None:
    assert cache(first) == dict.fromkeys(STAGES, False)
    assert set(first.metrics) >= {"Ar", "Af", "MIA", "Ar_train", "Af_train", "test_accuracy"}
    assert first.reference is not None
    assert first.gap is not None
    assert first.time_share is not None
    assert first.time_share > 0
    assert first.pass_share is not None
    assert first.pass_share > 0
    assert any("calibrate the method" in caveat for caveat in first.caveats), "what no metric is of"
    json.loads(json.dumps(first.to_json(), allow_nan=False))


def test_the_mlflow_run_is_complete(project: Project, first: Summary) -> None:
    run = mlflow_run(project, first)
    assert run.info.status == "FINISHED"
    assert run.data.params["unlearn.alpha"] == "0.7"
    assert run.data.params["seed"] == "0"
    assert run.data.metrics["forgotten/Af"] == first.metrics["Af"]
    assert run.data.metrics["reference/Ar"] == first.reference["Ar"]  # type: ignore[index]
    assert {f"seconds/{name}" for name in STAGES} <= set(run.data.metrics)
    held = {name.partition("/")[2] for name in run.data.metrics if name.startswith("peak_memory_bytes/")}
    assert held == {"original", "noise", "unlearn", "reference"}
    assert all(run.data.metrics[f"peak_memory_bytes/{name}"] > 1e7 for name in held)
    for tag in ("git.commit", "git.dirty", "version.torch", "prefect.flow_run_url", "dvc.data", "labeler.digest", "cpu"):
        assert run.data.tags[tag], tag
    assert first.prefect_flow_run_id in run.data.tags["mlflow.note.content"]
    assert run.data.tags["prefect.flow_run_name"] == "forget Sneaker"
    assert run.inputs.dataset_inputs[0].dataset.digest == run.data.tags["dvc.data"]
    found = {
        str(path.relative_to(artifacts(project, first))) for path in artifacts(project, first).rglob("*") if path.is_file()
    }
    assert {
        "report.html",
        "summary.json",
        "stages.json",
        "figures/transition.png",
        "transition/transition.safetensors",
    } <= found


def test_nothing_kept_is_a_pickle(project: Project, first: Summary) -> None:
    suspects = [
        path for path in project.home.rglob("*") if path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".joblib", ".bin")
    ]
    assert suspects == []


def test_prefect_has_the_artifacts_and_the_links_go_both_ways(first: Summary) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    with get_client(sync_client=True) as client:
        run_id = ArtifactFilterFlowRunId(any_=[first.prefect_flow_run_id])  # type: ignore[list-item]
        found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=run_id))
    kinds = {artifact.type for artifact in found}
    assert {"markdown", "table", "image"} <= kinds
    assert any(first.mlflow_run_id in str(artifact.data) and artifact.key == "unlearning-mlflow-run" for artifact in found)


def test_the_page_needs_no_network(project: Project, first: Summary) -> None:
    page = (project.root / first.report).read_text()
    assert page == (artifacts(project, first) / "report.html").read_text()
    assert 'src="http' not in page
    assert "<link" not in page
    assert page.count("data:image/png;base64,") == 7


def test_the_challenger_predicts_what_the_weights_do(project: Project, first: Summary) -> None:
    import mlflow
    import torch

    from megu.data.tensors import ImageSet
    from megu.tracking import client
    from megu.training.loop import predict
    from megu.training.weights import load_model

    connected = client(project.home)
    version = connected.get_model_version_by_alias("megu", "challenger")
    assert first.model_version == f"models:/megu/{version.version}"
    for part in ("Sneaker", "Gate: ", f"megu verify {first.mlflow_run_id}", "/artifacts/report.html", "/artifacts/dossier"):
        assert part in version.description
    served = mlflow.pyfunc.load_model("models:/megu@challenger")
    assert served.metadata.signature is not None
    assert served.input_example is not None
    dataset = arrays.load(project.data("slice"))
    images = np.asarray(dataset.test.images[:40])
    folder = Path(mlflow.artifacts.download_artifacts("models:/megu@challenger"))
    model, _ = load_model(next(folder.rglob("weights.safetensors")))
    asked = ImageSet.from_partition(dataset.test, dataset.mean, dataset.std, torch.device("cpu"), np.arange(40))
    expected = torch.softmax(predict(model, asked).logits, dim=1).numpy()
    np.testing.assert_array_equal(served.predict(images), expected)


def test_dvc_is_clean_and_has_the_split(project: Project, first: Summary) -> None:
    assert dvc.status(project.root) == {}
    assert dvc.locked_outs(project.root, "split").current


def test_the_second_run_computes_nothing_and_is_as_complete(project: Project, first: Summary, go: Go) -> None:
    second = go()
    assert cache(second) == dict.fromkeys(STAGES, True)
    assert second.metrics == first.metrics
    assert second.model_version == first.model_version
    one, two = mlflow_run(project, first), mlflow_run(project, second)
    assert one.info.run_id != two.info.run_id
    assert set(one.data.metrics) == set(two.data.metrics)
    assert two.data.tags["origin_run_id"] == one.info.run_id
    assert {two.data.tags[f"origin_run_id.{name}"] for name in STAGES} == {one.info.run_id}
    names = [{path.name for path in artifacts(project, summary).rglob("*")} for summary in (first, second)]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("setting", "rerun"),
    [
        ("unlearn.alpha=0.6", ["unlearn", "predict unlearned", "evaluation", "figures"]),
        ("reference.enabled=false", ["evaluation", "figures"]),
        ("registry.alias=other", []),
    ],
)
def test_a_parameter_reruns_what_depends_on_it(
    project: Project, first: Summary, go: Go, setting: str, rerun: list[str]
) -> None:
    from flows.unlearn import plan
    from megu.config import tree as config

    planned = {decision.label: decision for decision in plan(project, config.load(project.params, [setting]))}
    summary = go(setting)
    missed = [name for name, hit in cache(summary).items() if not hit]
    assert missed == rerun
    assert [name for name, decision in planned.items() if not decision.hit] == rerun
    if setting == "unlearn.alpha=0.6":
        assert planned["unlearn"].why == "params.alpha was 0.7, is 0.6"


def test_without_noise_none_is_made(first: Summary, go: Go) -> None:
    summary = go("unlearn.noise_share=0")
    assert list(cache(summary)) == [name for name in STAGES if name != "noise"]
    assert [name for name, hit in cache(summary).items() if not hit] == [
        "unlearn",
        "predict unlearned",
        "evaluation",
        "figures",
    ]
    assert summary.time_share is not None


def test_a_method_that_needs_no_labeler_runs_none(project: Project, first: Summary, go: Go) -> None:
    """Its time share is its own alone; its page has the figures that there are and says what took the time."""
    from megu.evaluation.text import conclusions

    summary = go("unlearn={method: finetune, epochs: 1, batch_size: 64}")
    spared = {"labeling", "transition", "perturbing", "noise"}
    assert list(cache(summary)) == [name for name in STAGES if name not in spared]
    seconds = {stage.name: stage.computed_seconds for stage in summary.stages}
    assert summary.time_share == pytest.approx(100 * seconds["unlearn"] / seconds["reference"], rel=0.5)
    assert any(line.startswith("Unlearning took ") for line in conclusions(summary))
    page = (project.root / summary.report).read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "Golatkar" in page
    assert "Labeler" not in page
    run = mlflow_run(project, summary)
    assert run.info.status == "FINISHED"
    assert run.data.params["unlearn.method"] == "finetune"
    assert "labeler.digest" not in run.data.tags
    again = go("unlearn={method: finetune, epochs: 1, batch_size: 64}", "noise.steps=4", "labeling.seed=7")
    assert set(cache(again).values()) == {True}, "what it does not need does not rerun it"


def test_retraining_as_a_method_is_the_reference(project: Project, first: Summary, go: Go) -> None:
    from tasks.reference import REFERENCE
    from tasks.run.engine import cached_results
    from tasks.unlearn import UNLEARN

    summary = go("unlearn={method: retrain}")
    assert summary.gap == 0
    newest = [cached_results(project, stage)[0].values["weights_digest"] for stage in (UNLEARN, REFERENCE)]
    assert newest[0] == newest[1]


def test_a_changed_method_reruns_itself_alone(
    project: Project, first: Summary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.unlearn import plan
    from megu.config import tree as config

    copy = tmp_path / "copy"
    for package in sources.PACKAGES:
        shutil.copytree(sources.ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    file = copy / "megu" / "unlearning" / "methods" / "baselines" / "scrub.py"
    file.write_text(file.read_text().replace("return plan", "return list(plan)"))
    registry = copy / "megu" / "unlearning" / "methods" / "__init__.py"
    registry.write_text(registry.read_text().replace('"baselines.delete",', '"baselines.delete", "ascent",'))
    monkeypatch.setattr(sources, "ROOT", copy)
    assert all(decision.hit for decision in plan(project, config.load(project.params)))


def test_a_changed_helper_reruns_the_stage_that_uses_it(
    project: Project, first: Summary, go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.unlearn import plan
    from megu.config import tree as config

    copy = tmp_path / "copy"
    for package in sources.PACKAGES:
        shutil.copytree(sources.ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    helper = copy / "megu" / "unlearning" / "labels" / "transition.py"
    text = helper.read_text()
    assert "scaled = S / S.max" in text
    helper.write_text(text.replace("scaled = S / S.max", "scaled = 1.0 * S / S.max"))
    monkeypatch.setattr(sources, "ROOT", copy)
    planned = {decision.label: decision for decision in plan(project, config.load(project.params))}
    assert planned["transition"].why == "code megu.unlearning.labels.transition changed"
    assert planned["labeling"].hit
    assert planned["perturbing"].why == "waits for transition"
    missed = [name for name, hit in cache(go()).items() if not hit]
    assert missed == ["transition"], "the same matrix came out, so nothing after it had to run"


def test_a_given_model_takes_the_place_of_training(project: Project, first: Summary, go: Go) -> None:
    weights = next(
        path for path in (project.home / "store").rglob("*.safetensors") if first.metrics and is_original(project, path)
    )
    shutil.copyfile(weights, project.root / "mine.safetensors")
    by_file = go("original.weights=mine.safetensors")
    assert by_file.original == first.original
    assert not cache(by_file)["original"]
    assert cache(by_file)["unlearn"] is False, "another stage gave the model, so its history differs"
    assert by_file.metrics == first.metrics
    by_name = go("original.model=models:/megu@challenger", "reference.enabled=false")
    assert by_name.original["Af"] == first.metrics["Af"]


def weights_of(project: Project, stage: Stage, name: str) -> Path:
    """The newest model that a stage made, as a file in the project."""
    from tasks.run.engine import cached_results

    kept = project.store.checked(cached_results(project, stage)[0].files["weights"])
    return Path(shutil.copyfile(kept, project.root / name))


def test_a_given_retrain_takes_the_place_of_training_one_and_is_called_that(project: Project, first: Summary, go: Go) -> None:
    from flows.unlearn import plan
    from megu.config import tree as config
    from megu.lineage.reading import dossier_of
    from megu.lineage.verify import checks
    from megu.lineage.verify.run import verify
    from tasks.reference import REFERENCE

    setting = f"reference.weights={weights_of(project, REFERENCE, 'retrain.safetensors').name}"
    made = go(setting)
    assert made.reference == first.reference, "the same retrain, from a file"
    assert [name for name, hit in cache(made).items() if not hit] == ["reference", "predict reference", "evaluation", "figures"]
    assert all(decision.hit for decision in plan(project, config.load(project.params, [setting])))
    assert made.time_share is None, "how long its training took is not known here"
    assert "(given retrain " in made.headline
    said = f"The retrain was given (weights SHA-256 {made.given_reference}), not trained here"
    assert any(caveat.startswith(said) for caveat in made.caveats)
    assert said in (project.root / made.report).read_text()

    found = dossier_of(made.mlflow_run_id, project)
    assert found.dossier.seeds["retrains"] == 0
    assert found.dossier.evidence.reference.startswith(said.replace("The", "the"))
    assert found.dossier.evidence.reference in found.dossier.claim.limits
    held = {check.name: check.holds for check in verify(made.mlflow_run_id, project, replay=True).checks}
    assert {name: held[name] for name in ("chain", "facts", "verdict", "files", "metrics again")} == dict.fromkeys(
        ("chain", "facts", "verdict", "files", "metrics again"), True
    )

    trained_here = dataclasses.replace(found.dossier.evidence, evaluation={**found.dossier.evidence.evaluation})
    trained_here.evaluation["reference"] = {**trained_here.evaluation["reference"], "given": None}
    lied = dataclasses.replace(found.dossier, evidence=trained_here)
    case = VerificationContext(None, Opened(lied, b"", found.seal, found.records, b""), None, "", [])
    assert "given retrain is not what the records say" in checks.facts(case).says


def test_without_a_retrain_what_can_be_judged_is_and_it_is_never_a_pass(project: Project, first: Summary, go: Go) -> None:
    from megu.config import tree as config
    from megu.evaluation.gate import WITHOUT_RETRAIN
    from megu.lineage.dossier import NO_RETRAIN
    from megu.lineage.reading import dossier_of
    from megu.lineage.verify.run import verify
    from megu.promotion import moves as promotion

    lenient = [f"gate.{name}=100" for name in ("forget_margin", "retain_drop", "class_drop", "mia_band")]
    for settings in (lenient, ["forget.scenario=random", "forget.count=150", *lenient, "unlearn={method: ssd}"]):
        made = go("reference.enabled=false", *settings)
        assert made.gate is not None
        assert (made.gate.decision, made.gate.failures) == (WITHOUT_RETRAIN, [])
        assert "judged without a retrain" in made.headline
        assert 0 <= made.metrics["MIA_held_out"] <= 100
        assert made.original["entropy_held_out"] >= 0
        assert mlflow_run(project, made).data.tags["gate"] == WITHOUT_RETRAIN
        found = dossier_of(made.mlflow_run_id, project).dossier
        assert NO_RETRAIN in found.claim.limits
        held = {check.name: (check.holds, check.says) for check in verify(made.mlflow_run_id, project, replay=True).checks}
        assert [held[name][0] for name in ("chain", "facts", "verdict", "metrics again")] == [True] * 4, held
        assert held["verdict"][1].endswith(f"gate: {WITHOUT_RETRAIN}")
    rules = {rule.rule: rule.not_judged for rule in made.gate.rules}
    assert rules == {
        "evidence": False, "seeds": True, "forgotten, test": False, "forgotten, train": False, "retained, test": False,
        "each class, test": False, "MIA": False, "shadow attack": False,
    }  # fmt: skip
    asked = config.load(project.params, [*lenient, "promotion.policy=automatic"])
    candidate = promotion.inspect_candidate(project, asked)
    assert candidate.verdict.decision == WITHOUT_RETRAIN
    assert not promotion.automatic(asked, candidate)


def test_the_original_as_its_own_retrain_is_refused_before_there_is_a_run(project: Project, first: Summary, go: Go) -> None:
    from flows.unlearn import plan
    from megu.config import tree as config
    from tasks.original import TRAINED

    setting = f"reference.weights={weights_of(project, TRAINED, 'same.safetensors').name}"
    refused_without_a_run(project, go, setting, "reference.weights: same.safetensors is the original itself")
    with pytest.raises(MeguError, match="is the original itself"):
        plan(project, config.load(project.params, [setting]))


def is_original(project: Project, path: Path) -> bool:
    from tasks.original import TRAINED
    from tasks.run.engine import cached_results

    return path.stem == cached_results(project, TRAINED)[0].files["weights"].sha256


def test_the_same_seed_gives_the_same_bits(project: Project, first: Summary, go: Go) -> None:
    from tasks.original import TRAINED
    from tasks.run.engine import cached_results
    from tasks.unlearn import UNLEARN

    before = {
        stage.name: {result.values["weights_digest"] for result in cached_results(project, stage)}
        for stage in (TRAINED, UNLEARN)
    }
    for record in project.results.glob("original-*"):
        record.unlink()
    for record in project.results.glob("unlearn-*"):
        record.unlink()
    summary = go()
    assert not cache(summary)["original"]
    assert not cache(summary)["unlearn"]
    assert cache(summary)["predict original"], "the weights came out the same, so all after them was kept"
    assert cache(summary)["predict unlearned"]
    assert {result.values["weights_digest"] for result in cached_results(project, TRAINED)} == before["original"]
    assert {result.values["weights_digest"] for result in cached_results(project, UNLEARN)} <= before["unlearn"]


def test_an_interrupted_run_is_marked_and_the_next_goes_on(
    project: Project, first: Summary, go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    from megu.unlearning.methods import common

    def interrupt(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(common, "optimise", interrupt)
        with pytest.raises(KeyboardInterrupt):
            go("unlearn.alpha=0.55")
    from megu.tracking import client

    connected = client(project.home)
    experiment = connected.get_experiment_by_name("megu")
    last = connected.search_runs([experiment.experiment_id], max_results=1)[0]
    assert last.info.status == "KILLED"
    again = cache(go("unlearn.alpha=0.55"))
    assert [name for name, hit in again.items() if not hit] == ["unlearn", "predict unlearned", "evaluation", "figures"]


def test_shadows_and_relearning_are_measured_and_the_shadows_shared(project: Project, first: Summary, go: Go) -> None:
    more = ("evaluation.shadows=2", "evaluation.relearn=true", "evaluation.relearn_steps=3")
    more = (*more, "evaluation.deep=true", "evaluation.deep_steps=2")
    plain, summary = go(), go(*more)
    added = ["relearn unlearned", "relearn reference", "deep unlearned", "deep reference", "shadow 1", "shadow 2"]
    assert [name for name, hit in cache(summary).items() if not hit] == [*added, "evaluation", "figures"]
    assert summary.time_share == plain.time_share, "what is measured afterwards is not the method's time"
    assert summary.reference is not None
    for marks in (summary.metrics, summary.original, summary.reference):
        assert 0 <= marks["RMIA_AUC"] <= 1
        assert 0 <= marks["RMIA_TPR_01"] <= marks["RMIA_TPR_1"] <= 100
        assert marks["relearn_steps"] is None or 0 <= marks["relearn_steps"] <= 3
    assert summary.original["relearn_steps"] == 0
    for metric in ("probe", "relearn_retain", "relearn_few"):
        assert 0 <= summary.metrics[metric] <= 100
        assert 0 <= summary.reference[metric] <= 100
        assert metric not in summary.original
    assert summary.gate is not None
    assert {"probe", "relearned from the rest", "relearned from a few"} <= {rule.rule for rule in summary.gate.rules}
    assert {name: summary.metrics[name] for name in plain.metrics} == plain.metrics, "it changes nothing that was there"
    page = (project.root / summary.report).read_text()
    assert "shadow attack (RMIA): AUC" in page
    run = mlflow_run(project, summary)
    recorded = {"attack/RMIA_AUC", "original/RMIA_AUC", "reference/RMIA_AUC", "comparison/ToW", "attack/MIA_SVM"}
    assert recorded <= set(run.data.metrics)
    assert run.data.metrics["attack/RMIA_AUC"] == summary.metrics["RMIA_AUC"]

    other = cache(go(*more, "forget.classes=[Bag]", "unlearn={method: delete, epochs: 1}", "evaluation.relearn_steps=2"))
    assert other["shadow 1"]
    assert other["shadow 2"], "they know nothing of the request, the method or how long relearning may take"
    assert not other["reference"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("forget.classes=[Sneakr]", "no class 'Sneakr': did you mean 'Sneaker'"),
        ("original.weights=nowhere.safetensors", "no file nowhere.safetensors"),
        ("original.model=models:/nobody/1", "there is no models:/nobody/1"),
        ("reference.weights=nowhere.safetensors", "reference.weights: there is no file nowhere.safetensors"),
        ("reference.model=models:/nobody/1", "reference.model: there is no models:/nobody/1"),
        ("data.name=nothing-like-it", "nothing-like-it"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line_and_leaves_no_run(
    project: Project, first: Summary, go: Go, setting: str, said: str
) -> None:
    refused_without_a_run(project, go, setting, said)


def refused_without_a_run(project: Project, go: Go, setting: str, said: str) -> None:
    from megu.tracking import client

    connected = client(project.home)
    experiment = connected.get_experiment_by_name("megu")
    before = len(connected.search_runs([experiment.experiment_id]))
    with pytest.raises(MeguError) as caught:
        go(setting)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(connected.search_runs([experiment.experiment_id])) == before


def test_a_damaged_data_set_is_refused(project: Project, first: Summary, go: Go) -> None:
    path = project.data("slice") / "train_labels.npy"
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:-8])
        with pytest.raises(MeguError):
            go()
    finally:
        path.write_bytes(whole)
    assert cache(go()) == dict.fromkeys(STAGES, True)
