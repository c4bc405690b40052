"""Build the wheel, which owns the one import name ``megu``: the folders flows/ and tasks/ are its ``megu.flows`` and ``megu.tasks``.

A clone imports them by their own names, and so does an editable installation of it. Names as common as these two must not be taken from
whoever installs a wheel.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

MOVED = ("flows", "tasks")
_IMPORT = re.compile(rf"^(\s*)(from|import) ({'|'.join(MOVED)})\b", re.MULTILINE)


class BuildPy(build_py):
    """Copies the modules with the imports that they have in the wheel."""

    def build_module(self, module: Any, module_file: Any, package: Any) -> Any:
        built, copied = super().build_module(module, module_file, package)
        path = Path(built)
        path.write_text(_IMPORT.sub(r"\1\2 megu.\3", path.read_text(encoding="utf-8")), encoding="utf-8")
        return built, copied


# Namespace packages, since the folder of the prompts has no modules.
own, moved = (
    find_namespace_packages(include=["megu", "megu.*"]),
    find_namespace_packages(include=[f"{name}{end}" for name in MOVED for end in ("", ".*")]),
)
if "editable_wheel" in sys.argv:
    setup(packages=[*own, *moved])
else:
    setup(
        packages=[*own, *(f"megu.{name}" for name in moved)],
        package_dir={f"megu.{name}": name for name in MOVED},
        cmdclass={"build_py": BuildPy},
    )
