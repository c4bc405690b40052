"""The command line: its surface, its errors, its streams."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from megu.cli import main as cli
from megu.unlearning.methods import METHODS

REPOSITORY = Path(__file__).resolve().parents[2]


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
        "automations",
        "bench",
        "cache",
        "certificate",
        "data",
        "doctor",
        "down",
        "explain",
        "export",
        "init",
        "keys",
        "label",
        "lineage",
        "methods",
        "models",
        "params",
        "process",
        "promote",
        "purge",
        "request",
        "rollback",
        "run",
        "serve",
        "status",
        "suppress",
        "up",
        "verify",
    ]
    assert sorted(command.commands["request"].commands) == [
        "add", "close", "list", "retry", "serve", "show", "take", "withdraw",
    ]  # fmt: skip
    assert sorted(command.commands["cache"].commands) == ["list", "prune", "size"]
    options = {option for parameter in command.commands["cache"].commands["prune"].params for option in parameter.opts}
    assert options == {"--older-than", "--run", "--dry-run", "--json"}
    assert sorted(command.commands["lineage"].commands) == ["diff", "index", "show", "which"]
    options = {option for parameter in command.commands["verify"].params for option in parameter.opts}
    assert options == {"target", "--replay", "--sealed", "--key", "--json"}
    options = {option for name in ("certificate", "export") for entry in command.commands[name].params for option in entry.opts}
    assert options == {"target", "--out", "--key", "--format", "--request", "--language"}
    options = {option for parameter in command.commands["purge"].params for option in parameter.opts}
    assert options == {"runs", "--apply", "--ignore-run", "--params", "--set", "--json"}
    assert sorted(command.commands["suppress"].commands) == ["check", "export", "import", "list", "remove"]
    assert sorted(command.commands["keys"].commands) == ["adopt", "create"]
    assert sorted(command.commands["data"].commands) == ["add", "fetch", "status", "subjects"]
    options = {option for parameter in command.commands["run"].params for option in parameter.opts}
    assert options == {"--params", "--set", "--dry-run", "--json", "--quiet", "-q"}
    options = {option for parameter in command.commands["bench"].params for option in parameter.opts}
    assert options == {"file", "--set", "--dry-run", "--json", "--quiet", "-q", "--out", "--document"}
    options = {option for parameter in command.commands["label"].params for option in parameter.opts}
    assert options == {"--params", "--set", "--dry-run", "--show", "--json", "--quiet", "-q"}


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom megu.cli import main as cli\n"
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
    "unknown labeler": (["label", "--set", "labeling.kind=olama"], "no such kind, did you mean ollama?"),
    "another labeler's key": (["run", "--set", "labeling.host=gpu"], "unknown key labeling.host"),
    "a labeler that is not there": (
        ["run", "--set", "labeling.kind=ollama", "--set", "labeling.host=127.0.0.1:9"],
        "there is no Ollama server at http://127.0.0.1:9: ollama serve",
    ),
    "nothing to show": (["label", "--show", "--quiet"], "no labeling of fashion-mnist by this labeler is cached: megu label"),
    "nothing to purge": (["purge"], "no run here has forgotten what it should by its own verdict"),
    "no such run": (["purge", "nobody"], "there is no dossier of nobody"),
    "a policy out of range": (["purge", "--set", "purge.models_days=-1"], "purge.models_days = -1"),
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


def test_interrupt_is_exit_130_and_says_that_work_is_saved(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert cli.guarded(interrupted) == 130
    assert "saved" in capsys.readouterr().err


def test_a_fresh_project_has_everything_to_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "--dry-run", "--json") == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert [stage["cache"] for stage in stages] == ["miss"] * len(stages)
    assert stages[0]["why"] == "never run before"
    assert not (root / "data").exists()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_can_be_planned_with_a_labeler_or_without(
    method: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["explain"], ["run", "--dry-run"]):
        assert call(*command, "--json", "--set", f"unlearn.method={method}") == 0
        found = json.loads(capsys.readouterr().out)
        labeled = any(stage["name"] == "labeling" for stage in found["stages"])
        assert labeled == ("perturbing" in METHODS[method].needs)
        assert found["labeling"] is None, "the prototype labeler asks nobody"


@pytest.mark.parametrize("command", ["run", "label"])
@pytest.mark.parametrize(("strategy", "calls"), [("screened", 1_010), ("pairwise", 1_010), ("ranked", 130)])
def test_what_asking_will_cost_is_said_before_and_without_a_server(
    root: Path, capsys: pytest.CaptureFixture[str], command: str, strategy: str, calls: int
) -> None:
    settings = ["--set", "labeling.kind=ollama", "--set", f"labeling.strategy={strategy}", "--set", "labeling.host=127.0.0.1:9"]
    assert call(command, "--dry-run", "--json", *settings) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["strategy"], plan["calls"]) == (strategy, calls)
    assert plan["labeling"] == {"strategy": strategy, "calls": calls, "minutes": round(calls / 60, 2)}
    assert call(command, "--dry-run", *settings) == 0
    assert f"at most {calls:,} questions" in capsys.readouterr().out


def test_a_labeler_that_asks_nobody_costs_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("label", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["labeling"] is None


@pytest.mark.parametrize(
    "arguments", [("--help",), ("run", "--help"), ("process", "--help"), ("purge", "--help"), ("--version",)]
)
def test_help_waits_for_no_heavy_package(arguments: tuple[str, ...]) -> None:
    """In seconds that is another number on every machine; what makes it slow is an import of one of these (pydantic is Typer's own)."""
    heavy = ("torch", "numpy", "mlflow", "prefect", "dvc", "sqlalchemy", "matplotlib", "httpx", "ollama", "PIL", "jinja2")
    program = (
        "import sys\nfrom megu.cli.main import main\nsys.argv = ['megu', *sys.argv[1:]]\n"
        f"try: main()\nexcept SystemExit: pass\nprint(*(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, cwd=REPOSITORY, capture_output=True, text=True
    )
    assert run.stdout
    assert run.stderr.split() == []


def test_the_models_are_listed_for_the_data_set(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    from megu.data.arrays import save
    from megu.models import MODELS, build

    assert call("models", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["data"] is None
    assert (listed["classes"], listed["channels"], listed["height"], listed["width"]) == (10, 3, 32, 32)
    images = np.zeros((6, 12, 8, 1), dtype=np.uint8), np.arange(6) % 3
    save(root / "data" / "own", name="own", classes="abc", train=images, test=images)
    assert call("models", "--json", "--set", "data.name=own") == 0
    listed = json.loads(capsys.readouterr().out)
    assert (listed["data"], listed["classes"], listed["channels"], listed["height"], listed["width"]) == ("own", 3, 1, 12, 8)
    assert [model["name"] for model in listed["models"]] == list(MODELS)
    for model in listed["models"]:
        if model["name"] != "vit-b-16":
            built = build(model["name"], 3, 1, seed=0, image_size=(12, 8))
            assert model["parameters"] == sum(p.numel() for p in built.parameters())
        assert model["takes"]
    assert call("models") == 0
    assert "resnet18: 11,17" in capsys.readouterr().out


def test_adding_images_says_what_came_of_it(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np
    from PIL import Image

    for split in ("train", "test"):
        for label in ("cat", "dog", "oak"):
            (tmp_path / "own" / split / label).mkdir(parents=True)
            for n in range(4):
                pixels = np.random.default_rng(n).integers(0, 256, (5 + n, 6, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "own" / split / label / f"{n}.png")
    (tmp_path / "own" / "train" / "dog" / "1.png").write_bytes(b"no")
    (tmp_path / "s.json").write_text(json.dumps({"animal": ["cat", "dog"], "tree": ["oak"]}))
    arguments = ["data", "add", str(tmp_path / "own"), "--name", "own", "--superclasses", str(tmp_path / "s.json")]
    arguments += ["--labels", "coarse", "--size", "4x8"]
    assert call(*arguments) == 2
    assert "1 of 24 files are not images that can be read" in capsys.readouterr().err
    assert call(*arguments, "--max-corrupt", "0.05") == 0
    streams = capsys.readouterr()
    assert "own: 11 + 12 images of 4 x 8 pixels, colour, 2 classes (superclasses of 3)" in streams.out
    assert "left out: train/dog/1.png: not an image" in streams.err
    assert " in train and in test (train/" in streams.err
    assert " in two classes (train/" in streams.err
    meta = json.loads((root / "data" / "own" / "meta.json").read_text())
    assert len(meta["left_out"]) == 1
    assert meta["resized"].startswith("to 4 x 8 pixels")
    part = ["data", "add", str(tmp_path / "own"), "--name", "part", "--only", "oak,cat", "--per-class", "2", "--size", "4"]
    assert call(*part) == 0
    said = capsys.readouterr().out
    assert "part: 4 + 4 images of 4 x 4 pixels, colour, 2 classes" in said
    assert "part: a part of the available images: 2 class folders, at most 2 images of each class and split" in said
