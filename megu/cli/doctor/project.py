"""The project itself: its configuration, its data, and what was stopped half-way."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from megu.cli.doctor.check import Check
from megu.core.errors import MeguError
from megu.data.scope import RequestScope


def params(root: Path) -> Check:
    from megu.config import tree as config

    path = root / "params.yaml"
    try:
        loaded = config.load(path)
    except MeguError as error:
        return Check("params.yaml", False, error.what, error.fix)
    what = RequestScope.of(vars(loaded.forget))
    return Check("params.yaml", True, f"forget {what} of {loaded.data.name} with {loaded.unlearn.method}, seed {loaded.seed}")


def data(root: Path) -> Check:
    """Check the data set that params.yaml names; the first known one if that file is broken, which is another finding."""
    from megu.config import tree as config
    from megu.data import advice, pins
    from megu.data.sources import downloads, providers

    try:
        name = config.load(root / "params.yaml").data.name
    except MeguError:
        name = next(iter(downloads.SOURCES))
    state = next((entry for entry in providers.status(root) if entry.name == name), None)
    fetch = f"megu data fetch {name}"
    path = quote(str(root / "data" / name))
    again = advice.comes_again(root, name, pins.read(root).get(name))
    aside = f"mv {path} {path}.other && {fetch}" if again else "megu data status"
    match state.state if state else "missing":
        case "ok":
            return Check("data set", True, f"{name} is as pinned ({state.actual if state else ''})")
        case "unpinned":
            return Check("data set", True, f"{name} is there, with no pin in data.dvc to compare with")
        case "missing" if name in downloads.SOURCES or (state and state.expected):
            # Not a fault of the installation: a run fetches it.
            return Check("data set", None, f"{name} is not here yet; a run fetches it", fetch)
        case "missing":
            return Check(
                "data set",
                False,
                f"there is no data/{name}",
                f"megu data add FOLDER --name {name}",
            )
        case "damaged":
            return Check("data set", False, f"data/{name} is damaged", aside)
        case other:
            detail = f"data/{name} {other} from its pin in data.dvc ({state.actual if state else ''})"
            return Check("data set", False, detail, aside)


def runs(root: Path, home: Path) -> Check:
    """Check for what was stopped half-way: a purge, runs whose process was killed, and what they left behind."""
    from megu.core.files.cleanup import left
    from megu.core.project import Project
    from megu.erasure.journal import Journal
    from megu.tracking.orphans import orphaned

    project = Project(root)
    if Journal.of(project).open:
        return Check("runs", False, "a purge was stopped: what it should erase is still here", "megu purge --apply")
    counts = {
        "runs of killed processes": len(orphaned(home)),
        "temporary files": len(left(project)),
    }
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return (
        Check("runs", None, f"{said}; the next run cleans up", "megu run") if said else Check("runs", True, "none was stopped")
    )
