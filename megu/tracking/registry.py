"""The MLflow registry: an unlearned model becomes a version, a served form with safetensors weights, never a pickle."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megu.core.errors import MeguError
from megu.core.files.store import sha256_file
from megu.models import brought_by
from megu.tracking import Run, answered, as_param, client, use
from megu.tracking.environment import package_version
from megu.tracking.versions import DIGEST_TAG, WEIGHTS, find_version
from megu.training.weights import load_weights

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun
    from mlflow.entities.model_registry import ModelVersion
    from numpy.typing import NDArray

#: Description of a registered model.
DESCRIPTION = (
    "Models that have unlearned data. `challenger` waits for approval, `champion` was approved and is to be served. Each version's "
    "description says what it forgot, how close it is to a retrain that never saw that data, and where the evidence is."
)
#: What the served form needs to run.
REQUIREMENTS = ("torch", "numpy", "safetensors")


@dataclass(frozen=True)
class Serving:
    """What the served form needs besides the weights. mean, std: per channel, of pixels scaled to [0, 1]."""

    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Version:
    """A version of a registered model. new: False when these weights were registered before."""

    name: str
    version: str
    new: bool

    def __str__(self) -> str:
        return f"models:/{self.name}/{self.version}"


@answered
def register(
    run: Run,
    weights: Path,
    serving: Serving,
    example: NDArray[np.uint8],
    *,
    name: str,
    alias: str,
    tags: dict[str, str],
    params: Mapping[str, Any] | None = None,
) -> Version:
    """Make ``weights`` a version of the registered model ``name`` and give it ``alias``.

    The served form takes uint8 images (N, H, W, C) and returns float32 probabilities (N, K). The same weights are never
    registered twice: the version that has them is found by its digest and only the alias moves. The exception is a version that can never
    be promoted: its files are gone, its run did not finish and left no dossier, or its dossier's verdict is for other settings
    (`_is_judged_alike`).
    example: a few images, stored as the input example and used for the signature. params: of this run, as they are logged.
    """
    digest = sha256_file(weights)
    known = _find(run, name, digest, {key: as_param(value) for key, value in (params or {}).items()})
    if known is None:
        known = _create(run, weights, serving, example, name, {DIGEST_TAG: digest, **tags})
        created = Version(name, known, True)
    else:
        created = Version(name, known, False)
    run.client.set_registered_model_alias(name, alias, known)
    return created


def _find(run: Run, name: str, digest: str, params: Mapping[str, str]) -> str | None:
    # The name is compared here: a filter that contains a name with a quote does not parse.
    found = run.client.search_model_versions(f"tag.{DIGEST_TAG} = '{digest}'")
    newest_first = sorted((entry for entry in found if entry.name == name), key=lambda entry: int(entry.version), reverse=True)
    return next(
        (str(entry.version) for entry in newest_first if _is_whole(run, entry, params) and _has_files(run, entry)), None
    )


def _is_whole(run: Run, entry: ModelVersion, params: Mapping[str, str]) -> bool:
    """Whether the run that made the version is this one, or finished and was judged as this one will be."""
    from mlflow.exceptions import MlflowException

    if entry.run_id == run.id:
        return True
    try:
        made = run.client.get_run(entry.run_id or "")
    except MlflowException:
        return False
    return made.info.status == "FINISHED" and _is_judged_alike(made, params)


def _is_judged_alike(made: MlflowRun, params: Mapping[str, str]) -> bool:
    """Whether the verdict of a version counts for a run with these parameters: it started from the same champion and, if the gate
    failed it, no setting has changed since. A retrain has the same weights whatever the gate and the champion are.
    """
    changed = {key for key, value in params.items() if made.data.params.get(key) != value}
    return "original.model" not in changed and not (changed and made.data.tags.get("gate") == "fail")


def _has_files(run: Run, entry: ModelVersion) -> bool:
    """Whether the version's weights are still in their place."""
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    use(run.client.tracking_uri)
    try:
        files = mlflow.artifacts.list_artifacts(artifact_uri=f"models:/{entry.name}/{entry.version}/{Path(WEIGHTS).parent}")
    except MlflowException:
        return False
    return any(Path(file.path).name == Path(WEIGHTS).name for file in files)


def _create(run: Run, weights: Path, serving: Serving, example: NDArray[np.uint8], name: str, tags: dict[str, str]) -> str:
    import mlflow.pyfunc
    from mlflow.models import Model, infer_signature

    from megu.tracking import served

    use(run.client.tracking_uri)
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "weights.safetensors"
        shutil.copyfile(weights, copied)
        facts = Path(folder) / "serving.json"
        facts.write_text(json.dumps(asdict(serving)), encoding="utf-8")
        answer = served.answer(*served.load(copied, facts), example)
        info = load_weights(weights)[1]
        place, plugin = brought_by(info.arch)
        packages = [Path(__file__).resolve().parent.parent, *([place] if place else [])]
        requirements = [f"{name}=={package_version(name).split('+')[0]}" for name in (*REQUIREMENTS, *_more(info.arch))]
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _without_bytecode():
            warnings.simplefilter("ignore")
            # Created first, by id: Model.log alone would put it into the thread's active experiment.
            made = run.client.create_logged_model(run.experiment_id, name="model", source_run_id=run.id)
            logged = Model.log(
                None,
                mlflow.pyfunc,
                name="model",
                run_id=run.id,
                model_id=made.model_id,
                python_model=str(Path(served.__file__)),
                artifacts={"weights": str(copied), "serving": str(facts)},
                code_paths=[_without_caches(package, Path(folder)) for package in packages],
                signature=infer_signature(example, answer),
                input_example=example,
                pip_requirements=[*requirements, *([plugin] if plugin else [])],
            )
    with contextlib.suppress(mlflow.exceptions.MlflowException):
        run.client.create_registered_model(name, description=DESCRIPTION)
    version = run.client.create_model_version(name, logged.model_uri, run.id, tags=tags, model_id=logged.model_id)
    return str(version.version)


@contextlib.contextmanager
def _without_bytecode() -> Iterator[None]:
    """Prevent bytecode: MLflow runs the served form in the folder that it then stores, and would store Python's cache files with it."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _more(arch: str) -> tuple[str, ...]:
    return ("torchvision",) if arch == "vit-b-16" else ()


def _without_caches(package: Path, folder: Path) -> str:
    """Return a copy of a package's folder, or of a module's file."""
    if package.is_file():
        return str(shutil.copy2(package, folder / package.name))
    return str(shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__")))


@answered
def serve(connected: MlflowClient, uri: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what a registered version answers: probabilities (N, K) for images (N, H, W, C).

    Runs the registered code, in a copy: Python leaves files beside what it runs.
    """
    import mlflow.pyfunc

    use(connected.tracking_uri)
    with tempfile.TemporaryDirectory() as folder:
        copied = _download(uri, Path(folder), connected)
        answers: NDArray[np.float32] = mlflow.pyfunc.load_model(str(copied)).predict(images)
    return answers


@answered
def identity(uri: str, *, home: Path, asked: str) -> tuple[str, str | None]:
    """Return what ``uri`` (as for `fetch_weights`) refers to now, without fetching it: an identity that no other weights have, empty if
    MLflow has none, and the SHA-256 of the weights if megu registered them. asked: as for `fetch_weights`.

    Raises `MeguError` when there is no such version.
    """
    from mlflow.exceptions import MlflowException

    connected = client(home)
    logged = re.fullmatch(r"runs:/([^/]+)/(.+)", uri)
    if logged is None:
        entry = find_version(connected, uri, asked)
        made = f"models:/{entry.name}/{entry.version} of {entry.creation_timestamp}"
        return f"{made} in {connected.tracking_uri}", entry.tags.get(DIGEST_TAG)
    try:
        outputs = connected.get_run(logged[1]).outputs
        models = [connected.get_logged_model(output.model_id) for output in (outputs.model_outputs if outputs else ())]
    except MlflowException:
        return "", None  # `fetch_weights` reports what is wrong
    own = [model for model in models if model.name == logged[2]]
    newest = max(own, key=lambda model: model.creation_timestamp, default=None)
    return (f"{newest.model_id} in {connected.tracking_uri}" if newest else ""), None


@answered
def fetch_weights(uri: str, folder: Path, *, home: Path, asked: str) -> Path:
    """Copy the weights of a model into ``folder``: a registered version (``models:/name/3``, ``models:/name@alias``) or a model that
    a run logged (``runs:/<run id>/<name>``).

    For a model that megu registered, these are its safetensors. For another program's, they are whatever
    `megu.training.weights.read_state`
    reads: safetensors, an exported program (the current format of ``mlflow.pytorch.log_model``) or a state dictionary.

    asked: the key that specified it, for an error ("original.model").

    Raises `MeguError` when there is no such model, it contains only a pickle, or its weights are not those registered.
    """
    connected = client(home)
    digest = None
    if re.fullmatch(r"runs:/[^/]+/.+", uri):
        place = uri
    else:
        entry = find_version(connected, uri, asked)
        place, digest = f"models:/{entry.name}/{entry.version}", entry.tags.get(DIGEST_TAG)
    weights = _download(f"{place}/{WEIGHTS}", folder, connected) or _find_weights(
        _download(place, folder, connected), uri, asked
    )
    if digest and sha256_file(weights) != digest:
        raise MeguError(f"{asked}: the weights of {uri} are damaged", "register the model again, or specify another version")
    return weights


def _download(place: str, folder: Path, connected: MlflowClient) -> Path | None:
    """Copy the file or folder at an artifact address; None when there is none."""
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    try:
        return Path(mlflow.artifacts.download_artifacts(place, dst_path=str(folder), tracking_uri=connected.tracking_uri))
    except (MlflowException, OSError):
        return None


def _find_weights(model: Path | None, uri: str, asked: str) -> Path:
    """Return the one weights file in a logged model that can be read without running the model's code."""
    files = [] if model is None else [model] if model.is_file() else sorted(path for path in model.rglob("*") if path.is_file())
    as_file = f"{asked.partition('.')[0]}.weights"
    fix = f"give its weights as a file with {as_file}"
    for pattern in ("*.safetensors", "*.pt2", "state_dict.pth"):
        if len(found := [path for path in files if path.match(pattern)]) == 1:
            return found[0]
        if found:
            raise MeguError(f"{asked}: {uri} contains several weights files ({', '.join(p.name for p in found[:3])})", fix)
    if any(path.suffix in (".pth", ".pt", ".pkl") for path in files):
        raise MeguError(
            f"{asked}: {uri} is stored as a pickle, which can run any code when loaded, so it is refused",
            f"log it with serialization_format='pt2', or save model.state_dict() as safetensors for {as_file}",
        )
    raise MeguError(
        f"{asked}: {uri} contains no weights that can be read (another program registered it, or its files are gone)", fix
    )
