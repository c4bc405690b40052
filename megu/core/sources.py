"""What identifies the code that a stage runs: a digest of its own module and of every megu module that it imports, directly or not, and
the version of every other package that these import.

Only meaning counts. A comment, a docstring or a blank line changes nothing; a changed helper three imports away does.
The imports are read from the syntax tree, so nothing has to be imported to know the digest.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from megu.core.errors import MeguError
from megu.core.files.store import writing

PACKAGES = ("megu", "tasks")

#: Modules whose code cannot change what a stage computes: how it is called, shown, stored and found. Values that come from
#: the configuration are in the cache key themselves. Registries are among these modules, so that a new entry reruns nothing: the
#: code of what is looked up in one is in the key as a value (`megu.core.stages.Code`).
SURROUNDINGS = frozenset(
    {
        "megu",
        "megu.config.tree",
        "megu.core.errors",
        "megu.unlearning.methods",
        "megu.core.plugins",
        "megu.core.progress",
        "megu.core.project",
        "megu.core.sources",
        "megu.core.stages",
        "tasks.run.engine",
        "megu.tasks.run.engine",  # its name where a wheel is installed (setup.py)
    }
)

#: Imported packages whose version cannot change a number that a stage computes: they run, store, record, read or draw it.
AROUND = frozenset(
    {"cryptography", "dvc", "dvc_data", "httpx", "jinja2", "markupsafe", "mlflow", "ollama", "packaging", "prefect"}
)
AROUND |= {"psutil", "pydantic", "pydantic_core", "rich", "safetensors", "sqlalchemy", "starlette", "typer", "uvicorn", "yaml"}

#: Suffixes of the folders and files that describe what is installed beside them.
METADATA = (".dist-info", ".egg-info", ".egg-link")

#: Prefix of a package's name among digests by module.
PACKAGE = "package "

ROOT = Path(__file__).resolve().parents[2]


def module_file(module: str, root: Path) -> Path | None:
    """Return the file of a megu module, or None when ``module`` names no module (a function, say)."""
    path = root.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def imports(tree: ast.AST, module: str, *, package: bool, packages: Collection[str] | None = PACKAGES) -> set[str]:
    """Return every module of ``packages`` (None: of any) that ``tree`` may import, wherever in it the import is."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".") if package else module.split(".")[:-1]
                base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
            # "from megu.data import arrays" may name a module or an attribute; the caller drops names without a file.
            found.update((base, *(f"{base}.{alias.name}" for alias in node.names)))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            named = node.args[0]
            if isinstance(named, ast.Constant) and isinstance(named.value, str) and not named.value.startswith("."):
                found.add(named.value)
    return {parent for name in found for parent in lineage(name) if packages is None or name.split(".")[0] in packages}


def lineage(module: str) -> list[str]:
    """Return a module and its parent packages: importing it runs them all."""
    names = module.split(".")
    return [".".join(names[: end + 1]) for end in range(len(names))]


def meaning(source: str) -> str:
    """Return the syntax tree of ``source`` as text, without docstrings (comments and layout are not in a tree)."""
    return _meaning(ast.parse(source))


def _meaning(tree: ast.Module) -> str:
    """As `meaning`; removes the docstrings from ``tree``."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
                node.body = node.body[1:]
    return ast.dump(tree)


#: Shared from one process to the next, so that each need not parse all sources and read the files of all installed packages again: by
#: the `_signature` of what was read, in a file of the project (`remember`).
_memory: dict[str, Any] = {}


def remember(file: Path) -> None:
    """Load what `save` wrote to ``file``; invalid content is ignored."""
    try:
        left = json.loads(file.read_bytes())
        _memory.update(left["found"] if left["by"] == _reader() else {})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return


def save(file: Path) -> None:
    """Save what was read for the next process; if it cannot be written, that process reads again."""
    with contextlib.suppress(OSError, MeguError), writing(file) as temporary:
        temporary.write_text(json.dumps({"by": _reader(), "found": _memory}), encoding="utf-8")


def _reader() -> list[Any]:
    """Return what a digest depends on besides the file: this module, and Python's syntax trees."""
    return [sys.version, *_signature(Path(__file__))]


def _signature(path: Path) -> list[int]:
    """Return what every change of a file or folder changes: its inode and its times, the second of which nobody can set."""
    status = path.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _remembered(name: str, signature: list[Any], read: Callable[[], Any]) -> Any:
    """Return what was read under a name if the signature is unchanged, else read it now. JSON values only."""
    if _memory.get(name, [None])[0] != signature:
        _memory[name] = [signature, read()]
    return _memory[name][1]


def _read(path: Path, module: str) -> tuple[str, frozenset[str]]:
    """The digest and the imports of one file."""

    def read() -> list[Any]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = imports(tree, module, package=path.name == "__init__.py", packages=None)
        return [hashlib.sha256(_meaning(tree).encode()).hexdigest(), sorted(found)]

    digest, found = _remembered(f"{module} {path}", _signature(path), read)
    return digest, frozenset(found)


def file_digest(module: str, path: Path) -> str:
    """Return the digest of one module's meaning, as used in cache keys."""
    return _read(path, module)[0]


def closure(module: str, root: Path | None = None, others: Mapping[str, Path] | None = None) -> dict[str, str]:
    """Return the digest by module, of ``module`` and everything it imports from megu's packages, except `SURROUNDINGS`; and, as
    "package NAME", the version of every installed package that these import, except `AROUND`.

    others: further packages whose imports are followed, each with its folder. Modules that they import from the same folder, and that
    belong to no installed package, are followed too.

    Without ``root`` and ``others`` it is read once per process: imported code stays as it was when a file changes, and so
    must the key of what the process computes.
    """
    if root is None and others is None:
        return dict(_own(module, ROOT))
    return _follow(module, root or ROOT, others or {})


@functools.cache
def _own(module: str, root: Path) -> Mapping[str, str]:
    return _follow(module, root, {})


def _follow(module: str, root: Path, others: Mapping[str, Path]) -> dict[str, str]:
    places = {**dict.fromkeys(PACKAGES, root), **others}
    found: dict[str, str] = {}
    waiting, met = lineage(module), set(SURROUNDINGS)
    while waiting:
        name = waiting.pop()
        if name in met:
            continue
        met.add(name)
        top = name.split(".")[0]
        if top not in places:
            versions = installed(top)
            found |= versions
            folder = None if versions or not others else beside(top)
            if folder is None:
                continue
            places[top] = folder
        path = module_file(name, places[top])
        if path is None:
            continue
        found[name], wanted = _read(path, name)
        waiting.extend(wanted)
    return dict(sorted(found.items()))


@functools.cache
def installed(top: str) -> dict[str, str]:
    """Return the version, by "package NAME", of each distribution that provides the top-level module ``top``; none for the standard
    library, `AROUND`, or a distribution that runs from its sources.
    """
    if top in sys.stdlib_module_names or top in AROUND or not top:
        return {}
    names = _distributions().get(top, [])
    return {f"{PACKAGE}{name}": metadata.version(name) for name in sorted(set(names)) if not _editable(name)}


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    # Installing a package rewrites its metadata folder; the folder around it changes for other reasons too (the project's
    # own folder is on Python's path with `python -m megu`).
    folders = [folder for folder in sys.path if os.path.isdir(folder) and os.access(folder, os.R_OK)]
    entries = [Path(folder, name) for folder in folders for name in sorted(os.listdir(folder)) if name.endswith(METADATA)]
    signature = [[str(entry), *_signature(entry)] for entry in entries]
    found: Mapping[str, list[str]] = _remembered("distributions", signature, lambda: dict(metadata.packages_distributions()))
    return found


def _editable(name: str) -> bool:
    """Whether a distribution is a link to sources that change under the same version."""
    origin = json.loads(metadata.distribution(name).read_text("direct_url.json") or "{}")
    return bool(origin.get("dir_info", {}).get("editable"))


def beside(top: str) -> Path | None:
    """Return the folder of a module that no distribution provides; None for the standard library and for modules that cannot be found."""
    if top in sys.stdlib_module_names or top in AROUND:
        return None
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    places = [*(spec.submodule_search_locations or []), *([spec.origin] if spec.origin else [])] if spec else []
    return Path(places[0]).parent if places else None


def combined(digests: Iterable[tuple[str, str]]) -> str:
    """Return one digest of several."""
    return hashlib.sha256("\n".join(f"{name} {digest}" for name, digest in sorted(digests)).encode()).hexdigest()
