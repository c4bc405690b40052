"""DVC by its command line: one process at a time, quiet, its errors as ours.

Everything that can be known from DVC's YAML is read from the YAML (`locked_outs`); DVC starts only to do work.
"""

from __future__ import annotations

import configparser
import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import megu
from megu.core.errors import MeguError
from megu.core.files.locks import file_lock
from megu.core.files.text import write_text
from megu.core.settings import merging, scalars
from megu.data import pins
from megu.data.images.clutter import hide_from_dvc
from megu.data.pins import DirHash

_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class LockedOuts:
    """Whether a stage's outputs are what ``dvc.lock`` says for the present parameters and inputs.

    Attributes
    ----------
    current: nothing has to be run.
    why: the first difference found, in words; empty when current.
    outs: the hash of each output folder as ``dvc.lock`` has it; only to be trusted when current.
    """

    current: bool
    why: str
    outs: dict[str, DirHash] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.current


def run(root: Path, *arguments: str, timeout: float = _TIMEOUT_S) -> str:
    """Run ``dvc <arguments>`` in a project and return what it printed. Not with ``--quiet``: then DVC keeps the reason of a failure.

    Raises
    ------
    MeguError: DVC is not installed, failed (with its last line of error) or took longer than ``timeout`` seconds.
    """
    code = Path(megu.__file__).resolve().parents[1]
    environment = os.environ | {
        "DVC_NO_ANALYTICS": "1",
        "DO_NOT_TRACK": "1",
        # The stage says `python`, and must get this one with this `megu`, in an activated environment or not.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH", "")])),
    }
    command = f"dvc {' '.join(arguments)}"
    with file_lock(root / ".megu" / "dvc.lock"):
        _let_the_killed_go(root)
        process = subprocess.Popen(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise MeguError(f"`{command}` did not finish in {timeout:.0f} s", "run it by hand to see why") from error
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        if "No module named dvc" in errors:
            raise MeguError("DVC is not installed", "run `pip install dvc`, or `make env`")
        raise MeguError(f"`{command}` failed: {_reason(errors + output)}", f"run it in {root} to see all of it")
    return output


def _let_the_killed_go(root: Path, patience: float = 10.0) -> None:
    """Make good what a killed DVC leaves in its list of locks: an entry, or half a list.

    DVC takes an entry for stale when there is no such process, and one that was killed is there until its parent, or the system in its
    place, has taken note: that is waited for, ``patience`` seconds at most, since DVC would not wait but fail. A list that was cut short
    is an error to DVC for ever: it is deleted. DVC's own guard of the list is held meanwhile, so no DVC is at its writing.
    """
    import psutil

    def dead(pid: int) -> bool:
        try:
            return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    locks = root / ".dvc" / "tmp" / "rwlock"
    try:
        with locks.with_suffix(".lock").open("rb") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            text = locks.read_text(encoding="utf-8")
            if not _is_json(text):
                locks.unlink()
    except OSError:
        return
    holders = {int(pid) for pid in re.findall(r'"pid": (\d+)', text)}
    deadline = time.monotonic() + patience
    while any(map(dead, holders)) and time.monotonic() < deadline:
        time.sleep(0.05)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _reason(text: str) -> str:
    """The line that says why: our own stage's error if there is one, else DVC's."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for prefix in ("megu:", "ERROR:"):
        for line in lines:
            if line.startswith(prefix):
                return line.removeprefix(prefix).strip()
    return lines[-1] if lines else "it gave no reason"


def repro(root: Path, stage: str, *, force: bool = False) -> LockedOuts:
    """Bring a stage of ``dvc.yaml`` up to date; runs DVC only when ``dvc.lock`` and the files say so, or with ``force``.

    Only this stage is run: `megu.data.sources.providers` has already put the data set there and compared it with its pin.

    Raises
    ------
    MeguError: the stage failed, with its own reason.
    """
    locked = locked_outs(root, stage)
    if locked.current and not force:
        return locked
    init(root)
    hide_from_dvc(root)
    run(root, "repro", "--single-item", *(["--force"] if force else []), stage)
    locked = locked_outs(root, stage)
    if not locked.current:
        raise MeguError(f"stage {stage} ran, but {locked.why}", "nothing else may change the project meanwhile; run again")
    return locked


def status(root: Path) -> dict[str, Any]:
    """What ``dvc status`` finds changed, by stage; empty when data, splits and parameters all agree."""
    return dict(json.loads(run(root, "status", "--json") or "{}"))


def missing(root: Path) -> dict[str, str]:
    """The files that make a folder a DVC project without telemetry, by name, with their text; empty where it is one."""
    if (root / ".dvc" / "config").exists():
        return {}
    in_git = any((folder / ".git").exists() for folder in (root, *root.resolve().parents))
    ignored = {} if (root / ".dvc" / ".gitignore").exists() else {".dvc/.gitignore": "/config.local\n/tmp\n/cache\n"}
    config = "[core]\n    analytics = false\n    check_update = false\n" + ("" if in_git else "    no_scm = true\n")
    return {**ignored, ".dvc/config": config}


def init(root: Path) -> None:
    """Make a folder a DVC project without telemetry, unless it is one."""
    for name, text in missing(root).items():
        write_text(root / name, text)


def shared_configs() -> list[Path]:
    """DVC's configuration for all projects: the system's, then the user's, which goes over it."""
    user = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config"))
    return [Path("/etc/xdg/dvc/config"), user / "dvc" / "config"]


def has_remote(root: Path) -> bool:
    """Whether a remote is configured for the project, or by the user for all projects."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        parser.read([root / ".dvc" / "config", root / ".dvc" / "config.local", *shared_configs()])
    except configparser.Error:
        return False
    return any("remote " in section for section in parser.sections())


def in_cache(root: Path, pin: DirHash) -> bool:
    """Whether the project's own DVC cache has the listing of a pinned folder."""
    return (root / ".dvc" / "cache" / "files" / "md5" / pin.md5[:2] / pin.md5[2:]).is_file()


def out_of(lock: Path, stage: str, path: str) -> str:
    """The hash of an output in a ``dvc.lock``; empty when it is not there."""
    outs = _yaml(lock).get("stages", {}).get(stage, {}).get("outs", [])
    return next((str(out["md5"]) for out in outs if out["path"] == path), "")


def locked_outs(root: Path, stage: str) -> LockedOuts:
    """Compare a stage with ``dvc.lock`` without DVC: command, parameters, inputs and outputs.

    Takes milliseconds while the files are untouched. Inputs and outputs are folders; ``${...}`` in ``dvc.yaml`` is filled in
    from ``params.yaml``, plain values only.

    Raises
    ------
    MeguError: no such stage, or YAML that cannot be read.
    """
    declared = _yaml(root / "dvc.yaml").get("stages", {}).get(stage)
    if declared is None:
        raise MeguError(f"{root / 'dvc.yaml'} has no stage {stage!r}", "restore it with `git checkout dvc.yaml`")
    params = _yaml(root / "params.yaml", scalars.parse)
    if missing := [key for key in declared.get("params", []) if key not in params]:
        raise MeguError(f"{root / 'params.yaml'} has no {' and no '.join(missing)}", "dvc.yaml needs them spelt out; add them")
    locked = _yaml(root / "dvc.lock").get("stages", {}).get(stage) if (root / "dvc.lock").is_file() else None
    if locked is None:
        return LockedOuts(False, f"stage {stage} has not run yet")
    outs = {out["path"]: DirHash(out["md5"], out["size"], out["nfiles"]) for out in locked.get("outs", [])}
    known = _yaml(root / "dvc.lock", scalars.parse)["stages"][stage].get("params", {}).get("params.yaml", {})
    why = _difference(root, declared, locked, params, known)
    return LockedOuts(not why, why, outs)


def _difference(
    root: Path, declared: dict[str, Any], locked: dict[str, Any], params: dict[str, Any], known: dict[str, Any]
) -> str:
    if declared["cmd"] != locked.get("cmd"):
        return "its command has changed"
    for kind in ("deps", "outs"):
        paths = {_fill(path, params) for path in declared.get(kind, [])}
        if paths != {entry["path"] for entry in locked.get(kind, [])}:
            return f"its {kind} have changed"
        for entry in locked.get(kind, []):
            if not (root / entry["path"]).is_dir():
                return f"{entry['path']} is not there"
            if pins.hash_dir(root / entry["path"], root).md5 != entry["md5"]:
                return f"{entry['path']} is not what dvc.lock has"
    for key in declared.get("params", []):
        before = known.get(key)
        if not scalars.alike(params.get(key), before):
            return f"the parameter {key} has changed from {before} to {params.get(key)}"
    return ""


def _fill(text: str, params: dict[str, Any]) -> str:
    while "${" in text:
        head, rest = text.split("${", 1)
        name, tail = rest.split("}", 1)
        value: Any = params
        for part in name.strip().split("."):
            if not isinstance(value, dict) or part not in value:
                raise MeguError(f"params.yaml has no {name.strip()}, which dvc.yaml uses", "add it")
            value = value[part]
        text = f"{head}{value}{tail}"
    return text


def _yaml(path: Path, parse: Callable[[str], Any] | None = None) -> dict[str, Any]:
    import yaml

    parse = parse or partial(yaml.load, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    try:
        return dict(parse(merging.read_text(path)) or {})
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).replace("\n", " ")
        raise MeguError(f"{path} cannot be read ({reason})", "correct it, or restore it with `git checkout`") from error
