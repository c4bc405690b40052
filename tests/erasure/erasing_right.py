"""Erasure as a property: purge a small project, read everything again without the purge's own search, and say what is not as it has to be.

A copy in another size is one too: a row of an array or a picture that shows a forgotten image made larger or smaller has to be gone, or named.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import reading
import yaml
from dossier_fixtures import RUN
from small_projects import Small

from megu.data import arrays, pins
from megu.erasure import run
from megu.erasure.params import PurgeParams
from megu.erasure.plan import Plan
from megu.lineage.purged.document import ERASED, RESIDUAL, RETAINED, Entry, Location, Purge

#: Locks, documents that a purge writes, and records of what it erased.
_ADDED = re.compile(
    r"\.megu/[a-z]+\.lock|\.megu/suppression/s[0-9a-f]{16}\.suppression|(results/dossiers/[0-9a-f]{32}|\.megu/mlartifacts/[0-9a-f]{32}/artifacts/dossier)/purge(-\d+)?\.json"
)


def problems(small: Small, params: PurgeParams) -> list[str]:
    """Purge twice, and compare with what was there before; a line for each fault."""
    project = small.project
    before, held = reading.snapshot(small.roots), _readable(small)
    old = {path: reading.rows(path) for path in before if path.suffix == ".db"}
    data = {path.name: _columns(path) for path in sorted(project.data("").iterdir())}
    first = run.apply(project, [RUN], params)
    assert first.sealed is not None
    purge, after = first.sealed.purge, reading.snapshot(small.roots)
    named = {(project.root / entry.what).resolve() for entry in [*purge.residual, *purge.retained]}
    found = [
        f"{path}: {', '.join(what)}, though no entry names it"
        for path, what in _readable(small).items()
        if path.resolve() not in named and (small.other is None or not path.is_relative_to(small.other))
    ]
    found += [f"{path} is lost" for path in before.keys() - after.keys() if path not in small.may_go and path not in held]
    found += [f"{path} should have gone" for path in small.may_go & after.keys() if path.is_relative_to(project.home)]
    found += [
        f"the verdict of {surface.name} is not one of what is named" for surface in purge.surfaces if not _right(purge, surface)
    ]
    found += [f"{path} is new" for path in after.keys() - before.keys() if not _ADDED.fullmatch(project.relative(path))]
    for path in before.keys() & after.keys():
        if before[path] != after[path] and not _may_change(small, path):
            found.append(f"{path} was {before[path]}, is {after[path]}")
        if after[path][1] == "gone":
            found.append(f"{path} leads nowhere")
    for path, lines in old.items():
        found += _other_rows(path, lines, small.versions)
    found += _other_images(small, data)
    return found + _again(small, params, first.plan, {surface.name: surface.verdict for surface in first.surfaces})


def _right(purge: Purge, surface: Location) -> bool:
    left, kept = (any(entry.surface == surface.name for entry in entries) for entries in (purge.residual, purge.retained))
    return surface.verdict == (RESIDUAL if left else RETAINED if kept else ERASED)


def _readable(small: Small) -> dict[Path, list[str]]:
    found = {path: reading.readable(path, small.images, small.ids) for path in reading.files(small.roots) if path.is_file()}
    return {path: what for path, what in found.items() if what}


def _columns(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.load(path) for path in sorted(folder.glob("*.npy"))}


def _may_change(small: Small, path: Path) -> bool:
    root = small.project.root
    return path.suffix == ".db" or path == root / pins.FILE or path.parent in {root / "data" / name for name in small.gone}


def _other_rows(path: Path, lines: list[str], versions: set[str]) -> list[str]:
    """What else a database lost or changed: an id may have become something as long, events may have come, and registered versions gone."""

    def plain(line: str) -> str:
        return re.sub(r"\b([0-9a-f]{32}|[0-9]{13})\b", "#", line)

    now = {plain(line) for line in reading.rows(path)} if path.is_file() else set()
    gone = re.compile(rf"'megu',({'|'.join(versions) or 'none'})[,)]")
    found = [f"{path}: {line[:80]} is not there any more" for line in lines if plain(line) not in now and not gone.search(line)]
    # MLflow keeps the row of a version that was deleted, without what was in it.
    kept = [line for line in now if '"model_versions"' in line and gone.search(line) and "'Deleted_Internal'" not in line]
    return found + [f"{path}: {line[:80]} should have gone" for line in kept]


def _other_images(small: Small, data: dict[str, dict[str, np.ndarray]]) -> list[str]:
    """Whether each data set is what it was without the rows that had to go, and is pinned."""
    found = []
    for name, columns in data.items():
        gone, now = small.gone.get(name, {}), _columns(small.project.data(name))
        for file, column in columns.items():
            if not np.array_equal(np.delete(column, gone.get(file.partition("_")[0], []), axis=0), now[file]):
                found.append(f"data/{name}/{file} has other rows than it should")
        arrays.load(small.project.data(name))
        pinned = {
            Path(out["path"]).name: out["md5"] for out in yaml.safe_load((small.project.root / pins.FILE).read_text())["outs"]
        }
        if pinned[name] != pins.hash_dir(small.project.data(name)).md5:
            found.append(f"data/{name} is not what is pinned")
    return found


def _again(small: Small, params: PurgeParams, first: Plan, verdicts: dict[str, str]) -> list[str]:
    """A second purge changes nothing and says the same."""
    before = reading.snapshot(small.roots)
    planned = run.dry_run(small.project, [RUN], params)
    second = run.apply(small.project, [RUN], params)
    found = [f"a second purge would erase {action.what}: {action.why}" for action in second.plan.actions]
    found += ["a second dry run is not what a second purge is"] if planned.to_json() != second.to_json() else []
    if before != reading.snapshot(small.roots):
        found.append("a second purge changed something")
    if verdicts != (now := {surface.name: surface.verdict for surface in second.surfaces}):
        found.append(f"a second purge says {now}, not {verdicts}")

    def said(entries: list[Entry]) -> set[tuple[str, str]]:
        return {(entry.surface, entry.what) for entry in entries}

    for kind in ("residual", "retained"):
        one, two = said(getattr(first, kind)), said(getattr(second.plan, kind))
        found += [f"a second purge has as {kind}: {sorted(two)}, not {sorted(one)}"] if one != two else []
    return found
