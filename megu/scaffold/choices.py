"""The data sets that a new project can use, and what is forgotten from each by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from megu.core.errors import MeguError
from megu.data import arrays, pins
from megu.data.sources import cifar, downloads
from megu.data.splits import ForgetParams


def data_sets(root: Path) -> list[str]:
    """Return those that can be fetched by name, then those that are in the project or pinned there."""
    here = {path.parent.name for path in (root / "data").glob("*/meta.json")} | set(pins.read(root))
    known = downloads.names()
    return [*sorted(known, key=lambda name: name != downloads.DEFAULT), *sorted(here - set(known))]


def check_data_set(root: Path, name: str) -> None:
    """Raise `MeguError` for a data set that is neither here nor fetchable."""
    if name not in (known := data_sets(root)):
        raise MeguError(
            f"--data {name}: there is no such data set here, and none with that name can be fetched",
            f"known: {', '.join(known)}; for images of your own run `megu init` without it, then `megu data add FOLDER --name NAME`",
        )


def request(root: Path, name: str) -> dict[str, Any]:
    """Return the section ``forget`` of a new project: a class of the data set, or random images if its classes are not known yet."""
    classes, default = _classes(root, name), ForgetParams().classes
    if not classes:
        return {"scenario": "random", "count": ForgetParams().count}
    return {"scenario": "class", "classes": [*default] if set(default) <= set(classes) else [classes[0]]}


def _classes(root: Path, name: str) -> tuple[str, ...]:
    if (root / "data" / name / "meta.json").is_file():
        return arrays.load(root / "data" / name).classes
    if name in downloads.COARSE_OF:
        return tuple(cifar.SUPERCLASSES)
    return downloads.CLASSES.get(name) or (cifar.KINDS[name].classes if name in cifar.KINDS else ())
