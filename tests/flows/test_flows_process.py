"""The processing flow on a small real slice: real Prefect, real MLflow, real DVC. Requests come in, models go out, nothing comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lineage_fixtures import SECRETS, make_project
from prefect.settings import PREFECT_API_URL

from megu.config.tree import load
from megu.core.errors import MeguError
from megu.core.project import Project
from megu.data import arrays
from megu.data.arrays import Dataset
from megu.data.splits import load_split
from megu.lineage.keys import PASSPHRASE
from megu.requests.inbox import Inbox
from megu.requests.request import Request

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server"), pytest.mark.xdist_group("flow")]

#: A model trained for a second passes no real gate.
LENIENT = [f"gate.{name}=100" for name in ("forget_margin", "retain_drop", "class_drop", "mia_band")]
Go = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, fashion_mnist: Dataset) -> Project:
    return make_project(tmp_path_factory.mktemp("requests"), fashion_mnist)


@pytest.fixture(scope="module")
def inbox(project: Project) -> Inbox:
    return Inbox(project)


@pytest.fixture(scope="module")
def go(project: Project) -> Go:
    def run(*settings: str) -> dict[str, Any]:
        from flows.process import process

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MEGU_PROJECT", str(project.root))
            patch.setenv(PASSPHRASE, SECRETS[PASSPHRASE])
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            done: dict[str, Any] = process(settings=list(settings))
        return done

    return run


def request(**values: Any) -> Request:
    return Request(**{"basis": "gdpr-17-1-b", "requester": "data-subject", "due": "2030-12-24", **values})


@pytest.fixture(scope="module")
def first(inbox: Inbox, go: Go) -> dict[str, Any]:
    """One request that can be and one that cannot, processed."""
    names = {
        "bag": inbox.add(request(classes=("Bag",))).id,
        "car": inbox.add(request(classes=("Car",))).id,
    }
    return {**names, "done": go(*LENIENT)}


def version_tags(project: Project, version: str) -> dict[str, str]:
    from megu.tracking import client

    return dict(client(project.home).get_model_version("megu", version).tags)


def test_what_can_be_is_forgotten_and_judged_and_what_cannot_is_rejected_alone(first: dict[str, Any], inbox: Inbox) -> None:
    done = first["done"]
    assert (done["accepted"], done["rejected"]) == (1, 1)
    assert [batch["failed"] for batch in done["batches"]] == [None]
    assert inbox.entry(first["car"]).state == "rejected"
    entry = inbox.entry(first["bag"])
    assert entry.state == "verified"
    assert [event.kind.removeprefix("request.") for event in entry.events] == [
        "received", "accepted", "processing", "unlearned", "verified",
    ]  # fmt: skip
    assert entry.fact("decision") == "needs a person"  # the first model is never promoted automatically
    assert inbox.ledger.check() == []
    assert first["done"]["approval"]["version"] == "megu/1", "asked for, by the terminal where there is no deployment"


def test_version_and_run_say_which_requests_and_the_split_is_pinned_by_dvc(
    first: dict[str, Any], project: Project, inbox: Inbox
) -> None:
    from megu.tracking import client

    version = inbox.entry(first["bag"]).fact("version").rpartition("/")[2]
    tags = version_tags(project, version)
    assert tags["requests"] == first["bag"]
    assert tags["batch"] == first["done"]["batches"][0]["batch"]
    run = client(project.home).get_run(inbox.entry(first["bag"]).fact("mlflow_run"))
    assert run.data.tags["requests"] == first["bag"]
    lock = (project.root / "requests" / "dvc.lock").read_text()
    assert tags["dvc.split"] in lock
    assert "Bag" not in lock
    assert (project.root / "requests" / "forget.json").stat().st_mode & 0o077 == 0
    assert len(load_split(project.root / "requests" / "split").forget) == 30


def test_a_run_with_nothing_to_do_does_nothing(first: dict[str, Any], inbox: Inbox, go: Go) -> None:
    before = inbox.ledger.head
    assert go(*LENIENT)["batches"] == []
    assert inbox.ledger.head == before


def test_a_second_request_starts_from_the_champion_and_keeps_the_first_forgotten(
    first: dict[str, Any], project: Project, inbox: Inbox, go: Go
) -> None:
    from megu.lineage import dossier, indexing
    from megu.promotion import moves as promotion

    config = load(project.params, LENIENT)
    number = inbox.entry(first["bag"]).fact("version").rpartition("/")[2]
    seen = promotion.inspect_candidate(project, config, number)
    assert seen.obstacles == []
    approval = promotion.Approval(approver="Kim", rationale="first-model", evidence=seen.seal)

    def interrupted(step: str) -> None:
        if step == "recorded":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # before the request followed the champion: the next run has it follow
        promotion.promote(project, config, approval, number, reached=interrupted)
    assert inbox.entry(first["bag"]).state == "verified"
    dataset = arrays.load(project.data("slice"))
    shirts = np.flatnonzero(dataset.train.labels == dataset.classes.index("Shirt"))[:3]
    named = tuple(dataset.train.ids[at].decode() for at in shirts)
    shirt = inbox.add(request(classes=(), ids=named)).id
    done = go(*LENIENT)
    assert inbox.entry(first["bag"]).state == "promoted"
    assert done["settled"] == {"promoted": [first["bag"]]}
    entry = inbox.entry(shirt)
    assert (entry.state, entry.fact("decision"), entry.fact("champion")) == ("verified", "pass", number)
    made = dossier.parse(dossier.read(project.dossiers / entry.fact("mlflow_run"))["dossier.json"], "dossier.json")
    assert (made.scope.scenario, made.scope.forget) == ("mixed", 33)
    assert made.models.given
    bag = dataset.train.ids[np.flatnonzero(dataset.train.labels == dataset.classes.index("Bag"))[0]].decode()
    for sample in (bag, named[0]):
        newest = max(indexing.which(project, sample)[1], key=lambda answer: answer.row.created)
        assert newest.unlearned == "forgot"


def test_what_the_gate_turns_down_is_put_back_with_the_rules_that_broke(project: Project, inbox: Inbox, go: Go) -> None:
    coat = inbox.add(request(classes=("Coat",))).id
    done = go(*LENIENT, "gate.min_seeds=5", "promotion.ladder.when=never")
    assert done["batches"][0]["failed"] is None
    entry = inbox.entry(coat)
    assert (entry.state, entry.failures) == ("accepted", 1)
    assert entry.reason.endswith("down: seeds")
    inbox.withdraw(coat)


def test_a_run_killed_at_its_work_is_made_good_by_the_next(project: Project, inbox: Inbox, go: Go) -> None:
    trouser = inbox.add(request(classes=("Trouser",))).id
    environment = {**os.environ, "MEGU_PROJECT": str(project.root), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment |= {"PREFECT_API_URL": str(PREFECT_API_URL.value()), PASSPHRASE: SECRETS[PASSPHRASE]}
    program = f"from flows.process import process; process(settings={LENIENT!r})"
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 280
    while inbox.entry(trouser).state != "processing" and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    busy = go(*LENIENT)
    assert busy == {"busy": True}
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert inbox.entry(trouser).state == "processing"
    done = go(*LENIENT)
    assert done["recovered"] == [trouser]
    entry = inbox.entry(trouser)
    assert (entry.state, entry.failures) == ("verified", 1)
    assert [event.kind for event in entry.events].count("request.verified") == 1
    assert inbox.ledger.check() == []


def test_a_batch_that_cannot_be_run_stays_pending_with_the_reason(project: Project, inbox: Inbox, go: Go) -> None:
    dress = inbox.add(request(classes=("Dress",))).id
    done = go(*LENIENT, "original.weights=nowhere.safetensors", "registry.name=other")
    assert "nowhere.safetensors" in done["batches"][0]["failed"]
    entry = inbox.entry(dress)
    assert (entry.state, entry.failures) == ("accepted", 1)
    assert "no file" in entry.reason
    assert Path(project.root / "requests" / "split").is_dir()


def test_what_no_method_passes_ends_with_the_retrain_promoted_or_refused(
    first: dict[str, Any], project: Project, inbox: Inbox, go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    from megu.lineage.reading import dossier_of
    from megu.lineage.verify.run import verify
    from megu.promotion import moves as promotion
    from tasks.records import ladder

    if inbox.entry(first["bag"]).state == "verified":  # alone, without the tests before it: the first champion is a person's
        seen = promotion.inspect_candidate(project, load(project.params, LENIENT))
        promotion.promote(project, load(project.params, LENIENT), promotion.Approval(
            approver="Kim", rationale="first-model", evidence=seen.seal
        ))  # fmt: skip
    for entry in inbox.entries("accepted"):
        inbox.withdraw(entry.id)
    pullover = inbox.add(request(classes=("Pullover",))).id
    strict = [
        *LENIENT[:1],
        "gate.retain_drop=0",
        "gate.class_drop=0",
        "gate.mia_band=0",
    ]  # the retrain alone is like the retrain
    settings = [*strict, "promotion.policy=automatic", "promotion.ladder={methods: [], trials: 1}"]
    refused = go(*settings, "gate.min_seeds=5")
    assert list(refused["refused"]) == [pullover]
    assert "even the exact retrain" in refused["refused"][pullover]
    assert "seeds" in refused["refused"][pullover]
    assert go(*settings)["batches"] == [], "it waits for a person"
    known = ladder.costs(project, load(project.params, settings))
    assert min(known.training or 0, known.methods["megu"]) > 0
    with pytest.raises(MeguError, match=r"promotion\.ladder\.hours = 1e-06 is less than the retrain at its end takes"):
        go(*settings, "promotion.ladder.hours=0.000001")
    inbox.retry(pullover)

    append = type(inbox.ledger).append

    def stopped(ledger: Any, kind: str, subject: str, facts: Any, **more: Any) -> Any:
        event = append(ledger, kind, subject, facts, **more)
        if kind == ladder.RUNG:
            raise KeyboardInterrupt
        return event

    with monkeypatch.context() as patch:
        patch.setattr(type(inbox.ledger), "append", stopped)
        with pytest.raises(KeyboardInterrupt):
            go(*settings)
    done = go(*settings)
    assert [(rung["number"], rung["method"], rung["outcome"]) for rung in done["rungs"]] == [(2, "retrain", "pass")]
    assert done["approval"]["asked"] == "policy", done["approval"]
    entry = inbox.entry(pullover)
    assert (entry.state, entry.refused, done["refused"]) == ("promoted", False, {})
    assert (project.root / "results" / "report.html").read_text().count("<h2>Ladder: 2 rungs</h2>") == 1

    found, report = dossier_of(entry.fact("mlflow_run"), project).dossier, verify(entry.fact("mlflow_run"), project)
    assert [(rung.method, rung.outcome) for rung in found.ladder] == [("megu", "fail"), ("retrain", "pass")]
    assert found.claim.level == "exact"
    assert all(rung.passes > 0 and rung.seconds > 0 and rung.metrics["Ar"] is not None for rung in found.ladder)
    assert report.exit_code == 0, [check for check in report.checks if check.holds is not True]
    (said,) = [check for check in report.checks if check.name == "ladder"]
    assert said.says == "2 rungs are what the dossiers of their runs say"
    records = {record.label: record for record in dossier_of(entry.fact("mlflow_run"), project).records}
    assert records["unlearn"].refs == records["reference"].refs, "the retrain is the reference, not trained twice"
    first = project.dossiers / found.ladder[0].mlflow_run_id / "dossier.json"
    first.write_bytes(first.read_bytes().replace(b'"decision":"fail"', b'"decision":"pass"'))
    (said,) = [check for check in verify(entry.fact("mlflow_run"), project).checks if check.name == "ladder"]
    assert (said.holds, said.says) == (False, "rung 1 is not what the dossier of its run says")
