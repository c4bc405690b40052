"""Which files a project still needs, and which lines the existing ones lack.

Everything is decided, and refused if necessary, before the first file is written. Each file appears whole or not at all,
``params.yaml`` last: it is what makes a folder a project, so an ``init`` that was killed can simply be repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from megu.config import tree
from megu.core.errors import MeguError
from megu.core.files import cleanup
from megu.core.files.text import write_text
from megu.core.files.writable import refuse_unwritable
from megu.core.project import PARAMS, Project
from megu.core.settings.sections import read
from megu.data import dvc, pins
from megu.scaffold import choices, parameters

#: Not called dvc.yaml: a copy of the package lies beside each registered model, where DVC may look for stages.
TEMPLATES = Path(__file__).parent / "templates"
#: Folders that a project has, or will have later.
FOLDERS = (".megu", ".dvc", "data", "splits", "results", "requests")
#: What git should ignore, besides the data set.
IGNORED = (
    ".megu/",
    "/splits/",
    "/results/",
    "/requests/inbox/",
    "/requests/refused/",
    "/requests/forget.json",
    "/requests/split",
)
IGNORED_BY_DVC = (".megu/", ".venv/", "__pycache__/")
#: The keys that DVC reads in ``params.yaml``; DVC does not know defaults.
SPELT_OUT = ("seed", "data", "forget")
#: Where the deployments are written if the repository already has a ``prefect.yaml``.
OTHER_PREFECT = "prefect.megu.yaml"


@dataclass(frozen=True)
class Change:
    """A file to write. text: all of it. said: what is done to it, for a person."""

    name: str
    text: str
    said: str


def chosen(root: Path) -> tree.Config | None:
    """Return the existing configuration, None without one. Raises `MeguError` for a ``params.yaml`` that belongs to another program."""
    if not _exists(root / PARAMS):
        return None
    try:
        return tree.load(root / PARAMS)
    except MeguError as error:
        raise MeguError(
            f"{root / PARAMS} is not a configuration of megu ({error.what})",
            "correct it if it should be one; otherwise make the project in its own folder: `megu init FOLDER`",
        ) from error


def changes(root: Path, data: str | None, model: str | None, flows: str) -> list[Change]:
    """Return what is missing for a project in ``root``, which need not exist; empty when nothing is.

    data, model: the data set and the architecture; None takes the existing ones, else the defaults. flows: the package of the flows in
    this installation.

    Raises
    ------
    MeguError: files or folders in the way, a ``params.yaml`` of another program or with another choice, a stage of another purpose in
    ``dvc.yaml``, a data set or a model that is not known.
    """
    refuse_unwritable(root)
    for name in FOLDERS:
        if (root / name).exists():
            refuse_unwritable(root / name)
    present = chosen(root)
    _agree(root, "data.name", data, present.data.name if present else None)
    _agree(root, "train.arch", model, present.train.arch if present else None)
    name = data or (present.data.name if present else tree.parse({}).data.name)
    _refuse_what_is_in_the_way(root)
    found = [
        *(Change(path, text, "written") for path, text in dvc.missing(root).items()),
        _lines(root, ".gitignore", (*IGNORED, f"/data/{name}/")),
        _lines(root, ".dvcignore", IGNORED_BY_DVC),
        _dvc_yaml(root),
        _prefect_yaml(root, flows),
        _params(root, present, name, model),
    ]
    return [change for change in found if change]


def apply(root: Path, wanted: Sequence[Change]) -> None:
    """Write the files. Raises `MeguError` for a folder that cannot be written."""
    root.mkdir(parents=True, exist_ok=True)
    cleanup.sweep(Project(root))
    for change in wanted:
        write_text(root / change.name, change.text)


def _agree(root: Path, key: str, given: str | None, present: str | None) -> None:
    if given and present and given != present:
        raise MeguError(f"{root / PARAMS} is there already, and has {key}: {present}", f"change it there to {given}")


def _refuse_what_is_in_the_way(root: Path) -> None:
    """Raise `MeguError` for someone else's data where ours would be: DVC empties the folder of a stage before running it."""
    other = [out for out in pins.paths(root) if Path(out).parent != Path("data")]
    if other:
        raise MeguError(
            f"{root / pins.FILE} tracks {other[0]}, and megu keeps each data set in a folder of its own under data/",
            "make the project in a folder of its own: `megu init FOLDER`",
        )
    splits = root / "splits"
    if splits.is_dir() and any(splits.iterdir()) and not (splits / "split.json").is_file():
        raise MeguError(
            f"{splits} has files that are not megu's, and the stage split would replace them",
            "move it, or make the project in its own folder: `megu init FOLDER`",
        )


def _lines(root: Path, name: str, wanted: Sequence[str]) -> Change | None:
    """Append those of the lines that the file does not have, or cover by another pattern."""
    before = _text(root / name)
    there = {line.strip().strip("/") for line in before.splitlines()}
    missing = [line for line in wanted if not {line.strip("/"), line.strip("/").split("/")[0]} & there]
    if not missing:
        return None
    return Change(name, _appended(before, "".join(f"{line}\n" for line in missing)), _counted(before, len(missing), "line"))


def _dvc_yaml(root: Path) -> Change | None:
    """Add the stage that makes the forget split to the existing ones."""
    name, before, template = "dvc.yaml", _text(root / "dvc.yaml"), (TEMPLATES / "stages.yaml").read_text(encoding="utf-8")
    if not before.strip():
        return Change(name, template, "written")
    known, ours = _yaml(root / name, before), yaml.safe_load(template)["stages"]
    stages = known.get("stages") or {}
    if "split" in stages:
        if stages["split"] != ours["split"]:
            raise MeguError(
                f"{root / name} has another stage named split",
                "rename it, or make the project in its own folder: `megu init FOLDER`",
            )
        return None
    made = _with_stage(before, template)
    if _loads(made) != {**known, "stages": {**ours, **stages}}:
        raise MeguError(
            f"{root / name}: the stage split could not be added to it as it is written",
            f"add it by hand, as in {TEMPLATES / 'stages.yaml'}",
        )
    return Change(name, made, "stage split added")


def _with_stage(before: str, template: str) -> str:
    """Return a ``dvc.yaml`` with our stage before its first one, with the same indentation; at the end if it has no stages."""
    head, *stage = template.splitlines(keepends=True)
    lines = before.splitlines(keepends=True)
    at = next((number for number, line in enumerate(lines) if line.split("#")[0].rstrip() == head.rstrip()), None)
    if at is None:
        return _appended(before, template)
    following = next((line for line in lines[at + 1 :] if line.strip() and not line.lstrip().startswith("#")), "  ")
    indent = following[: len(following) - len(following.lstrip())] or "  "
    end = "\r\n" if lines[at].endswith("\r\n") else "\n"
    lines[at] = lines[at].rstrip("\r\n") + end
    ours = [f"{indent}{line[2:].rstrip()}{end}" for line in stage]
    return "".join([*lines[: at + 1], *ours, *lines[at + 1 :]])


def _prefect_yaml(root: Path, flows: str) -> Change | None:
    name, before = "prefect.yaml", _text(root / "prefect.yaml")
    if before.strip():
        entries = _yaml(root / name, before).get("deployments") or []
        if any("flows" in str(entry.get("entrypoint")) and "unlearn" in str(entry["entrypoint"]) for entry in entries):
            return None
        name = OTHER_PREFECT
        if _exists(root / name):
            return None
    text = (TEMPLATES / "prefect.yaml").read_text(encoding="utf-8").replace("entrypoint: flows.", f"entrypoint: {flows}.")
    if name == OTHER_PREFECT:
        text = text.replace("deploy --all", f"deploy --all --prefect-file {name}")
    return Change(name, text, "written")


def _params(root: Path, present: tree.Config | None, data: str, model: str | None) -> Change | None:
    config = present or tree.parse({})
    values: dict[str, Any] = {"seed": config.seed, "device": config.device, "data": {"name": data}}
    if present is None:
        choices.check_data_set(root, data)
        arch = model or config.train.arch
        tree.parse({"train": {"arch": arch}}, "--model")
        values |= {"forget": choices.request(root, data), "train": {"arch": arch}}
        return Change(PARAMS, parameters.text(values), "written")
    written = read(root / PARAMS)
    if "data" in written and "name" not in (written["data"] or {}):
        raise MeguError(f"{root / PARAMS} has a section data without a name, and dvc.yaml needs it", f"add name: {data} there")
    missing = [name for name in SPELT_OUT if name not in written]
    if not missing:
        return None
    more = parameters.text(values | {"forget": choices.request(root, data)}, missing)
    return Change(PARAMS, _appended(_text(root / PARAMS), more), f"{' and '.join(missing)} added")


def _exists(path: Path) -> bool:
    """Whether a file exists. Raises `MeguError` for anything else in its place."""
    if path.is_dir():
        raise MeguError(f"{path} is a folder where a file is needed", f"mv {path} {path}.old")
    return path.exists()


def _text(path: Path) -> str:
    """Return a file's text with its line endings unchanged, "" if there is no file."""
    if not _exists(path):
        return ""
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise MeguError(f"{path} cannot be read ({error})", "make it a readable file of UTF-8 text") from None


def _appended(before: str, more: str) -> str:
    end = "\r\n" if "\r\n" in before else "\n"
    start = before if not before or before.endswith("\n") else before + end
    return start + more.replace("\n", end)


def _counted(before: str, count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'} added" if before else "written"


def _yaml(path: Path, text: str) -> dict[str, Any]:
    found = _loads(text)
    if not isinstance(found, dict):
        raise MeguError(f"{path} cannot be read as YAML sections", "correct the file")
    return found


def _loads(text: str) -> Any:
    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError:
        return None
