"""Which data set a request is about, and which one a registered model was trained on."""

from __future__ import annotations

import json
from collections.abc import Iterable

from megu.core.errors import MeguError
from megu.core.files.ledger import Event
from megu.core.project import Project
from megu.core.settings.sections import section
from megu.data import pins
from megu.data.params import DataParams
from megu.lineage.promoted.champions import MOVED


def configured(project: Project) -> str:
    """Return the data set that ``params.yaml`` names now."""
    return section(project.params, "data", DataParams).name


def must_exist(project: Project, name: str) -> None:
    """Raise `MeguError` for a data set that is neither here nor known to any provider."""
    from megu.data.sources import downloads

    if project.data(name).is_dir() or name in pins.read(project.root) or name in downloads.names():
        return
    known = sorted({*_here(project), *pins.read(project.root)})
    raise MeguError(
        f"there is no data set {name!r}", f"known here: {', '.join(known) or 'none'}; `megu data add` adds your own"
    )


def of_old_request(project: Project, events: Iterable[Event]) -> str:
    """Return the data set of a request from before requests named one: that of the run that forgot it, or the only one that this project
    ever had; empty where neither is known.
    """
    for event in events:
        if run := event.facts.get("mlflow_run"):
            try:
                return str(json.loads((project.dossiers / run / "dossier.json").read_bytes())["data"]["name"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
    ever = {configured(project), *pins.read(project.root), *_here(project), *of_champions(project).values()}
    return ever.pop() if len(ever) == 1 else ""


def of_champions(project: Project) -> dict[str, str]:
    """Return registered model -> the data set of its champion, according to the ledger; the model that moved last comes last."""
    found: dict[str, str] = {}
    for event in project.ledger.events(kind=MOVED):
        found.pop(event.subject, None)
        found[event.subject] = str(event.facts.get("data", ""))
    return {model: data for model, data in found.items() if data}


def _here(project: Project) -> set[str]:
    return {path.parent.name for path in project.root.glob("data/*/meta.json")}
