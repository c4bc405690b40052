"""Registered models: served as the weights predict, never pickled, never twice, and fetched back whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megu.core.errors import MeguError
from megu.core.files.store import sha256_file
from megu.core.project import Project
from megu.models import MODELS, build
from megu.tracking import Run, fetch_model
from megu.tracking.registry import DIGEST_TAG, Serving, Version, register
from megu.training.weights import ModelInfo, load_model, save_weights

SERVING = Serving(("a", "b", "c", "d"), (0.3,), (0.25,))
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 1), dtype=np.uint8)
PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".joblib", ".bin"}


@pytest.fixture(autouse=True)
def no_team_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project") / ".megu"


@pytest.fixture(scope="module")
def run(home: Path) -> Run:
    return Run.start(home, "megu", "forget a", {})


def weights(folder: Path, seed: int) -> Path:
    path = folder / f"{seed}.safetensors"
    save_weights(path, build(next(iter(MODELS)), 4, 1, seed=seed), ModelInfo(next(iter(MODELS)), 4, 1))
    return path


def put(run: Run, path: Path, name: str, alias: str = "challenger", params: dict[str, Any] | None = None) -> Version:
    return register(run, path, SERVING, IMAGES[:2], name=name, alias=alias, tags={"method": "megu"}, params=params)


def files(run: Run, version: Version) -> Path:
    """The folder that a version's files lie in."""
    entry = run.client.get_model_version(version.name, version.version)
    logged = run.client.get_logged_model(entry.source.removeprefix("models:/"))
    return Path(logged.artifact_location.removeprefix("file://"))


def expected(path: Path) -> np.ndarray:
    """By hand, from the weights alone: softmax f((x / 255 - mean) / std)."""
    model, _ = load_model(path)
    pixels = (torch.from_numpy(IMAGES).permute(0, 3, 1, 2).float() / 255 - SERVING.mean[0]) / SERVING.std[0]
    with torch.no_grad():
        return torch.softmax(model(pixels), dim=1).numpy()


@pytest.mark.slow
def test_the_served_form_predicts_what_the_weights_do(run: Run, home: Path, tmp_path: Path) -> None:
    """In a process that has no megu but the version's own, and nothing that serving does not need."""
    path = weights(tmp_path, 1)
    version = put(run, path, "served")
    np.save(tmp_path / "images.npy", IMAGES)
    program = """
import sys
for name in ("prefect", "dvc", "matplotlib", "rich", "typer", "torchvision", "ollama"):
    sys.modules[name] = None
import mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/served@challenger")
np.save("answer.npy", model.predict(np.load("images.npy")))
import megu
print(megu.__file__)
"""
    asked = [sys.executable, "-I", "-c", program, f"sqlite:///{home / 'mlflow.db'}"]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(files(run, version) / "code")
    answer = np.load(tmp_path / "answer.npy")
    assert (answer.dtype, answer.shape) == (np.float32, (5, 4))
    np.testing.assert_allclose(answer, expected(path), atol=1e-6)


def test_a_version_says_what_it_takes_and_holds_no_pickle(run: Run, tmp_path: Path) -> None:
    from mlflow.models import Model

    path = weights(tmp_path, 2)
    version = put(run, path, "described")
    folder = files(run, version)
    model = Model.load(str(folder))
    assert model.signature is not None
    assert model.signature.inputs.to_dict() == [{"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": (-1, 12, 12, 1)}}]
    assert model.signature.outputs.to_dict() == [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": (-1, 4)}}]
    assert model.saved_input_example_info is not None
    assert not [file for file in folder.rglob("*") if file.suffix in PICKLES or file.name == "__pycache__"]
    others = [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".safetensors"]
    assert not [file for file in others if file.read_bytes()[:2] in (b"\x80\x04", b"\x80\x05")]  # how a pickle begins
    assert "python_model" not in model.flavors["python_function"]  # where MLflow names a pickled one
    required = (folder / "requirements.txt").read_text().split()
    assert {line.split("==")[0] for line in required} == {"mlflow", "torch", "numpy", "safetensors"}
    assert not any("+" in line for line in required)  # no build of this machine
    entry = run.client.get_model_version(version.name, version.version)
    assert entry.run_id == run.id
    assert entry.tags == {DIGEST_TAG: sha256_file(path), "method": "megu"}


@pytest.mark.parametrize("name", ["megu", 'it\'s a 100% "model"'])
def test_the_same_weights_are_registered_once(run: Run, tmp_path: Path, name: str) -> None:
    first = put(run, weights(tmp_path, 3), name)
    second = put(run, weights(tmp_path, 4), name)
    assert [(v.version, v.new) for v in (first, second)] == [("1", True), ("2", True)]
    again = put(run, weights(tmp_path, 3), name)
    assert again == Version(name, "1", new=False)
    assert str(run.client.get_model_version_by_alias(name, "challenger").version) == "1"  # the alias moved back
    assert len([entry for entry in run.client.search_model_versions() if entry.name == name]) == 2


@pytest.mark.parametrize(
    ("gate", "changes", "new"),
    [
        ("fail", {}, False),
        ("fail", {"gate.min_seeds": 1}, True),
        ("pass", {"gate.min_seeds": 1}, False),
        ("pass", {"original.model": "models:/judged/1"}, True),
    ],
)
def test_the_same_weights_under_another_verdict_are_a_version_of_their_own(
    home: Path, tmp_path: Path, gate: str, changes: dict[str, Any], new: bool
) -> None:
    """A retrain has the same weights whatever the gate and the champion are, and a version goes by the verdict of the run that made it."""
    params = {"original.model": None, "gate.min_seeds": 3}
    path, name = weights(tmp_path, 9), f"judged {gate} {new}"
    first, second = (Run.start(home, "megu", f"forget {which}", {}) for which in "ef")
    put(first, path, name, params=params)
    first.log(params=params, tags={"gate": gate})
    first.finish("FINISHED")
    assert put(second, path, name, params={**params, **changes}).new == new


def test_weights_are_known_by_model(run: Run, tmp_path: Path) -> None:
    path = weights(tmp_path, 5)
    assert put(run, path, "this").new
    assert put(run, path, "that").new


def test_a_version_whose_files_are_gone_is_made_again(run: Run, home: Path, tmp_path: Path) -> None:
    path = weights(tmp_path, 6)
    lost = put(run, path, "lost")
    shutil.rmtree(files(run, lost))
    with pytest.raises(MeguError, match="files are gone"):
        fetch_model("models:/lost@challenger", tmp_path / "to", home=home)
    made = put(run, path, "lost")
    assert (made.version, made.new) == ("2", True)
    assert fetch_model("models:/lost@challenger", tmp_path / "to", home=home).read_bytes() == path.read_bytes()


def test_a_version_whose_run_did_not_finish_is_made_again(home: Path, tmp_path: Path) -> None:
    """Killed after it registered and before it sealed its dossier, without which the version could never be promoted."""
    path, (killed, second, third) = weights(tmp_path, 8), (Run.start(home, "megu", f"forget {name}", {}) for name in "bcd")
    assert put(killed, path, "cut short") == Version("cut short", "1", new=True)
    assert put(second, path, "cut short") == Version("cut short", "2", new=True)
    second.finish()
    killed.finish("KILLED")
    assert put(third, path, "cut short") == Version("cut short", "2", new=False)
    third.finish()


def test_a_model_goes_into_its_own_runs_store(run: Run, home: Path, tmp_path: Path) -> None:
    """Though another project of this process was used last."""
    Run.start(tmp_path / "other", "megu", "n", {})
    path = weights(tmp_path, 7)
    version = put(run, path, "mine")
    assert files(run, version).is_relative_to(home)
    assert not list((tmp_path / "other").rglob("*.safetensors"))
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_weights_come_back_by_version_and_by_alias(run: Run, home: Path, tmp_path: Path) -> None:
    path = weights(tmp_path, 8)
    put(run, path, "fetched", alias="champion")
    for uri in ("models:/fetched/1", "models:/fetched@champion"):
        fetched = fetch_model(uri, tmp_path / uri.replace("/", "-"), home=home)
        assert fetched.read_bytes() == path.read_bytes()
        assert load_model(fetched)[1] == ModelInfo(next(iter(MODELS)), 4, 1)


def test_damaged_weights_are_not_handed_out(run: Run, home: Path, tmp_path: Path) -> None:
    version = put(run, weights(tmp_path, 9), "damaged")
    kept = next(files(run, version).rglob("weights.safetensors"))
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(content)
    with pytest.raises(MeguError, match=r"models:/damaged/1 are damaged"):
        fetch_model("models:/damaged/1", tmp_path / "to", home=home)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("models:/nobody/1", "there is no models:/nobody/1"),
        ("models:/nobody@champion", "there is no models:/nobody@champion"),
        ("models:/known/99", "there is no models:/known/99"),
        ("models:/known@nobody", "there is no models:/known@nobody"),
        ("models:/known", "is not a registered model"),
        ("models:/", "is not a registered model"),
        ("known", "is not a registered model"),
        ("../weights.safetensors", "is not a registered model"),
    ],
)
def test_a_model_that_is_not_there(run: Run, home: Path, tmp_path: Path, uri: str, said: str) -> None:
    put(run, weights(tmp_path, 10), "known")
    with pytest.raises(MeguError) as caught:
        fetch_model(uri, tmp_path / "to", home=home)
    assert said in caught.value.what
    assert caught.value.fix
    assert "\n" not in str(caught.value)


def test_a_model_of_another_program(run: Run, home: Path, tmp_path: Path) -> None:
    run.artifacts({"other/MLmodel": b"flavors: {}\n"})
    run.client.create_registered_model("foreign")
    run.client.create_model_version("foreign", f"{run.client.get_run(run.id).info.artifact_uri}/other", run.id)
    with pytest.raises(MeguError, match="contains no weights that can be read"):
        fetch_model("models:/foreign/1", tmp_path / "to", home=home)


USERS = """
from torch import nn
def build(num_classes, channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 144, num_classes))
"""


@pytest.mark.slow
def test_a_users_architecture_is_served_with_its_code(
    run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaded in another process, where the user's package is not installed."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "users_own.py").write_text(USERS)
    monkeypatch.chdir(tmp_path / "here")
    info = ModelInfo.of("users_own:build", 4, (1, 12, 12))
    save_weights(tmp_path / "w.safetensors", info.build(seed=3), info)
    version = put(run, tmp_path / "w.safetensors", "users")
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "images.npy", IMAGES)
    program = (
        "import sys, mlflow, numpy as np\n"
        f"mlflow.set_tracking_uri({run.client.tracking_uri!r})\n"
        f"answer = mlflow.pyfunc.load_model({str(version)!r}).predict(np.load('images.npy'))\n"
        "np.save('answer.npy', answer)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, capture_output=True)
    monkeypatch.chdir(tmp_path / "here")
    np.testing.assert_allclose(np.load(tmp_path / "answer.npy"), expected(tmp_path / "w.safetensors"), atol=1e-6)


def log_plainly(run: Run, kind: str) -> str:
    """A model as another program logs it with plain `mlflow.pytorch`; its address. Under the run's own store."""
    import mlflow
    import mlflow.pytorch

    model = build("resnet-compact", 4, 1, seed=12).eval()
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(run.client.tracking_uri)
    try:
        with mlflow.start_run(run_id=run.id):
            if kind == "state":
                mlflow.pytorch.log_state_dict(model.state_dict(), artifact_path=kind)
            else:
                example = np.zeros((2, 1, 12, 12), dtype=np.float32) if kind == "pt2" else None
                mlflow.pytorch.log_model(
                    model, name=kind, input_example=example, serialization_format=kind, pip_requirements=["torch"]
                )
    finally:
        mlflow.set_tracking_uri(before)
    return f"runs:/{run.id}/{kind}"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["pt2", "state"])
def test_a_model_that_another_program_logged_gives_its_weights(run: Run, home: Path, tmp_path: Path, kind: str) -> None:
    fetched = fetch_model(log_plainly(run, kind), tmp_path, home=home)
    model, _ = load_model(fetched, ModelInfo("resnet-compact", 4, 1))
    expected = build("resnet-compact", 4, 1, seed=12).state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_pickled_model_is_not_loaded(run: Run, home: Path, tmp_path: Path) -> None:
    with pytest.raises(MeguError, match="is stored as a pickle, which can run any code") as raised:
        fetch_model(log_plainly(run, "pickle"), tmp_path, home=home)
    assert "pt2" in raised.value.fix
    with pytest.raises(MeguError, match="contains no weights"):
        fetch_model(f"runs:/{run.id}/nothing", tmp_path / "none", home=home)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("plain", [False, True])
def test_an_original_is_fetched_once_for_what_its_name_stands_for(
    run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: bool
) -> None:
    from megu import tracking
    from megu.config import tree as config
    from tasks.run.inputs import provided_weights

    project, fetched = Project(home.parent), list[str]()
    uri = log_plainly(run, "pt2") if plain else "models:/once@challenger"
    first = None if plain else put(run, weights(tmp_path, 21), "once")

    def counted(name: str, folder: Path, *, home: Path, asked: str) -> Path:
        fetched.append(name)
        return fetch_model(name, folder, home=home, asked=asked)

    monkeypatch.setattr(tracking, "fetch_model", counted)
    asked = config.parse({"original": {"model": uri}})
    found = [provided_weights(project, asked, "original") for _ in range(3)]
    assert found[0] is not None
    assert found == [found[0]] * 3
    assert fetched == [uri]
    project.store.path(found[0]).unlink()
    assert provided_weights(project, asked, "original") == found[0], "what a purge took from the store is fetched again"
    assert fetched == [uri] * 2
    if not plain:  # the name stands for another version now
        assert put(run, weights(tmp_path, 22), "once") != first
        assert provided_weights(project, asked, "original") not in (None, found[0])
        assert fetched == [uri] * 3


@pytest.mark.parametrize("name", ["a/b", "a:b"])
def test_a_name_that_mlflow_refuses(run: Run, tmp_path: Path, name: str) -> None:
    with pytest.raises(MeguError, match="Invalid model name"):
        put(run, weights(tmp_path, 11), name)
