"""What a finished run can be held to: the real flow, MLflow, DVC and git on a tiny slice of real data."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tampering
from lineage_fixtures import Finished, run_in

from megu.cli import main as cli
from megu.core.errors import MeguError
from megu.core.files.store import canonical_json
from megu.core.project import Project
from megu.data import arrays
from megu.lineage import compare, format1, graph, indexing
from megu.lineage.dossier import FORMAT, MAIN, SEAL, sha256
from megu.lineage.keys import Keys, read_public
from megu.lineage.reading import dossier_of, newest
from megu.lineage.verify.run import Report, verify
from megu.report import headline
from megu.tracking import lineage as tracked
from megu.tracking.database import Database

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flow")]


def state(report: Report, name: str) -> bool | None:
    return next(check.holds for check in report.checks if check.name == name)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def says(report: Report, name: str) -> str:
    return next(check.says for check in report.checks if check.name == name)


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Path:
    """The newer dossier, as it is handed to someone."""
    return tampering.copied(finished.project.dossiers / finished.newer.mlflow_run_id, tmp_path / "copy")


@pytest.fixture
def public(finished: Finished) -> list[str]:
    return [read_public(Keys(finished.project.keys).public)]


def rewritten(folder: Path, **fields: Any) -> None:
    """The dossier with other fields, sealed anew without a signature."""
    content = canonical_json({**json.loads((folder / MAIN).read_bytes()), **fields})
    (folder / MAIN).write_bytes(content)
    seal = {"format": 1, "seal": sha256(content), "signed": False, "public": None, "signature": None}
    (folder / SEAL).write_bytes(canonical_json(seal))


def test_a_finished_run_holds_in_every_point(finished: Finished) -> None:
    for summary in (finished.newer, finished.older):
        report = verify(summary.mlflow_run_id, finished.project)
        assert report.exit_code == 0, [check for check in report.checks if not check.holds]
        assert len(report.checks) == 19


def test_it_is_found_by_run_by_version_by_alias_and_by_folder(finished: Finished) -> None:
    project, newer = finished.project, finished.newer
    for target in (
        newer.mlflow_run_id,
        newer.model_version or "",
        "models:/megu@challenger",
        str(project.dossiers / newer.mlflow_run_id),
    ):
        report = verify(target, project)
        assert (report.run_id, report.exit_code) == (newer.mlflow_run_id, 0)
    with pytest.raises(MeguError, match="there is no dossier of nobody"):
        verify("nobody", project)


def test_the_database_read_without_mlflow_says_what_mlflow_says(finished: Finished, tmp_path: Path) -> None:
    home = finished.project.home
    asked, read = tracked.reach(home), tracked.reader(home)
    assert isinstance(read, Database)
    for connected in (asked, read):
        assert tracked.run_facts(connected, "0" * 32) is None
        assert tracked.version_facts(connected, "megu", "99") is None
        assert (tracked.aliases(connected, "nobody"), tracked.head(connected, "nobody")) == ({}, None)
        with pytest.raises(MeguError, match="there is no models:/megu@nobody"):
            tracked.resolve(connected, "models:/megu@nobody")
    for run_id in (finished.older.mlflow_run_id, finished.newer.mlflow_run_id):
        assert tracked.run_facts(asked, run_id) == tracked.run_facts(read, run_id)
    for version in ("1", "2"):
        facts = tracked.version_facts(asked, "megu", version)
        assert facts is not None
        assert facts == tracked.version_facts(read, "megu", version)
        with tracked.version_files(asked, facts["source"]) as one, tracked.version_files(read, facts["source"]) as two:
            assert one == two
    assert tracked.aliases(asked, "megu") == tracked.aliases(read, "megu")
    assert tracked.head(asked, "megu") == tracked.head(read, "megu")
    assert tracked.resolve(asked, "models:/megu@challenger") == tracked.resolve(read, "models:/megu@challenger")
    other = shutil.copyfile(home / "mlflow.db", tmp_path / "mlflow.db")
    with contextlib.closing(sqlite3.connect(other)) as opened, opened:
        opened.execute("UPDATE alembic_version SET version_num = 'newer'")
    assert not Database(other).is_supported(), "another form is MLflow's to read"


def test_measured_again_it_is_the_same_to_the_last_digit(finished: Finished) -> None:
    report = verify(finished.newer.mlflow_run_id, finished.project, replay=True)
    assert report.exit_code == 0
    assert says(report, "metrics again").endswith(" metrics measured again are unchanged, to the last digit")
    assert says(report, "served form") == "40 answers match those of the weights"


def test_other_weights_under_the_recorded_name_are_not_measured(finished: Finished) -> None:
    store, dossier = finished.project.store, dossier_of(finished.newer.mlflow_run_id, finished.project).dossier
    path = store.root / dossier.models.unlearned[:2] / f"{dossier.models.unlearned}.safetensors"
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:-4] + b"\0\0\0\0")
        report = verify(finished.newer.mlflow_run_id, finished.project, replay=True)
    finally:
        path.write_bytes(whole)
    assert state(report, "files") is False
    assert state(report, "metrics again") is None


def test_a_copy_elsewhere_says_what_cannot_be_checked_there(copy: Path, public: list[str]) -> None:
    report = verify(str(copy), None, trusted=public)
    assert report.exit_code == 2
    held = {check.name for check in report.checks if check.holds}
    assert held == {"dossier", "signature", "chain", "facts", "verdict", "code"}
    assert not [check for check in report.checks if check.holds is False]


def test_whose_signature_it_is_cannot_be_told_without_the_key(copy: Path) -> None:
    report = verify(str(copy), None)
    assert state(report, "signature") is None
    assert "name it with --key" in says(report, "signature")


def test_another_persons_signature_is_not_taken(copy: Path, tmp_path: Path) -> None:
    report = verify(str(copy), None, trusted=[read_public(Keys(tmp_path / "other").create())])
    assert (report.exit_code, state(report, "signature")) == (1, False)


def test_an_unsigned_dossier_is_allowed_and_said_where_nobody_signs(copy: Path, public: list[str]) -> None:
    rewritten(copy)
    assert says(verify(str(copy), None), "signature") == "unsigned: nothing says who made it"
    assert state(verify(str(copy), None), "signature") is True
    assert state(verify(str(copy), None, trusted=public), "signature") is False


@pytest.mark.parametrize(
    ("fields", "holds", "said"),
    [
        ({"more": 1}, False, "dossier.json: the field more is unknown"),
        ({"root": 1}, False, "dossier.json: the field root is wrong: input should be a valid string"),
        (
            {"format": FORMAT + 1},
            None,
            f"dossier.json has format {FORMAT + 1}, and this megu knows up to {FORMAT}: install a newer megu",
        ),
        ({"format": "1"}, False, "dossier.json has no format that megu wrote ('1')"),
    ],
)
def test_a_dossier_that_is_not_as_written_gets_a_clear_line(copy: Path, fields: dict[str, Any], holds: bool, said: str) -> None:
    rewritten(copy, **fields)
    report = verify(str(copy), None)
    assert (state(report, "dossier"), says(report, "dossier")) == (holds, said)
    assert report.exit_code == (2 if holds is None else 1)


@pytest.mark.parametrize("name", ["dossier.json", "records.jsonl", "forgotten.hmac", "seal.json"])
def test_a_cut_or_missing_file_is_named(copy: Path, name: str) -> None:
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[: len(whole) // 2])
    assert name in says(verify(str(copy), None), "dossier")
    (copy / name).unlink()
    assert f"{name} is missing" in says(verify(str(copy), None), "dossier")


def test_a_verdict_that_the_evidence_does_not_give_is_found(copy: Path) -> None:
    evidence = json.loads((copy / MAIN).read_bytes())["evidence"]
    rewritten(copy, evidence={**evidence, "verdict": "all forgotten"})
    report = verify(str(copy), None)
    assert state(report, "verdict") is False
    assert finished_verdict(evidence) in says(report, "verdict")


@pytest.mark.parametrize("change", [{"decision": "pass"}, {"champion": "7"}, {"rules": []}])
def test_a_decision_of_the_gate_that_the_evidence_does_not_give_is_found(copy: Path, change: dict[str, Any]) -> None:
    evidence = json.loads((copy / MAIN).read_bytes())["evidence"]
    assert evidence["gate"]["decision"] == "needs a person"
    rewritten(copy, evidence={**evidence, "gate": {**evidence["gate"], **change}})
    assert state(verify(str(copy), None), "verdict") is False


def test_thresholds_that_were_loosened_afterwards_are_found(copy: Path) -> None:
    evidence = json.loads((copy / MAIN).read_bytes())["evidence"]
    rewritten(copy, evidence={**evidence, "thresholds": {**evidence["thresholds"], "mia_band": 1.0}})
    assert state(verify(str(copy), None), "verdict") is False


def test_a_dossier_from_before_the_gate_is_still_read_and_verified(copy: Path) -> None:
    evidence = json.loads((copy / MAIN).read_bytes())["evidence"]
    old = {key: value for key, value in evidence.items() if key != "gate"}
    old["thresholds"] = {"forgotten": 1.0, "near": 1.5}
    old["failures"] = format1.failures(evidence["evaluation"], 1.0, 1.5)
    old["verdict"] = headline("Sneaker", evidence["evaluation"], old["failures"])
    rewritten(copy, format=1, evidence=old)
    report = verify(str(copy), None)
    assert (state(report, "dossier"), state(report, "verdict")) == (True, True)
    rewritten(copy, format=1, evidence={**old, "failures": ["NOT forgotten", "more"]})
    assert state(verify(str(copy), None), "verdict") is False
    rewritten(copy, format=2, evidence=old)
    assert says(verify(str(copy), None), "dossier") == "dossier.json: the field evidence.gate is not of format 2"


def finished_verdict(evidence: dict[str, Any]) -> str:
    return f"from the evidence it is: {evidence['verdict']}"


def test_an_mlflow_that_does_not_answer_is_said(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    report = verify(str(finished.project.dossiers / finished.newer.mlflow_run_id), finished.project)
    assert report.exit_code == 2
    assert "http://127.0.0.1:9 does not answer" in says(report, "run in MLflow")


def test_a_lost_commit_cannot_be_checked(finished: Finished) -> None:
    folder = finished.project.root / ".git"
    try:
        folder.rename(folder.with_name("hidden"))
        report = verify(finished.newer.mlflow_run_id, finished.project)
    finally:
        folder.with_name("hidden").rename(folder)
    assert report.exit_code == 2
    assert "no git repository" in says(report, "dvc")


def test_a_checkout_that_git_takes_for_another_owners_is_said_to_be_that(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch for its own tests
    report = verify(finished.newer.mlflow_run_id, finished.project)
    assert report.exit_code == 2
    assert "git config --global --add safe.directory" in says(report, "dvc")


def test_no_id_of_a_sample_is_in_a_dossier(finished: Finished, copy: Path) -> None:
    dataset = arrays.load(finished.project.data("slice"))
    content = b"".join(path.read_bytes() for path in copy.iterdir())
    assert not [value for value in np.unique(dataset.train.ids) if bytes(value) in content]


def test_the_two_dossiers_are_chained(finished: Finished) -> None:
    older = dossier_of(finished.older.mlflow_run_id, finished.project)
    newer = dossier_of(finished.newer.mlflow_run_id, finished.project).dossier
    assert older.dossier.previous is None
    assert newer.previous is not None
    assert newer.previous.seal == sha256((finished.project.dossiers / finished.older.mlflow_run_id / MAIN).read_bytes())
    assert newest(finished.project).endswith(finished.newer.mlflow_run_id)


def test_each_record_says_where_a_kept_result_came_from(finished: Finished) -> None:
    records = {record.label: record for record in dossier_of(finished.newer.mlflow_run_id, finished.project).records}
    kept = records["original"].circumstances
    assert kept["cached"] is True
    assert kept["origin_run"] == finished.older.mlflow_run_id
    assert kept["origin"]["git.commit"] == dossier_of(None, finished.project).dossier.environment["git.commit"]
    assert records["unlearn"].circumstances["cached"] is False
    assert set(records["unlearn"].parents) == {"dataset", "split", "original", "perturbing", "noise"}


def test_the_graph_leads_from_the_version_back_to_the_data(finished: Finished) -> None:
    found = dossier_of(finished.newer.mlflow_run_id, finished.project)
    text = graph.text(found.records, "models:/megu/2")
    assert text.startswith("models:/megu/2\n└─ unlearn: weights ")
    assert f"dataset: slice, DVC {found.dossier.data.dvc_hash}" in text
    assert all(f"─ {record.label}: " in text for record in found.records)
    drawn = graph.mermaid(found.records, "models:/megu/2")
    assert drawn.count("-->") == sum(len(record.parents) for record in found.records) + 1
    assert drawn.startswith("flowchart LR\n")
    page = (finished.project.root / finished.newer.report).read_text()
    assert "flowchart LR" in page


def test_prefect_has_the_graph(finished: Finished) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    with get_client(sync_client=True) as client:
        key = ArtifactFilterKey(any_=["unlearning-lineage"])
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=key))
    assert found
    assert all("```mermaid\nflowchart LR" in str(artifact.data) for artifact in found)


def test_which_models_saw_a_sample(finished: Finished, tmp_path: Path) -> None:
    from PIL import Image

    dataset = arrays.load(finished.project.data("slice"))
    sneaker, shirt = (dataset.classes.index(name) for name in ("Sneaker", "Shirt"))
    forgot, trained = (int(np.flatnonzero(dataset.train.labels == k)[0]) for k in (sneaker, shirt))
    for at, history in ((forgot, "forgot"), (trained, "trained")):
        path = tmp_path / "image.png"
        Image.fromarray(np.asarray(dataset.train.images[at])[..., 0]).save(path)
        for sample in (dataset.train.ids[at].decode(), str(path)):
            ids, answers = indexing.which(finished.project, sample)
            assert ids == [dataset.train.ids[at].decode()]
            assert {answer.row.model: answer.unlearned for answer in answers} == {
                "models:/megu/1": history,
                "models:/megu/2": history,
            }
            assert {answer.original for answer in answers} == {"trained"}
    _, answers = indexing.which(finished.project, dataset.test.ids[0].decode())
    assert {answer.unlearned for answer in answers} == {"never saw"}
    with pytest.raises(MeguError, match="is not a sample id, an image file, or the name"):
        indexing.which(finished.project, "nowhere/7.png")


def test_the_index_comes_back_from_the_dossiers(finished: Finished) -> None:
    before = indexing.Index(finished.project.index).rows()
    shutil.rmtree(finished.project.index)
    assert verify(finished.newer.mlflow_run_id, finished.project).exit_code == 2
    assert indexing.rebuild(finished.project) == (2, [])
    assert indexing.Index(finished.project.index).rows() == before
    assert verify(finished.newer.mlflow_run_id, finished.project).exit_code == 0


def test_why_two_runs_differ(finished: Finished) -> None:
    one, two = (dossier_of(summary.mlflow_run_id, finished.project) for summary in (finished.older, finished.newer))
    found = compare.diff(one.dossier, two.dossier, one.records, two.records)
    assert found["parameters"] == ["unlearn.alpha was 0.6, is 0.7"]
    assert [group for group in ("data", "request", "code", "labeler", "seeds", "environment") if found[group]] == []
    assert any(line.startswith("unlearned was ") for line in found["models"])
    same = compare.diff(one.dossier, one.dossier, one.records, one.records)
    assert not any(same.values())


def test_the_command_line_says_it_all(
    finished: Finished, copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*arguments: str) -> tuple[int, str]:
        code = cli.guarded(lambda: cli.app(list(arguments), standalone_mode=False))
        return code, capsys.readouterr().out

    run_id = finished.newer.mlflow_run_id
    monkeypatch.chdir(finished.project.root)
    code, out = call("verify", run_id)
    assert (code, len(out.splitlines())) == (0, 20)
    assert all(line.startswith("✓ ") for line in out.splitlines()[:-1])
    code, out = call("verify", run_id, "--json")
    assert (code, json.loads(out)["exit"], json.loads(out)["mlflow_run_id"]) == (0, 0, run_id)
    assert "flowchart LR" in call("lineage", "show", "--mermaid")[1]
    assert call("lineage", "show", run_id)[1].startswith("models:/megu/2")
    assert "unlearn.alpha was 0.6, is 0.7" in call("lineage", "diff", finished.older.mlflow_run_id, run_id)[1]
    sample = arrays.load(finished.project.data("slice")).test.ids[0].decode()
    assert call("lineage", "which", "--sample", sample)[1].count("never saw it; its original: never saw it") == 2
    key = str(Keys(finished.project.keys).public)
    monkeypatch.setenv("MEGU_PROJECT", str(copy))  # no project there
    code, out = call("verify", str(copy), "--key", key)
    assert code == 2
    assert "? files: " in out


def test_most_changes_to_a_finished_run_are_tried_elsewhere_and_these_are_named(finished: Finished) -> None:
    """One in 100 of what ``benchmarks/tamper.py`` tries, of every surface at least one."""
    project, run_id = finished.project, finished.newer.mlflow_run_id
    every = tampering.surfaces(project, run_id)
    firsts = {change.surface: change for change in reversed(every)}
    tried = list(dict.fromkeys([*firsts.values(), *every[::100]]))
    missed = {str(change): said for change in tried if (said := tampering.missed(change, project, run_id)) is not None}
    assert missed == {}
    assert len(tried) > 60
    assert verify(run_id, project).exit_code == 0, "everything was put back"


@pytest.fixture
def again(finished: Finished, tmp_path: Path) -> Project:
    """The same project without anything computed, somewhere else."""
    root = tmp_path / "again"
    shutil.copytree(finished.project.root, root, ignore=shutil.ignore_patterns(".megu", "results"))
    return Project(root)


def test_the_same_request_gives_the_same_root_wherever_and_whenever(finished: Finished, again: Project) -> None:
    """Nothing kept, another key, unsigned: the root is the same, the seal is not."""
    summary = run_in(again)()
    one, two = dossier_of(finished.newer.mlflow_run_id, finished.project).dossier, dossier_of(None, again).dossier
    assert not any(stage.hit for stage in summary.stages)
    assert one.root == two.root
    report = verify(summary.mlflow_run_id, again)
    assert (report.exit_code, says(report, "signature")) == (0, "unsigned: nothing says who made it")


def parameters_in_prefect() -> str:
    """What Prefect shows of every flow run: its parameters and why it failed."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs()
    return json.dumps([[run.parameters, run.state.message if run.state else ""] for run in runs])


def test_a_request_by_ids_names_none_of_them_and_can_be_verified(finished: Finished) -> None:
    project = finished.project
    chosen = [value.decode() for value in arrays.load(project.data("slice")).train.ids[:3]]
    summary = run_in(project)("forget.scenario=ids", f"forget.ids=[{', '.join(chosen)}]", "reference.enabled=false")
    # Everything that a person or a regulator is shown: MLflow's database and artifacts, dossier, report; and the kept results.
    shown = [project.home / "mlflow.db", *files_in(project.home / "mlartifacts"), *files_in(project.root / "results")]
    shown += files_in(project.results)
    assert len(shown) > 50
    told = {str(path): value for path in shown for value in chosen if value.encode() in path.read_bytes()}
    assert told == {}
    artifacts = {path.name for path in files_in(project.home / "mlartifacts") if summary.mlflow_run_id in str(path)}
    assert {"config.json", "stages.json", "summary.json", "report.html"} <= artifacts
    assert "positions.npz" not in artifacts, "which images they are"
    again = run_in(project)("forget.scenario=ids", f"forget.ids=[{', '.join(chosen)}]", "reference.enabled=false")
    assert all(stage.hit for stage in again.stages)
    told = parameters_in_prefect()
    assert [value for value in chosen if value in told] == []
    assert "/private/" in told, "a file that only its owner reads"
    found = dossier_of(summary.mlflow_run_id, project).dossier
    assert found.scope.commitments == 3
    assert found.evidence.reference == "no retrain reference"
    assert verify(summary.mlflow_run_id, project).exit_code == 0
    _, answers = indexing.which(project, chosen[0])
    assert answers[-1].unlearned == "forgot"
    older = verify(finished.newer.mlflow_run_id, project)
    assert older.exit_code == 0
    assert "moved on by run" in says(older, "alias")


def test_retraining_claims_to_be_exact(finished: Finished) -> None:
    summary = run_in(finished.project)("unlearn={method: retrain}")
    found = dossier_of(summary.mlflow_run_id, finished.project).dossier
    assert found.claim.level == "exact"
    assert dossier_of(finished.newer.mlflow_run_id, finished.project).dossier.claim.level == "empirical"
    assert verify(summary.mlflow_run_id, finished.project).exit_code == 0
