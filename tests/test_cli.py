"""The command line: its surface, its errors, its streams."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megu import cli

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copyfile(REPOSITORY / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.setenv("MEGU_PROJECT", str(tmp_path))
    return tmp_path


def call(*arguments: str) -> int:
    return cli.guarded(lambda: cli.app(list(arguments), standalone_mode=False))


def test_the_surface_is_what_the_readme_says() -> None:
    import typer.main

    command = typer.main.get_command(cli.app)
    assert sorted(command.commands) == [
        "bench",
        "data",
        "doctor",
        "down",
        "explain",
        "methods",
        "params",
        "run",
        "status",
        "up",
    ]
    assert sorted(command.commands["data"].commands) == ["add", "fetch", "status"]
    options = {option for parameter in command.commands["run"].params for option in parameter.opts}
    assert options == {"--params", "--set", "--dry-run", "--json", "--quiet", "-q"}
    options = {option for parameter in command.commands["bench"].params for option in parameter.opts}
    assert options == {"file", "--set", "--dry-run", "--json", "--quiet", "-q", "--out", "--document"}


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom megu import cli\n"
        "try: cli.app(['run', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'prefect', 'mlflow', 'dvc', 'matplotlib', 'torchvision'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY, capture_output=True)


WRONG = {
    "unknown key": (["explain", "--set", "noise.stepz=3"], "unknown key noise.stepz: did you mean steps?"),
    "out of range": (["run", "--set", "unlearn.alpha=2"], "unlearn.alpha = 2"),
    "no such file": (["run", "--params", "other.yaml"], "no configuration file"),
    "no such option": (["run", "--fast"], "No such option: --fast"),
    "no such command": (["fly"], "No such command 'fly'"),
    "missing weights": (["run", "--set", "original.weights=none.safetensors"], "there is no file none.safetensors"),
    "weights that are none": (["run", "--set", "original.weights=params.yaml"], "params.yaml"),
    "no such benchmark": (["bench", "none.yaml"], "no configuration file"),
    "nothing to add": (["data", "add", "nowhere", "--name", "mine"], "nowhere"),
    "no such data set": (["data", "fetch", "fashion"], "fashion"),
    "port out of range": (["up", "--prefect-port", "70000"], "65535"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_gets_one_line_and_exit_code_2(case: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, said = WRONG[case]
    assert call(*arguments) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert said in streams.err
    assert streams.err.startswith("megu: ")
    assert streams.err.count("\n") == 1
    assert "Traceback" not in streams.err
    assert not (root / "data").exists()
    assert not (root / "results").exists()


def test_a_port_in_use_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert call("up", "--prefect-port", str(port)) == 2
    said = capsys.readouterr().err
    assert str(port) in said
    assert "--prefect-port" in said
    assert not (root / ".megu" / "services.json").exists()


def test_outside_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("MEGU_PROJECT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert call("explain") == 2
    assert "no params.yaml" in capsys.readouterr().err


def test_interrupt_is_exit_130_and_says_that_work_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert cli.guarded(interrupted) == 130
    assert "kept" in capsys.readouterr().err


def test_a_fresh_project_has_everything_to_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "--dry-run", "--json") == 0
    import json

    stages = json.loads(capsys.readouterr().out)["stages"]
    assert [stage["cache"] for stage in stages] == ["miss"] * len(stages)
    assert stages[0]["why"] == "never run before"
    assert not (root / "data").exists()


@pytest.mark.slow
def test_the_program_answers_help_within_a_second() -> None:
    """Not a benchmark: that a heavy import has crept in is what it is for, so the best of three counts."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "megu.cli", "--help"], check=True, cwd=REPOSITORY, capture_output=True)
        times.append(time.perf_counter() - started)
    assert min(times) < 1
