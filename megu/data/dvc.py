"""Run DVC through its command line: one process at a time, quietly, with its errors turned into ours.

Everything that DVC's YAML files tell is read from them (`locked_outs`); DVC is started only to do work.
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
    """Whether a stage's outputs match ``dvc.lock`` for the current parameters and inputs.

    Attributes
    ----------
    current: nothing has to be run.
    why: the first difference found, in words; empty when current.
    outs: the hash of each output folder from ``dvc.lock``; to be trusted only when current.
    """

    current: bool
    why: str
    outs: dict[str, DirHash] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.current


def run(root: Path, *arguments: str, timeout: float = _TIMEOUT_S) -> str:
    """Run ``dvc <arguments>`` in a project and return what it printed. Do not use ``--quiet``: it hides the reason of a failure.

    Raises
    ------
    MeguError: DVC is not installed, failed (with the last line of its error output) or took longer than ``timeout`` seconds.
    """
    code = Path(megu.__file__).resolve().parents[1]
    environment = os.environ | {
        "DVC_NO_ANALYTICS": "1",
        "DO_NOT_TRACK": "1",
        # The stage calls `python`, which must be this interpreter with this `megu`, whether or not an environment is activated.
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
    """Clean up what a killed DVC leaves in its lock list: a stale entry, or a truncated list.

    DVC considers an entry stale when its process does not exist. A killed process exists as a zombie until its parent, or init in its
    place, reaps it. Wait for that, ``patience`` seconds at most, because DVC would fail instead of waiting. A truncated list would make
    every later DVC command fail, so it is deleted. DVC's own guard of the list is held meanwhile, so no other DVC is writing it.
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
    """Return the line that gives the reason: our own stage's error if there is one, else DVC's."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for prefix in ("megu:", "ERROR:"):
        for line in lines:
            if line.startswith(prefix):
                return line.removeprefix(prefix).strip()
    return lines[-1] if lines else "it gave no reason"


def repro(root: Path, stage: str, *, force: bool = False) -> LockedOuts:
    """Bring a stage of ``dvc.yaml`` up to date. DVC runs only when ``dvc.lock`` does not match the files, or with ``force``.

    Only this stage is run: `megu.data.sources.providers` has already put the data set in place and compared it with its pin.

    Raises
    ------
    MeguError: the stage failed; the message has the stage's own reason.
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
    """Return what ``dvc status`` reports as changed, by stage; empty when data, splits and parameters all agree."""
    return dict(json.loads(run(root, "status", "--json") or "{}"))


def missing(root: Path) -> dict[str, str]:
    """Return the files, name and text, that make a folder a DVC project without telemetry; empty where it already is one."""
    if (root / ".dvc" / "config").exists():
        return {}
    in_git = any((folder / ".git").exists() for folder in (root, *root.resolve().parents))
    ignored = {} if (root / ".dvc" / ".gitignore").exists() else {".dvc/.gitignore": "/config.local\n/tmp\n/cache\n"}
    config = "[core]\n    analytics = false\n    check_update = false\n" + ("" if in_git else "    no_scm = true\n")
    return {**ignored, ".dvc/config": config}


def init(root: Path) -> None:
    """Make a folder a DVC project without telemetry, unless it already is one."""
    for name, text in missing(root).items():
        write_text(root / name, text)


def shared_configs() -> list[Path]:
    """Return DVC's configuration files for all projects: the system's, then the user's, which takes precedence."""
    user = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config"))
    return [Path("/etc/xdg/dvc/config"), user / "dvc" / "config"]


def has_remote(root: Path) -> bool:
    """Return whether a remote is configured, for the project or by the user for all projects."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        parser.read([root / ".dvc" / "config", root / ".dvc" / "config.local", *shared_configs()])
    except configparser.Error:
        return False
    return any("remote " in section for section in parser.sections())


def in_cache(root: Path, pin: DirHash) -> bool:
    """Return whether the project's own DVC cache has the listing of a pinned folder."""
    return (root / ".dvc" / "cache" / "files" / "md5" / pin.md5[:2] / pin.md5[2:]).is_file()


def out_of(lock: Path, stage: str, path: str) -> str:
    """Return the hash of an output in a ``dvc.lock``; empty when the output is not listed."""
    outs = _yaml(lock).get("stages", {}).get(stage, {}).get("outs", [])
    return next((str(out["md5"]) for out in outs if out["path"] == path), "")


def locked_outs(root: Path, stage: str) -> LockedOuts:
    """Compare a stage with ``dvc.lock`` without running DVC: command, parameters, inputs and outputs.

    It takes milliseconds while the files are unchanged. Inputs and outputs are folders; ``${...}`` in ``dvc.yaml`` is filled in
    from ``params.yaml``, plain values only.

    Raises
    ------
    MeguError: the stage does not exist, or the YAML cannot be read.
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
                return f"{entry['path']} does not match dvc.lock"
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
