"""The wheel owns the one import name ``megu``, and works beside torch and numpy alone and beside a user's own ``tasks.py``."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from lineage_fixtures import slice_of
from test_house import METHOD, REFUSED

from megu.data.arrays import Dataset

# One group: the wheel is built and installed once. One test needs the group's server.
pytestmark = pytest.mark.xdist_group("flow")

ROOT = Path(__file__).resolve().parents[2]
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "CITATION.cff")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since building leaves folders beside the sources."""
    copied, out = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in FILES:
        shutil.copy(ROOT / name, copied)
    for name in ("megu", "flows", "tasks"):
        shutil.copytree(ROOT / name, copied / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", out, copied]
    subprocess.run(command, check=True)
    (made,) = out.glob("megu-*.whl")
    return made


def test_it_has_every_file_under_its_one_name(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in names} == {"megu"}
    kept = {path for room in ("megu", "flows", "tasks") for path in (ROOT / room).rglob("*") if path.is_file()}
    wanted = {str(path.relative_to(ROOT)) for path in kept if "__pycache__" not in path.parts}
    assert names == {name if name.startswith("megu/") else f"megu/{name}" for name in wanted}


def test_all_that_its_modules_import_of_it_is_in_it(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    files = {name for name in archive.namelist() if name.endswith(".py")}
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in files}
    for file in files:
        for node in ast.walk(ast.parse(archive.read(file))):
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            named += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in named:
                assert name.split(".")[0] not in ("flows", "tasks"), f"{file} imports {name}"
                assert name.split(".")[0] != "megu" or name in modules, f"{file} imports {name}"


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an empty environment with the wheel, which sees the packages of this one but not its link to the clone."""
    place = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)}))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", own, wheel]
    subprocess.run(command, check=True)
    (own / "theirs.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return place / "bin" / "python"


def test_in_an_empty_environment_it_takes_no_other_name_and_unlearns(python: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("OWN = 'a task of the user'\n")
    program = f"""if True:
        import sys
        for name in {REFUSED}: sys.modules[name] = None
        import {", ".join(f"megu.{name}" for name in METHOD)}
        import json, megu, numpy, tasks, torch
        try:
            import flows
        except ModuleNotFoundError:
            flows = None
        random = numpy.random.default_rng(0)
        images, labels = random.integers(0, 256, (90, 8, 8, 1), dtype="uint8"), numpy.arange(90) % 3
        data = megu.Dataset.of((images[:60], labels[:60]), (images[60:], labels[60:]))
        split = megu.forget(data, classes=["2"])
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
        found = megu.unlearn(model, forget=split.forget, retain=split.retain, labeler=None, steps=5, lr=0.01, device="cpu")
        scores = megu.evaluate(found.model, data, split, device="cpu")
        print(json.dumps([megu.__file__, tasks.OWN, flows, scores.metrics["Af"], len(found.targets.labels)]))
    """
    done = subprocess.run([python, "-c", program], cwd=tmp_path, env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    place, own, flows, accuracy, taught = json.loads(done.stdout)
    assert Path(place).is_relative_to(python.parents[1])
    assert (own, flows, taught) == ("a task of the user", None, 20)
    assert 0 <= accuracy <= 100


#: Commands of the installed package, one after the other in one process; one that fails ends it.
COMMANDS = """
import json, sys
import megu.__main__
from megu.cli.main import app, guarded
for command in json.loads(sys.argv[1]):
    code = guarded(lambda: app(command, standalone_mode=False))
    if code:
        sys.exit(code)
"""
SMALL = ["train.epochs=1", "unlearn.method=ssd", "reference.enabled=false", "device=cpu"]


@pytest.mark.slow
def test_init_run_and_verify_work_there(python: Path, tmp_path: Path, fashion_mnist: Dataset, prefect_server: None) -> None:
    from prefect.settings import get_current_settings

    slice_of(fashion_mnist, tmp_path, train=12, test=6)
    settings = [part for setting in SMALL for part in ("--set", setting)]
    commands = [["init", "--yes", "--data", "slice"], ["run", "--quiet", *settings], ["verify", "models:/megu@challenger"]]
    environment = {"PREFECT_API_URL": str(get_current_settings().api.url), "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [python, "-c", COMMANDS, json.dumps(commands)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 2), done.stderr  # 2: the project is in no git, so not all can be checked
    assert "nothing differs" in done.stdout
    assert "registered   models:/megu/1" in done.stdout
    assert (tmp_path / "dvc.lock").is_file()
