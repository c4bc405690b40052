"""The labeling flow and the whole flow with a labeler that is asked, on a small real slice: real Prefect, real MLflow, real HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lineage_fixtures import slice_of
from ollama_server import DIGEST, FakeOllama, Reply, prototypes
from test_flows_unlearn import PARAMS

from megu.cli import main as cli
from megu.config import tree as config
from megu.core.errors import MeguError
from megu.core.project import Project
from megu.data.arrays import Dataset
from megu.evaluation.summary import Summary
from megu.labeling import ask_about
from megu.labeling.prototype import PrototypeParams

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server"), pytest.mark.xdist_group("flow")]

OLLAMA = PARAMS.replace(
    "labeling: {exemplars: 3, references: 5, image_size: 64}",
    "labeling: {kind: ollama, exemplars: 3, candidates: 4, concurrency: 2, host: 'HOST', retries: 0}",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, fashion_mnist: Dataset) -> Iterator[FakeOllama]:
    sight = prototypes(ask_about(fashion_mnist, 1, 12, seed=97).references, image_size=96)
    with FakeOllama(list(fashion_mnist.classes), sight).serving() as fake:
        yield fake


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, fashion_mnist: Dataset, server: FakeOllama) -> Iterator[Project]:
    root = tmp_path_factory.mktemp("project")
    slice_of(fashion_mnist, root)
    (root / "params.yaml").write_text(OLLAMA.replace("HOST", server.host))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEGU_PROJECT", str(root))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        # Its defaults take 600 images of 160 pixels through the network.
        patch.setattr("flows.label.PrototypeParams", partial(PrototypeParams, exemplars=3, references=10, image_size=96))
        yield Project(root)


@pytest.fixture(scope="module")
def labeled(project: Project, server: FakeOllama) -> dict[str, Any]:
    from flows.label import label

    made: dict[str, Any] = label()
    return made


@pytest.fixture(scope="module")
def unlearned(project: Project, labeled: dict[str, Any]) -> Summary:
    from flows.unlearn import unlearn

    summary: Summary = unlearn()
    return summary


def call(*arguments: str) -> int:
    return cli.guarded(lambda: cli.app(list(arguments), standalone_mode=False))


def planned(project: Project, *settings: str) -> Any:
    from flows.label import plan

    return plan(project, config.load(project.params, settings))[-1]


def test_a_labeling_is_made_once_and_kept(project: Project, server: FakeOllama, labeled: dict[str, Any]) -> None:
    assert labeled["cache"] == "miss"
    assert labeled["asked"] == server.count == 3 * 10 * (1 + 4)
    assert labeled["record"]["sanity"]["own"] > 0.6
    assert labeled["labeler"]["digest"] == DIGEST
    from flows.label import label

    again = label()
    assert (again["cache"], again["asked"]) == ("hit", 0)
    assert again["seconds"] < 1


def test_the_whole_flow_finds_it_and_says_whose_it_is(
    project: Project, server: FakeOllama, labeled: dict[str, Any], unlearned: Summary
) -> None:
    assert server.count == labeled["asked"], "the flow asked nothing"
    assert {stage.name: stage.hit for stage in unlearned.stages}["labeling"]
    from megu.tracking import client

    connected = client(project.home)
    tags = connected.get_run(unlearned.mlflow_run_id).data.tags
    version = connected.get_model_version_by_alias("megu", "challenger").tags
    for found in (tags, version):
        assert found["labeler.kind"] == "ollama"
        assert found["labeler.name"] == "gemma3:4b"
        assert found["labeler.digest"] == DIGEST
    assert "gemma3:4b" in connected.get_run(unlearned.mlflow_run_id).data.params["labeler"]
    page = (project.root / unlearned.report).read_text()
    assert "multi-modal LLM through Ollama: gemma3:4b, screened, soft scores" in page
    assert DIGEST in page
    assert "150 asked, 150 answered, 0 abstained" in page


def test_the_matrix_file_itself_says_how_it_came_about(project: Project, labeled: dict[str, Any]) -> None:
    from safetensors import safe_open

    from tasks.ollama import OLLAMA as STAGE
    from tasks.run.engine import cached_results

    with safe_open(project.store.path(cached_results(project, STAGE)[0].files["labeling"]), "np") as file:  # type: ignore[no-untyped-call]
        meta = file.metadata()
        S = file.get_tensor("S")
    record = json.loads(meta["record"])
    assert (record["model"], record["digest"], record["exemplars"]) == ("gemma3:4b", DIGEST, 3)
    assert record["asked"] == 150
    assert set(record["prompts"]) == {"system", "pairwise", "ranked"}
    assert json.loads(meta["labeler"])["digest"] == DIGEST
    assert (S.argmax(axis=1) == np.arange(10)).mean() >= 0.7


@pytest.mark.parametrize(
    ("setting", "hit"),
    [
        ("labeling.concurrency=5", True),
        ("labeling.call_timeout=7", True),
        ("labeling.host=127.0.0.1:9", True),
        ("labeling.seed=3", False),
        ("labeling.exemplars=4", False),
        ("labeling.strategy=ranked", False),
        ("labeling.candidates=5", False),
        ("labeling.num_ctx=4096", False),
        ("labeling.descriptions={Bag: a handbag}", False),
        ("labeling.min_own=0.4", False),
    ],
)
def test_what_names_a_kept_matrix(project: Project, labeled: dict[str, Any], setting: str, hit: bool) -> None:
    assert planned(project, setting).hit is hit


def test_a_settings_of_ollama_names_no_prototype_matrix(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.label import by_prototype
    from tasks.labeling import LABELING
    from tasks.run.inputs import labeler_code

    monkeypatch.setattr("flows.label.PrototypeParams", PrototypeParams)
    kept = by_prototype(config.load(project.params))
    assert (kept.labeling.kind, kept.labeling.params) == ("prototype", PrototypeParams())
    parts = LABELING.parts({"params": kept.labeling.params, "code": labeler_code(project, kept)})
    assert not [name for name in parts if "ollama" in name]
    assert {name for name in parts if name.startswith("params.")} == {
        f"params.{name}" for name in ("exemplars", "references", "temperature", "image_size", "seed")
    }


def test_with_the_server_off_a_kept_matrix_serves_and_another_is_refused(
    project: Project, labeled: dict[str, Any], unlearned: Summary, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.unlearn import unlearn

    off = ["labeling.host=127.0.0.1:9", "reference.enabled=false"]
    summary = unlearn(settings=off)
    assert {stage.name: stage.hit for stage in summary.stages}["labeling"]
    with pytest.raises(
        MeguError, match=r"^there is no Ollama server at http://127\.0\.0\.1:9; [\d,]+ answers are kept: ollama serve; "
    ):
        unlearn(settings=[*off, "labeling.seed=9"])
    assert call("run", "--quiet", "--set", off[0], "--set", "labeling.seed=9") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_kept_answers_make_the_matrix_again_with_the_server_off(project: Project, labeled: dict[str, Any]) -> None:
    """As after an update of megu: the record is another's, the answers are as good as ever."""
    from flows.label import label

    for record in project.results.glob("ollama-*"):
        record.unlink()
    made = label(settings=["labeling.host=127.0.0.1:9"])
    assert (made["cache"], made["asked"]) == ("miss", 0)
    assert made["record"] == labeled["record"]


def test_a_moved_tag_is_another_model(project: Project, server: FakeOllama, labeled: dict[str, Any]) -> None:
    server.digest = "c" * 64
    try:
        decision = planned(project)
        assert not decision.hit
        assert "digest" in decision.why
    finally:
        server.digest = DIGEST
    assert planned(project).hit


def test_a_failed_labeling_leaves_its_answers_and_never_another_labelers_labels(
    project: Project, server: FakeOllama, labeled: dict[str, Any]
) -> None:
    from flows.label import label

    before = server.count
    server.fault = lambda number, body: Reply({"error": "gone"}, 404) if number >= before + 20 else None
    changes = ["labeling.seed=21", "labeling.concurrency=1"]
    try:
        with pytest.raises(MeguError, match=r"answered 404|no Ollama server|ollama pull"):
            label(settings=changes)
    finally:
        server.fault = None
    assert not planned(project, *changes).hit
    made = label(settings=changes)
    assert made["asked"] == 150 - 20
    assert made["kind"] == "ollama"


def test_it_is_shown_with_what_it_agrees_with(project: Project, unlearned: Summary, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("label", "--show", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown["agreement"]) == {"the model's own features", "the prototype labeler"}
    assert shown["agreement"]["the prototype labeler"] > 0.4
    assert len(shown["nearest"]["Sneaker"]) == 3
    assert set(shown["nearest"]["Sneaker"]) & {"Sandal", "Ankle boot"}
    assert (project.root / shown["picture"]).read_bytes().startswith(b"\x89PNG")
    assert call("label", "--show", "--quiet") == 0
    told = capsys.readouterr().out
    assert "rank correlation with the prototype labeler" in told
    assert "results/labeling.png" in told


def test_without_a_trained_original_it_says_so(
    project: Project, labeled: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("label", "--show", "--json", "--set", "train.epochs=2") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["missing"] == {"the model's own features": "no trained original is cached: megu run trains one"}
    assert set(shown["agreement"]) == {"the prototype labeler"}


def test_progress_is_reported(project: Project, labeled: dict[str, Any], tmp_path: Path) -> None:
    """What the bar is drawn from: how many, and each as it comes."""
    from flows.label import label
    from megu.core.progress import listening

    seen: dict[str, list[int]] = {}

    class Bar:
        def start(self, label: str, total: int | None, unit: str) -> Any:
            seen[label] = [total or 0, 0]

            def advance(amount: int) -> None:
                seen[label][1] += amount

            return advance

        def stop(self, label: str) -> None: ...

    with listening(Bar()):
        label(settings=["labeling.seed=31"])
    assert seen["ask: most similar"] == [30, 30]
    assert seen["ask: True or False"] == [120, 120]
