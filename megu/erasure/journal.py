"""What a purge needs to resume after a kill: the plan, the samples to search for, and the data sets' new versions, ready to be moved in.

The folder ``.megu/purge/`` appears whole, before anything is erased, and is removed when the verdict is published. While it exists it holds
the forgotten images themselves, which the last search needs: an unfinished purge is not an erasure, and says so.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megu.core.files.exclusion import JOURNAL, PLAN
from megu.core.files.store import canonical_json, writing
from megu.core.project import Project
from megu.data.writing import atomic_folder
from megu.erasure.decisions import Plan
from megu.erasure.search.patterns import SearchPatterns


@dataclass(frozen=True)
class Journal:
    """The journal of a project's purge. Creating the object touches nothing on disk."""

    root: Path

    @classmethod
    def of(cls, project: Project) -> Journal:
        return cls(project.home / JOURNAL)

    @property
    def open(self) -> bool:
        """Whether a purge has begun and is not finished."""
        return (self.root / PLAN).is_file()

    def begin(self, patterns: Sequence[SearchPatterns], prepare: Callable[[Path], Plan]) -> Plan:
        """Write the journal. prepare: writes the new versions of the data sets below a folder, and returns the plan with their hashes."""
        with atomic_folder(self.root) as folder:
            plan = prepare(folder / "data")
            for number, entry in enumerate(patterns):
                np.save(folder / f"images-{number}.npy", entry.images, allow_pickle=False)
                np.save(folder / f"ids-{number}.npy", entry.ids, allow_pickle=False)
            (folder / PLAN).write_bytes(canonical_json(plan.to_json()))
        return plan

    def plan(self) -> Plan:
        return Plan.from_json(json.loads((self.root / PLAN).read_bytes()))

    def keep(self, plan: Plan) -> None:
        """Replace the stored plan by one that was added to."""
        with writing(self.root / PLAN) as temporary:
            temporary.write_bytes(canonical_json(plan.to_json()))

    def patterns(self) -> list[SearchPatterns]:
        def read(name: str) -> Any:
            return np.load(self.root / name, allow_pickle=False)

        count = len(list(self.root.glob("images-*.npy")))
        return [SearchPatterns(read(f"images-{number}.npy"), read(f"ids-{number}.npy")) for number in range(count)]

    @property
    def verdict(self) -> Path:
        """The file of the verdict as it was signed; it is written before the verdict is published."""
        return self.root / "verdict.json"

    def clear(self) -> None:
        """Remove what a killed purge left of a journal that was not whole yet, or no longer whole: images. Needs the purge's lock."""
        for folder in self.root.parent.glob(f".{self.root.name}-*"):
            shutil.rmtree(folder)
        if not self.open and self.root.is_dir():
            shutil.rmtree(self.root)

    def end(self) -> None:
        """Remove the journal, the plan first, so that half a journal counts as none."""
        (self.root / PLAN).unlink(missing_ok=True)
        shutil.rmtree(self.root, ignore_errors=True)
