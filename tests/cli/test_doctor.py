"""What the doctor finds, and that nothing stops it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ollama_server import FakeOllama, blind

from megu.cli import doctor
from megu.cli.doctor import Check, packages, places
from megu.data import pins

SOUND = {"torch": (True, "2.13.0"), "torchvision": (True, "0.28.0")}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without data; torch is not imported for real, and no Ollama is asked but a test's own."""
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    monkeypatch.setattr(packages, "_probe", lambda program: SOUND)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    return tmp_path


def found(root: Path) -> dict[str, Check]:
    return {check.name: check for check in doctor.checks(root, root / ".megu")}


def with_versions(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Other versions of packages than those installed; None: not installed."""
    real = metadata.version

    def version(name: str) -> str:
        value = versions.get(name, "")
        if value is None:
            raise metadata.PackageNotFoundError(name)
        return value or real(name)

    monkeypatch.setattr(metadata, "version", version)


@pytest.mark.slow
def test_this_very_environment_is_sound(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    checks = doctor.checks(root, root / ".megu")
    assert [check for check in checks if check.ok is False] == []
    assert {check.name: check for check in checks}["torch"].detail.startswith(metadata.version("torch").split("+")[0])


def test_every_finding_has_words_and_every_failure_a_fix(root: Path) -> None:
    checks = found(root)
    assert len(checks) == 23
    assert all(check.detail for check in checks.values())
    assert all(check.fix for check in checks.values() if check.ok is not True)
    assert not any(check.fix for check in checks.values() if check.ok)
    assert (checks["services"].ok, checks["services"].fix) == (None, "megu up")
    assert (checks["data set"].ok, checks["data set"].fix) == (None, "megu data fetch fashion-mnist")
    assert checks["git"].ok is None  # a folder without a commit
    assert not (root / ".megu" / "services.json").exists()


@pytest.mark.parametrize("name", ["mlflow", "dvc", "ollama", "prefect", "torchvision"])
def test_a_missing_package(root: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with_versions(monkeypatch, **{name: None})
    check = found(root)[name]
    assert (check.ok, check.detail, check.fix) == (False, "not installed", "make env")


def test_a_package_of_another_version(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: ["dvc>=3", "mlflow<3.18,>=3.17", 'mlflow>=9; extra == "dev"'])
    with_versions(monkeypatch, mlflow="3.18.0")
    check = found(root)["mlflow"]
    assert check.ok is False
    assert "3.18.0" in check.detail
    assert "'mlflow<3.18,>=3.17'" in check.fix


def test_a_fastapi_that_prefect_does_not_start_with(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch, fastapi="0.165.0")
    check = found(root)["prefect"]
    assert check.ok is False
    assert "fastapi 0.165.0" in check.detail
    assert "pip install 'fastapi" in check.fix


def test_a_torch_that_cannot_be_imported(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert packages._probe("raise SystemExit('libcudart.so.12 is missing')") == {
        "torch": (False, "cannot be imported: libcudart.so.12 is missing")
    }
    assert "exit code -11" in packages._probe("import os; os.kill(os.getpid(), 11)")["torch"][1]
    monkeypatch.setattr(packages, "_probe", lambda program: {"torch": (False, "cannot be imported: no")})
    checks = list(packages.torch())
    assert [(check.ok, check.fix) for check in checks] == [(False, "make env")] * 2


def torch_and(torchvision: str, tmp_path: Path) -> str:
    """The doctor's probe, with a small torch and a torchvision that does what is given."""
    (tmp_path / "torch.py").write_text(
        "__version__ = '2.13.0'\nbfloat16 = 1\n"
        "class cuda:\n    is_available = staticmethod(lambda: False)\n"
        "class ones:\n    def __init__(self, *a, dtype=None): pass\n"
        "    def __matmul__(self, o): return self\n    def sum(self): return 8.0\n"
        "def get_num_threads(): return 2\n"
    )
    (tmp_path / "torchvision.py").write_text(torchvision)
    return f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n{packages._TORCH}"


def test_mixed_wheels_are_no_fault_and_other_failures_are(tmp_path: Path) -> None:
    mixed = packages._probe(torch_and("raise RuntimeError('operator torchvision::nms does not exist')", tmp_path))
    assert mixed["torch"] == (True, "2.13.0, no CUDA, bfloat16, 2 threads")
    assert mixed["torchvision"][0]
    assert "works around" in mixed["torchvision"][1]
    other = packages._probe(torch_and("raise RuntimeError('operator torchvision::roi_align does not exist')", tmp_path))
    assert other["torchvision"] == (False, "cannot be imported: operator torchvision::roi_align does not exist")


def test_broken_params(root: Path) -> None:
    (root / "params.yaml").write_text("forgett: {}\n")
    checks = found(root)
    assert checks["params.yaml"].ok is False
    assert "forgett" in checks["params.yaml"].detail
    assert "forget" in checks["params.yaml"].fix
    assert checks["data set"].ok is None  # another finding, of the default


def test_no_params(root: Path) -> None:
    (root / "params.yaml").unlink()
    assert found(root)["params.yaml"].ok is False


def test_a_damaged_data_set(root: Path) -> None:
    (root / "data" / "fashion-mnist").mkdir(parents=True)
    (root / "data" / "fashion-mnist" / "meta.json").write_text("{}")
    check = found(root)["data set"]
    assert (check.ok, check.fix) == (False, "megu data status"), "without a pin nobody knows that it comes again"
    pins.write(root, "fashion-mnist", pins.DirHash("0" * 32 + ".dir", 1, 1))
    check = found(root)["data set"]
    path = root / "data" / "fashion-mnist"
    assert (check.ok, check.fix) == (False, f"mv {path} {path}.other && megu data fetch fashion-mnist")


def test_a_data_set_that_nobody_has(root: Path) -> None:
    (root / "params.yaml").write_text("data: {name: mine}\n")
    check = found(root)["data set"]
    assert (check.ok, check.fix) == (False, "megu data add FOLDER --name mine")


def test_no_git_and_a_commit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "start"]):
        subprocess.run(["git", "-C", str(root), *command], check=True)
    assert places.code(root).detail.startswith("commit ")
    monkeypatch.setenv("PATH", str(root))
    assert found(root)["git"].ok is False
    assert found(root)["git"].fix == "sudo apt-get install git"


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_full_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**10, 9 * 10**9, 10**9))
    check = found(root)["disk"]
    assert check.ok is False
    assert "1.0 GB free" in check.detail


def test_a_home_that_is_a_file(root: Path) -> None:
    (root / ".megu").write_text("")
    checks = found(root)
    assert checks["home"].ok is False
    assert checks["services"].ok is None


def test_a_check_that_raises_is_a_finding(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> Check:
        raise ValueError("no\nidea")

    monkeypatch.setattr(places, "code", broken)
    assert found(root)["git"] == Check("git", False, "could not be checked: no idea", "make env")


@pytest.fixture
def ollama() -> Iterator[FakeOllama]:
    with FakeOllama(["a", "b"], blind(2)).serving() as fake:
        yield fake


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "http://127.0.0.1:{}", "0.0.0.0:{}", "localhost:{}"])
def test_an_ollama_server_with_its_model(root: Path, monkeypatch: pytest.MonkeyPatch, ollama: FakeOllama, address: str) -> None:
    monkeypatch.setenv("OLLAMA_HOST", address.format(ollama.port))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    checks = found(root)
    assert checks["ollama server"].ok, checks["ollama server"]
    assert "0.0.0" in checks["ollama server"].detail
    assert checks["ollama model"] == Check("ollama model", True, "gemma3:4b sees images (digest a2af6cc3eb7f…)")


@pytest.mark.parametrize(("kind", "ok"), [("prototype", None), ("ollama", False)])
def test_a_missing_model_has_its_fix_and_is_a_fault_only_where_it_is_asked_for(
    root: Path, monkeypatch: pytest.MonkeyPatch, ollama: FakeOllama, kind: str, ok: bool | None
) -> None:
    (root / "params.yaml").write_text(f"labeling: {{kind: {kind}}}\n")
    monkeypatch.setenv("OLLAMA_HOST", ollama.host)
    ollama.model = "other:1b"
    checks = found(root)
    assert checks["ollama server"].ok
    assert (checks["ollama model"].ok, checks["ollama model"].fix) == (ok, "ollama pull gemma3:4b")


@pytest.mark.parametrize(("kind", "ok"), [("prototype", None), ("ollama", False)])
@pytest.mark.parametrize("address", ["127.0.0.1:9", "http://[", "nonsense://x", "127.0.0.1:notaport"])
def test_no_ollama_server_is_a_fault_only_where_it_is_asked_for(
    root: Path, monkeypatch: pytest.MonkeyPatch, address: str, kind: str, ok: bool | None
) -> None:
    (root / "params.yaml").write_text(f"labeling: {{kind: {kind}}}\n")
    monkeypatch.setenv("OLLAMA_HOST", address)
    checks = found(root)
    assert checks["ollama server"].ok is ok
    assert checks["ollama model"].ok is ok
    assert checks["ollama server"].fix == ("ollama serve" if address == "127.0.0.1:9" else checks["ollama server"].fix)
    assert checks["ollama server"].fix
    assert checks["params.yaml"].ok
