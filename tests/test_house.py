"""The house: which room may need which, how large a room and a file may be, and that a room says what it is for."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for package in ("megu", "tasks", "flows") for path in (ROOT / package).rglob("*.py"))
ROOMS = sorted({path.parent for path in FILES})
HERE = {path: str(path.relative_to(ROOT)) for path in FILES}

#: Package -> where it may be imported; everything else may not. The command line and the public project
#: compose the program, and nothing else imports it.
ALLOWED = {
    "flows": ("flows/", "megu/cli/", "megu/api/project.py"),
    "tasks": ("flows/", "tasks/", "megu/cli/", "megu/api/project.py"),
    "prefect": ("flows/", "tasks/"),
    "mlflow": ("megu/tracking/", "megu/servers/databases.py"),
    "dvc": (),  # DVC is used by its command line
    "ollama": ("megu/labeling/",),
    "pydantic": ("megu/config/tree.py", "megu/lineage/dossier.py"),
    "typer": ("megu/cli/main.py", "megu/cli/common.py", "megu/cli/commands/"),
    "rich": ("megu/cli/terminal.py", "megu/cli/common.py"),
    "cryptography": ("megu/lineage/keys.py", "megu/lineage/dossier.py", "megu/lineage/purged/document.py"),
    "pickle": (),
    "joblib": (),
}

#: What the method may import: it must run where only torch and numpy are installed.
METHOD = [
    "training.loop",
    "training.distributed",
    "unlearning.entanglement",
    "unlearning.labels.transition",
    "unlearning.labels.perturbing",
    "unlearning.noise",
    "unlearning.methods",
    "evaluation",
    "evaluation.attacks.shadows",
    "evaluation.relearning",
    "evaluation.deep",
    "evaluation.guide",
    "evaluation.gate",
    "evaluation.own",
    "evaluation.comparison",
    "data.splits",
    "labeling.kinds",
    "api.request",
    "api.unlearning",
    "api.evaluating",
    "models",
    "data.tensors",
    "core.device",
]
#: What it must do without.
REFUSED = ["prefect", "mlflow", "dvc", "pydantic", "yaml", "safetensors", "matplotlib", "rich", "typer", "torchvision"]
REFUSED += ["PIL", "sklearn", "scipy"]

#: Files of a room, and lines of a file that does not say in its docstring why it is one file.
MOST_FILES, MOST_LINES, REASON = 12, 400, "One file because"


def imported(path: Path) -> set[str]:
    """The modules that a file imports while it runs, as far as names say: ``a.b`` for both ``import a.b`` and ``from a import b``."""
    names: set[str] = set()
    skipped: set[ast.AST] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped.update(inner for statement in node.body for inner in ast.walk(statement))
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


IMPORTED = {path: imported(path) for path in FILES}


def room(name: str) -> str:
    """The room of ``megu`` that a module is in: "core" of "megu.core.files.store"; empty for what is in none."""
    parts = name.split(".")
    return parts[1] if parts[0] == "megu" and len(parts) > 1 and (ROOT / "megu" / parts[1]).is_dir() else ""


def needed() -> dict[str, dict[str, list[str]]]:
    """Room -> room that it needs -> the files that need it."""
    found: dict[str, dict[str, list[str]]] = {}
    for path, names in IMPORTED.items():
        own = room(HERE[path].replace("/", ".")) if path.parent != ROOT / "megu" else ""
        for other in {room(name) for name in names} - {own, ""}:
            if own:
                found.setdefault(own, {}).setdefault(other, []).append(HERE[path])
    return found


def test_imports_go_one_way() -> None:
    for path, names in IMPORTED.items():
        for package in {name.split(".")[0] for name in names} & set(ALLOWED):
            assert HERE[path].startswith(ALLOWED[package]), f"{HERE[path]} imports {package}"


def test_no_room_needs_one_that_needs_it() -> None:
    TopologicalSorter({own: set(others) for own, others in needed().items()}).prepare()


def test_the_core_needs_no_other_room_and_erasure_depends_on_lineage() -> None:
    rooms = needed()
    assert "core" not in rooms
    assert set(rooms["data"]) == {"core"}
    assert "lineage" in rooms["erasure"]


def test_nothing_imports_the_command_line() -> None:
    for path, names in IMPORTED.items():
        if not HERE[path].startswith(("megu/cli/", "megu/__main__.py")):
            assert not any(name.startswith("megu.cli") for name in names), HERE[path]


def test_the_method_needs_only_torch_and_numpy() -> None:
    modules = ", ".join(f"megu.{name}" for name in METHOD)
    program = f"import sys\nfor name in {REFUSED}: sys.modules[name] = None\nimport {modules}\n"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_nothing_but_the_public_face_is_loose() -> None:
    assert sorted(path.name for path in (ROOT / "megu").glob("*.py")) == ["__init__.py", "__main__.py"]


@pytest.mark.parametrize("folder", ROOMS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_room_is_small_and_says_what_it_is_for(folder: Path) -> None:
    names = [path.name for path in folder.glob("*.py") if not path.name.startswith("__")]
    assert len(names) <= MOST_FILES, names
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    assert len(said.splitlines()) >= 2 or folder == ROOT / "megu", "two lines say what the room is for"


def there(name: str, folder: Path | None = None) -> bool:
    """Whether a dotted name is a module of ours, or something that one says. folder: where a name without dots is a module of."""
    if folder is not None:
        return any((folder / f"{name}{end}").exists() for end in ("", ".py"))
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        for path in (ROOT.joinpath(*parts[:count]).with_suffix(".py"), ROOT.joinpath(*parts[:count], "__init__.py")):
            if path.is_file():
                return all(re.search(rf"\b{part}\b", path.read_text()) for part in parts[count:])
    return False


@pytest.mark.parametrize("top", ["megu", "tasks", "flows", "tests"])
def test_what_is_named_in_backticks_is_there(top: str) -> None:
    for path in (ROOT / top).rglob("*.py"):
        text = path.read_text()
        named = re.findall(r"(?<!`)`((?:megu|tasks|flows)(?:\.\w+)+)`(?!`)", text)
        assert not [name for name in named if not there(name)], path
        if path.name == "__init__.py" and top != "tests":
            rooms = re.findall(r"(?<!`)`([a-z_]\w*)`(?!`)", ast.get_docstring(ast.parse(text)) or "")
            assert not [name for name in rooms if not (there(name, path.parent) or f"def {name}" in text)], path


def test_a_long_file_says_why_it_is_one() -> None:
    for path in FILES:
        text = path.read_text()
        said = ast.get_docstring(ast.parse(text)) or ""
        assert len(text.splitlines()) <= MOST_LINES or REASON in said, (
            f"{HERE[path]}: split it, or say in its docstring '{REASON} …'"
        )
