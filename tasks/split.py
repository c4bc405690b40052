"""The forget split: made by ``dvc.yaml`` if params.yaml asks for it, by the same function otherwise."""

from __future__ import annotations

from megu.core.project import Project
from megu.core.stages import Outcome, Result, Stage
from megu.data import dvc, splits
from megu.data.splits import ForgetParams
from tasks.run import cached


def split(
    project: Project, data: Result, forget: ForgetParams, seed: int, through_dvc: bool, duplicates: Result | None = None
) -> Outcome:
    """``through_dvc``: the parameters are those of params.yaml, so ``dvc.yaml`` makes the files and ``dvc.lock`` pins them.
    duplicates: the copies that the request is to include; None if it includes none."""
    if through_dvc:
        # DVC does not know our source files; this code only runs if something that the split depends on has changed.
        dvc.repro(project.root, "split", force=True)
        made = splits.load_split(project.root / "splits")
    else:
        loaded, found = cached.dataset(project, data), cached.arrays_of(project, duplicates, "groups")
        wide = splits.widened(loaded, forget, seed, found["groups"]) if found else forget
        made = splits.make_split(loaded, wide, seed)
    positions = {name: getattr(made, name) for name in ("forget", "retain", "test_forget", "test_retain")}
    return Outcome(
        files={"positions": project.store.put_arrays(positions)},
        values={"scenario": made.scenario, "classes": list(made.classes)},
        notes={"through_dvc": through_dvc, **{name: len(entry) for name, entry in positions.items()}},
    )


def still_locked(project: Project, result: Result) -> bool:
    return not result.notes["through_dvc"] or dvc.locked_outs(project.root, "split").current


def say_split(result: Result) -> str:
    pinned = ", pinned in dvc.lock" if result.notes["through_dvc"] else ""
    return f"forget {result.notes['forget']:,}, retain {result.notes['retain']:,} training images{pinned}"


SPLIT = Stage("split", "Split the data set into forget set and retain set", split, say_split, still_locked)
