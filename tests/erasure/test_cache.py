"""What goes from the cache and what stays, on made-up results."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megu.cli import main as cli
from megu.core.files.exclusion import working
from megu.core.files.store import Ref
from megu.core.project import Project
from megu.core.stages import Result
from megu.erasure import cache
from megu.erasure.cache import Needed

DAY = 86400


def put(project: Project, key: str, files: list[bytes], *, age: float = 0, run: str = "") -> list[Ref]:
    """A cached result as Prefect keeps it, of an age in days."""
    refs = [project.store.put_bytes("bin", content) for content in files]
    result = Result("stage", {}, {str(n): ref for n, ref in enumerate(refs)}, {}, {}, 1.0, {"mlflow_run_id": run})
    project.results.mkdir(parents=True, exist_ok=True)
    (project.results / key).write_text(json.dumps({"result": json.dumps(result.to_json())}))
    then = time.time() - age * DAY
    for path in (project.results / key, *(project.store.path(ref) for ref in refs)):
        os.utime(path, (then, then))
    return refs


def call(*arguments: str) -> int:
    return cli.guarded(lambda: cli.app(["cache", *arguments], standalone_mode=False))


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("MEGU_PROJECT", str(project.root))
    return project


def test_by_age_and_by_run(here: Project) -> None:
    put(here, "stage-old", [b"old", b"shared"], age=40, run="r1")
    put(here, "stage-new", [b"new", b"shared"], run="r1")
    put(here, "stage-other", [b"other"], age=40, run="r2")
    assert [path.name for path in cache.plan(here, 30, "r1").results] == ["stage-old"]
    assert {path.name for path in cache.plan(here, None, "r1").results} == {"stage-old", "stage-new"}
    done = cache.prune(here, 30, None)
    assert {path.name for path in done.results} == {"stage-old", "stage-other"}
    assert [entry.key for entry in cache.entries(here)] == ["stage-new"]
    assert {path.read_bytes() for path in cache.stored(here)} == {b"new", b"shared"}
    assert done.size > 0


def test_a_file_that_no_result_names_goes_by_its_own_age_and_not_with_a_run(here: Project) -> None:
    put(here, "stage-mine", [b"mine"], run="r1")
    loose = here.store.path(here.store.put_bytes("bin", b"of a stage that was stopped"))
    assert cache.plan(here, None, "r1").files == (here.store.path(Ref("bin", _sha(b"mine"), 4)),)
    assert cache.plan(here, 1, None).files == ()
    os.utime(loose, (0, 0))
    assert cache.plan(here, 1, None).files == (loose,)


def _sha(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=40)
@given(
    results=st.lists(st.tuples(st.sets(st.integers(0, 5)), st.integers(0, 60), st.sampled_from(["a", "b"])), max_size=6),
    needed=st.tuples(st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5))),
    days=st.none() | st.integers(0, 60),
    run=st.none() | st.sampled_from(["a", "b"]),
    stopped_after=st.integers(0, 8),
)
def test_wherever_it_is_stopped_every_result_has_its_files_and_what_is_needed_is_there(
    tmp_path_factory: pytest.TempPathFactory,
    results: list[tuple[set[int], int, str]],
    needed: tuple[set[int], set[int]],
    days: int | None,
    run: str | None,
    stopped_after: int,
) -> None:
    project = Project(tmp_path_factory.mktemp("pruned"))
    contents = [bytes([number]) * 9 for number in range(6)]
    for number, (files, age, by) in enumerate(results):
        put(project, f"stage-{number}", [contents[file] for file in sorted(files)], age=age + 0.5, run=by)
    if run and run not in {by for *_, by in results}:
        run = None
    stays = Needed({f"stage-{number}": "x" for number in needed[0]}, {_sha(contents[file]): "x" for file in needed[1]})
    # Who needs a result needs what it names.
    for number in needed[0] & set(range(len(results))):
        stays.files.update({_sha(contents[file]): "x" for file in results[number][0]})
    before = {path.name: path.read_bytes() for path in cache.stored(project)}
    left, really = [stopped_after], Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        really(path, missing_ok)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "by_dossiers", lambda project: stays)
        patch.setattr(cache, "by_versions", lambda project, needed: None)
        planned = cache.plan(project, days, run)
        with patch.context() as stopping:
            stopping.setattr(Path, "unlink", unlink)
            try:
                done = cache.prune(project, days, run)
                assert done == planned
                assert not any(path.exists() for path in (*planned.results, *planned.files))
            except KeyboardInterrupt:
                pass
    remaining = {path.name for path in cache.stored(project)}
    for entry in cache.entries(project):
        assert all(project.store.holds(ref) for ref in entry.files), "a result without its files"
    assert {name for name in before if name.partition(".")[0] in stays.files} <= remaining
    for number, (_, age, by) in enumerate(results):
        may_go = f"stage-{number}" not in stays.results and (days is None or age >= days) and run in (None, by)
        assert (project.results / f"stage-{number}") in planned.results or not may_go
        assert (project.results / f"stage-{number}").exists() or may_go


def test_nothing_goes_while_a_run_is_under_way(here: Project, capsys: pytest.CaptureFixture[str]) -> None:
    put(here, "stage-old", [b"old"], age=40)
    with working(here):
        assert call("prune", "--older-than", "1") == 2
        assert call("prune", "--older-than", "1", "--dry-run") == 0, "which only reads"
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "a run is under way in this project" in said.err
    assert "would remove 1 results and 1 files" in said.out
    assert len(cache.entries(here)) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "specify --older-than DAYS, --run RUN or both"), (("--run", "r9"), "no cached result was computed by the run r9")],
)
def test_what_cannot_be_pruned_is_refused_in_one_line(
    arguments: tuple[str, ...], said: str, here: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    put(here, "stage-old", [b"old"], age=40, run="r1")
    assert call("prune", *arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert len(cache.entries(here)) == 1


def test_where_it_cannot_be_known_what_is_needed_nothing_goes(here: Project, capsys: pytest.CaptureFixture[str]) -> None:
    put(here, "stage-old", [b"old"], age=40)
    (here.dossiers / "r1").mkdir(parents=True)
    (here.dossiers / "r1" / "dossier.json").write_text("{")
    assert call("prune", "--older-than", "1") == 2
    (here.dossiers / "r1" / "dossier.json").unlink()
    (here.dossiers / "r1").rmdir()
    (here.home / "mlflow.db").write_text("no database")
    assert call("prune", "--older-than", "1") == 2
    lines = capsys.readouterr().err.splitlines()
    assert ["the dossier results/dossiers/r1 is not whole" in lines[0], "mlflow.db" in lines[1]] == [True, True]
    assert len(lines) == 2
    assert len(cache.entries(here)) == 1


def test_a_folder_that_cannot_be_written_is_one_line_and_leaves_whole_results(
    here: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(here, "stage-old", [b"old"], age=40)
    refused = PermissionError(13, "Permission denied")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *arguments, **named: (_ for _ in ()).throw(refused))
        assert call("prune", "--older-than", "1") == 2
    assert ".megu/results/stage-old cannot be removed (Permission denied)" in capsys.readouterr().err
    assert all(here.store.holds(ref) for entry in cache.entries(here) for ref in entry.files)


def test_list_and_size(here: Project, capsys: pytest.CaptureFixture[str]) -> None:
    put(here, "stage-one", [b"1" * 3_000_000], run="r1")
    put(here, "stage-two", [b"1" * 3_000_000, b"2" * 1_000_000])
    (here.results / "stage-broken").write_text("{")
    here.store.put_bytes("bin", b"3" * 500_000)
    assert call("list") == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == 3
    assert next(line for line in listed if "stage-one" in line).endswith("r1")
    assert call("size", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["unnamed"] == {"files": 1, "bytes": 500_000}
    assert found["stages"]["stage"]["results"] == 3
    assert 4_500_000 < found["bytes"] < 4_510_000, "what two results name is there once"
    assert call("prune", "--older-than", "0", "--json") == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == found["bytes"]
    assert (cache.entries(here), cache.stored(here)) == ([], [])
