"""Packages with real entry points, installed for one test."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

#: Package name -> its ``__init__`` and modules; entry points of a group, ``megu.methods`` unless another is named.
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a package and its metadata where Python finds them, as ``pip install`` does; gives its folder."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    installed: list[str] = []

    def make(
        package: str, modules: dict[str, str], entries: dict[str, str], version: str = "1.2", group: str = "megu.methods"
    ) -> Path:
        folder, about = site / package, site / f"{package}-{version}.dist-info"
        for place in (folder, about):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
        for name, text in {"__init__": "", **modules}.items():
            (folder / f"{name}.py").write_text(text)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
        (about / "entry_points.txt").write_text(f"[{group}]\n{lines}")
        importlib.invalidate_caches()
        installed.append(package)
        return folder

    yield make
    for name in [name for name in sys.modules if name.split(".")[0] in installed]:
        del sys.modules[name]
