"""``megu init``: what it makes of each kind of folder, what it leaves alone, what it refuses, and that a kill leaves nothing half-written."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from data_fixtures import toy
from lineage_fixtures import git

from megu.cli import main as cli
from megu.config import tree
from megu.core.errors import MeguError
from megu.data import arrays, dvc
from megu.data.arrays import save_view
from megu.data.splits import make_split
from megu.scaffold import choices, parameters, plan

ROOT = Path(__file__).resolve().parents[2]
MADE = [".dvc/.gitignore", ".dvc/config", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml", "prefect.yaml"]
THEIRS = """\
# ours
stages:
    # before the first
    train:
        cmd: python train.py   # theirs
        deps: [data/raw]
plots:
  - a.csv
"""


def init(*arguments: str) -> int:
    return cli.guarded(lambda: cli.app(["init", *arguments], standalone_mode=False))


def files(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*") if path.is_file() and ".git" not in path.relative_to(root).parts)
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def in_git(root: Path) -> None:
    git(root, "init", "-q")
    (root / "train.py").write_text("print('theirs')\n")
    (root / ".gitignore").write_text("*.pyc\n.megu")


def in_git_and_dvc(root: Path) -> None:
    in_git(root)
    dvc.init(root)
    (root / ".dvc" / "config").write_text("[core]\n    remote = theirs\n")
    (root / "dvc.yaml").write_text(THEIRS)
    (root / ".dvcignore").write_bytes(b"*.tmp\r\n")
    (root / "data.dvc").write_text(
        "outs:\n- md5: 00000000000000000000000000000000.dir\n  size: 1\n  nfiles: 1\n  path: data/raw\n"
    )


def with_deployments(root: Path) -> None:
    (root / "prefect.yaml").write_text("deployments:\n- name: theirs\n  entrypoint: train.py:flow\n")


def with_params(root: Path) -> None:
    (root / "params.yaml").write_text("# mine\nseed: 3\ndata: {name: cifar10}\ntrain: {epochs: 1}\n")


@pytest.mark.parametrize(
    ("prepared", "made"),
    [
        (lambda root: None, MADE),
        (in_git, MADE),
        (in_git_and_dvc, MADE),
        (with_deployments, [*MADE, "prefect.megu.yaml"]),
        (with_params, MADE),
        (lambda root: (root / "dvc.yaml").write_text("plots: [a.csv]"), MADE),
    ],
    ids=["empty", "git", "git and dvc", "prefect", "params", "dvc without stages"],
)
def test_what_is_missing_is_added_and_what_is_there_stays(
    prepared: Callable[[Path], object], made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared(tmp_path)
    before = files(tmp_path)
    assert init(str(tmp_path), "--yes") == 0
    after = files(tmp_path)
    assert sorted(after) == sorted({*made, *before})
    for name, content in before.items():
        lines = iter(after[name].splitlines(keepends=True))
        assert all(line in lines or line + b"\n" in after[name] for line in content.splitlines(keepends=True)), name
    config = tree.load(tmp_path / "params.yaml")
    assert dvc.locked_outs(tmp_path, "split").why == "stage split has not run yet"
    assert ".megu" in {line.strip("/") for line in after[".gitignore"].decode().splitlines()}
    assert f"/data/{config.data.name}/" in after[".gitignore"].decode().splitlines()
    assert {path.stat().st_mode & 0o044 for path in tmp_path.iterdir()} == {0o044}, "others may read them"
    capsys.readouterr()
    assert init(str(tmp_path), "--yes") == 0
    assert capsys.readouterr().out.startswith("nothing to add")
    assert files(tmp_path) == after


def test_a_stage_goes_among_others_as_they_are_written(tmp_path: Path) -> None:
    in_git_and_dvc(tmp_path)
    assert init(str(tmp_path), "--yes") == 0
    text = (tmp_path / "dvc.yaml").read_text()
    assert list(yaml.safe_load(text)["stages"]) == ["split", "train"]
    assert [line for line in text.splitlines() if line in THEIRS.splitlines()] == THEIRS.splitlines()
    assert (tmp_path / ".dvcignore").read_bytes() == b"*.tmp\r\n.megu/\r\n.venv/\r\n__pycache__/\r\n"


def test_what_params_already_says_is_completed_for_dvc(tmp_path: Path) -> None:
    with_params(tmp_path)
    assert init(str(tmp_path), "--yes", "--data", "cifar10") == 0
    text = (tmp_path / "params.yaml").read_text()
    assert text.startswith("# mine\nseed: 3\ndata: {name: cifar10}\ntrain: {epochs: 1}\n")
    config = tree.load(tmp_path / "params.yaml")
    assert (config.seed, config.train.epochs, config.forget.classes) == (3, 1, ("airplane",))


@pytest.mark.parametrize(
    ("prepared", "arguments", "said"),
    [
        (
            lambda root: (root / "params.yaml").write_text("model: {depth: 3}\n"),
            (),
            r"is not a configuration of megu .*unknown key",
        ),
        (lambda root: (root / "params.yaml").write_text("a: [\n"), (), r"is not a configuration of megu .*line 2 is not YAML"),
        (with_params, ("--data", "cifar100"), r"is there already, and has data\.name: cifar10: change it there to cifar100"),
        (with_params, ("--model", "resnet18"), r"is there already, and has train\.arch: resnet-compact"),
        (lambda root: (root / "params.yaml").write_text("data: {per_class: 3}\n"), (), "has a section data without a name"),
        (lambda root: (root / "params.yaml").mkdir(), (), r"params\.yaml is a folder where a file is needed"),
        (lambda root: (root / "dvc.yaml").write_text("stages: {split: {cmd: cut}}\n"), (), "has another stage named split"),
        (
            lambda root: (root / "dvc.yaml").write_text("stages: {train: {cmd: t}}\n"),
            (),
            "could not be added to it .*: add it by",
        ),
        (lambda root: (root / "dvc.yaml").write_text("- a\n"), (), "cannot be read as YAML sections"),
        (lambda root: (root / "data").write_text(""), (), r"data is a file where a folder is needed: mv "),
        (lambda root: (root / ".dvc").write_text(""), (), r"\.dvc is a file where a folder is needed: mv "),
        (
            lambda root: (root / "data.dvc").write_text("outs: [{md5: a, size: 1, nfiles: 1, path: data}]\n"),
            (),
            "tracks data, and megu keeps each data set in a folder of its own",
        ),
        (lambda root: ((root / "splits").mkdir(), (root / "splits" / "a").touch()), (), "has files that are not megu's"),
        (
            lambda root: None,
            ("--data", "fashion"),
            r"--data fashion: there is no such data set here.*known: fashion-mnist, cifar",
        ),
        (
            lambda root: None,
            ("--model", "resnet"),
            r"--model: train.*arch = 'resnet' is out of range: it must be one of resnet-",
        ),
        (lambda root: (root / ".gitignore").write_bytes(b"\xff"), (), r"\.gitignore cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_nothing_is_written(
    prepared: Callable[[Path], object],
    arguments: tuple[str, ...],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prepared(tmp_path)
    before = files(tmp_path)
    assert init(str(tmp_path), "--yes", *arguments) == 2
    error = capsys.readouterr().err
    assert re.search(said, error)
    assert error.count("\n") == 1
    assert files(tmp_path) == before


def test_a_file_in_place_of_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert init(str(tmp_path / "file"), "--yes") == 2
    assert "is a file where a folder is needed" in capsys.readouterr().err


def test_without_a_terminal_nobody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert init(str(tmp_path / "new")) == 2
    assert "nobody is there to answer: use --yes, or --data NAME" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert init(str(tmp_path / "new"), "--data", "cifar100", "--model", "resnet18") == 0
    config = tree.load(tmp_path / "new" / "params.yaml")
    assert (config.data.name, config.train.arch) == ("cifar100", "resnet18")


def test_a_person_is_asked_for_what_is_not_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["cifar20"])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", lambda text, default, err: next(answers))
    assert init(str(tmp_path), "--model", "resnet18") == 0
    assert tree.load(tmp_path / "params.yaml").data.name == "cifar20"


def killed_at(number: int, root: Path) -> None:
    """Init in a process of its own that is killed when it is about to put its ``number``-th file in place."""
    if child := os.fork():
        os.waitpid(child, 0)
        return
    count, really = [0], Path.replace

    def replace(path: Path, target: Path) -> Path:
        count[0] += 1
        if count[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return really(path, target)

    Path.replace = replace  # type: ignore[method-assign,assignment]
    try:
        plan.apply(root, plan.changes(root, None, None, "megu.flows"))
    finally:
        os._exit(0)


@pytest.mark.parametrize("prepared", [lambda root: None, in_git_and_dvc], ids=["empty", "git and dvc"])
def test_a_kill_at_any_file_leaves_whole_files_and_the_next_init_finishes(
    prepared: Callable[[Path], object], tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    prepared(whole)
    before = files(whole)
    plan.apply(whole, plan.changes(whole, None, None, "megu.flows"))
    after = files(whole)
    for number in range(1, sum(after[name] != before.get(name) for name in after) + 1):
        root = tmp_path / str(number)
        root.mkdir()
        prepared(root)
        killed_at(number, root)
        found = {name: content for name, content in files(root).items() if ".writing-" not in name}
        assert len(found) < len(files(root)), "it was killed there"
        assert "params.yaml" not in found
        assert all(content in (before.get(name), after[name]) for name, content in found.items())
        plan.apply(root, plan.changes(root, None, None, "megu.flows"))
        assert files(root) == after


@pytest.mark.parametrize("name", choices.data_sets(Path("/nowhere")))
def test_the_configuration_is_the_default_one_with_what_was_chosen(name: str, tmp_path: Path) -> None:
    forget = choices.request(tmp_path, name)
    path = tmp_path / "params.yaml"
    path.write_text(parameters.text({"seed": 0, "device": "auto", "data": {"name": name}, "forget": forget}))
    config = tree.load(path)
    assert config == tree.parse({"data": {"name": name}, "forget": forget})
    path.write_text(re.sub(r"^( *)#((?:  )?\w+:)", r"\1\2", path.read_text(), flags=re.MULTILINE))
    values = yaml.safe_load(path.read_text())
    assert tree.load(path) == config, "what is commented out are the defaults"
    assert {f"{section}.{key}" for section, keys in values.items() if isinstance(keys, dict) for key in keys} == {
        f"{section}.{key}" for section, keys in config.to_json().items() if isinstance(keys, dict) for key in keys
    }


def test_the_request_fits_the_data_set_that_is_here(tmp_path: Path) -> None:
    pets = replace(toy(), classes=("cat", "dog", "owl"), coarse=None)
    save_view(tmp_path / "data" / "pets", pets, "pets")
    assert choices.request(tmp_path, "pets") == {"scenario": "class", "classes": ["cat"]}
    assert choices.data_sets(tmp_path)[-1] == "pets"
    assert init(str(tmp_path), "--yes", "--data", "pets") == 0
    config = tree.load(tmp_path / "params.yaml")
    assert len(make_split(arrays.load(tmp_path / "data" / "pets"), config.forget, config.seed).forget)


def test_this_repository_is_a_project_as_init_makes_them(tmp_path: Path) -> None:
    for name in (*MADE, "data.dvc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    assert plan.changes(tmp_path, None, None, "flows") == []
    assert (ROOT / "dvc.yaml").read_text() == (plan.TEMPLATES / "stages.yaml").read_text()
    own = re.sub(r"flows/(\w+)\.py:(\w+)", r"flows.\1.\2", (ROOT / "prefect.yaml").read_text())
    assert own.splitlines()[1:] == (plan.TEMPLATES / "prefect.yaml").read_text().splitlines()[1:]


def test_the_deployments_are_of_this_installation(tmp_path: Path) -> None:
    init(str(tmp_path), "--yes")
    entries = [entry["entrypoint"] for entry in yaml.safe_load((tmp_path / "prefect.yaml").read_text())["deployments"]]
    assert entries == ["flows.unlearn.unlearn", "flows.process.process", "flows.promote.promote"]
    plan.apply(tmp_path / "wheel", plan.changes(tmp_path / "wheel", None, None, "megu.flows"))
    text = (tmp_path / "wheel" / "prefect.yaml").read_text()
    assert re.findall("entrypoint: (.*)", text) == [f"megu.{entry}" for entry in entries]


def test_data_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.dvc").write_text("outs: 3\n")
    with pytest.raises(MeguError, match="is not a DVC file with pinned folders"):
        plan.changes(tmp_path, None, None, "flows")


@pytest.mark.parametrize("given", [{}, {"promotion": {"ladder": {"trials": 2}}}], ids=["nothing", "a key of a section inside"])
def test_a_section_inside_a_section_can_be_given_or_uncommented_as_a_whole(given: dict[str, dict[str, object]]) -> None:
    text = parameters.text(given)
    assert tree.parse({key: value for key, value in yaml.safe_load(text).items() if value}).promotion.ladder.trials == (
        2 if given else 3
    )
    hidden = text[text.index("  #ladder:") : text.index("\n\nlineage:")] if not given else "  ladder: {}"
    shown = yaml.safe_load("promotion:\n" + re.sub(r"^(\s*)#", r"\1", hidden, flags=re.MULTILINE))
    tree.parse(shown)
    assert given or shown["promotion"]["ladder"]["methods"] == ["delete", "scrub"]
