"""Where a project stores its files: the folder with ``params.yaml`` is the root, ``.megu`` inside it the home."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from megu.core.errors import MeguError
from megu.core.files.ledger import Ledger
from megu.core.files.store import Store

PARAMS = "params.yaml"


@dataclass(frozen=True)
class Project:
    """The paths of one project. Creating the object touches nothing on disk."""

    root: Path

    @property
    def home(self) -> Path:
        """Everything computed here: store, results, Prefect's and MLflow's databases.

        Safe to delete except for `keys`, `ledger`, `requests`, ``suppression`` (`megu.suppression`) and ``subjects`` (`megu.subjects`).
        """
        return self.root / ".megu"

    @property
    def params(self) -> Path:
        return self.root / PARAMS

    @property
    def store(self) -> Store:
        return Store(self.home / "store")

    @property
    def results(self) -> Path:
        """Prefect's result records, one file for each cache key."""
        return self.home / "results"

    @property
    def sources(self) -> Path:
        """What was read from the source files, for the next process (`megu.core.sources.remember`)."""
        return self.home / "sources.json"

    @property
    def checkpoints(self) -> Path:
        return self.home / "checkpoints"

    @property
    def answers(self) -> Path:
        """Every answer of a vision model, one file for each model digest."""
        return self.home / "answers"

    @property
    def keys(self) -> Path:
        """Secrets that cannot be recreated: without them no commitment can be opened."""
        return self.home / "keys"

    @property
    def ledger(self) -> Ledger:
        """What happened to requests, models and promotions. Cannot be recreated either."""
        return Ledger(self.home / "ledger.db")

    @property
    def requests(self) -> Path:
        """What each request names, one private file for each request. Cannot be recreated; deleting one is part of erasing data."""
        return self.home / "requests"

    @property
    def inbox(self) -> Path:
        """Where other programs put request files."""
        return self.root / "requests" / "inbox"

    @property
    def dossiers(self) -> Path:
        """One folder for each finished run, by its MLflow id."""
        return self.root / "results" / "dossiers"

    @property
    def index(self) -> Path:
        """Which recorded run saw which sample."""
        return self.home / "lineage"

    def data(self, name: str) -> Path:
        return self.root / "data" / name

    def relative(self, path: Path) -> str:
        """Return ``path`` as a person in the root would type it."""
        return os.path.relpath(path, self.root)


def find(start: Path | None = None) -> Project:
    """Return the project of ``start`` (default: ``$MEGU_PROJECT``, else the current folder): the nearest folder with params.yaml,
    upwards.

    Raises `MeguError` when there is none.
    """
    named = os.environ.get("MEGU_PROJECT")
    begin = (start or (Path(named) if named else Path.cwd())).resolve()
    for folder in (begin, *begin.parents):
        if (folder / PARAMS).is_file():
            return Project(folder)
    raise MeguError(
        f"no {PARAMS} in {begin} or above it",
        "run megu inside a project, make one with `megu init`, or set MEGU_PROJECT to its folder",
    )
