"""flows -> tasks -> megu, never back; each outside package only where it belongs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for package in ("megu", "tasks", "flows") for path in (ROOT / package).rglob("*.py"))

#: package -> where it may be imported; everything else may not. `cli` composes the program, and nothing imports it.
ALLOWED = {
    "flows": ("flows/", "megu/cli/main.py", "megu/commands/"),
    "tasks": ("flows/", "tasks/", "megu/cli/main.py", "megu/commands/"),
    "prefect": ("flows/", "tasks/"),
    "mlflow": ("megu/tracking/",),
    "dvc": (),  # DVC is used by its command line
    "ollama": ("megu/labeling/",),
    "pydantic": ("megu/config/tree.py", "megu/lineage/dossier.py"),
    "typer": ("megu/cli/main.py", "megu/commands/"),
    "rich": ("megu/cli/terminal.py", "megu/cli/main.py"),
    "cryptography": ("megu/lineage/keys.py", "megu/lineage/dossier.py", "megu/lineage/purged/document.py"),
    "pickle": (),
    "joblib": (),
}

#: What the method may import: it must run where only torch and numpy are installed.
METHOD = [
    "training",
    "entanglement",
    "transition",
    "perturbing",
    "noise",
    "methods",
    "evaluation",
    "evaluation.shadows",
    "evaluation.relearning",
    "evaluation.guide",
    "gate",
    "models",
    "data.tensors",
    "device",
    "distributed",
]


#: What it must do without.
REFUSED = [
    "prefect",
    "mlflow",
    "dvc",
    "pydantic",
    "yaml",
    "safetensors",
    "matplotlib",
    "rich",
    "typer",
    "torchvision",
    "PIL",
    "sklearn",
    "scipy",
]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    here = str(path.relative_to(ROOT))
    for package in imported(path) & set(ALLOWED):
        assert here.startswith(ALLOWED[package]), f"{here} imports {package}"


def test_nothing_imports_the_command_line() -> None:
    for path in FILES:
        assert "megu.cli.main" not in path.read_text() or path.name in ("cli.py", "__main__.py"), path


def test_the_method_needs_only_torch_and_numpy() -> None:
    modules = ", ".join(f"megu.{name}" for name in METHOD)
    program = f"import sys\nfor name in {REFUSED}: sys.modules[name] = None\nimport {modules}\n"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
