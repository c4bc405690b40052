"""The inputs of a run: checked before anything is computed, so that a wrong request is refused before it leaves a trace."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from megu import models
from megu.config import tree as configuration
from megu.config.tree import Config, ProvidedParams
from megu.core.device import resolve
from megu.core.errors import MeguError
from megu.core.files.store import Ref, canonical_json, writing
from megu.core.progress import stages
from megu.core.project import Project
from megu.core.settings import scalars, sections
from megu.core.stages import Code, Result
from megu.data import arrays, pins, splits
from megu.data.arrays import Dataset
from megu.data.scope import RequestScope
from megu.data.sources import providers
from megu.evaluation import own
from megu.labeling import choose, kinds, present
from megu.lineage.keys import Keys, signer
from megu.suppression import screening
from megu.training.loop import TrainParams
from megu.training.weights import OTHER_KINDS, read_state
from megu.training.weights import digest as digest_of
from megu.unlearning.methods import METHODS, code, lookup
from tasks.original import checked
from tasks.reference import refuse_original
from tasks.run import cached

#: The sections that may specify an external model.
MODELS = ("original", "reference")


def preflight(project: Project, config: Config) -> None:
    """Raise `MeguError` for foreseeable failures: unusable inputs, a labeler whose model must be queried and cannot be, an unfinished
    purge, images that were erased and are here again."""
    providers.no_purge_is_open(project.root)
    nothing_erased(project, config)
    check_provided(project, config)
    enough_exemplars(project, config)
    labeler_ready(project, config)
    signing_key(project, config)


def signing_key(project: Project, config: Config) -> Any:
    """Return the key that will sign the dossier, None without one. Raises `MeguError` for one that cannot be used."""
    keys = Keys(project.keys)
    keys.commitment_key()
    return signer(keys, project.root / config.lineage.key if config.lineage.key else None)


def nothing_erased(project: Project, config: Config) -> None:
    """Raise `MeguError` for a local data set that contains erased images, unless the stage that fetches it leaves them out."""
    folder = project.data(config.data.name)
    if config.data.suppressed == "refuse" and (folder / "meta.json").is_file():
        for line in screening.screen(project, config.data.suppressed, folder):
            stages().note(f"{config.data.name}: {line}")


def check_provided(project: Project, config: Config) -> None:
    """Raise `MeguError` for an impossible device, model or request; the request is only checked if the data set is here."""
    resolve(config.device)
    makes_new_networks(project, config)
    if loaded := _loaded(project, config):
        splits.make_split(loaded, config.forget, config.seed)


def _loaded(project: Project, config: Config) -> arrays.Dataset | None:
    """Return the data set as the run sees it, None when it is not here yet."""
    folder = project.data(config.data.name)
    return arrays.limited(arrays.load(folder), config.data.per_class) if (folder / "meta.json").is_file() else None


def recipe(project: Project, config: Config) -> TrainParams | None:
    """Return how the original was trained, for a method that trains in the same way."""
    return config.train if "train_recipe" in needs(config) else None


def needs(config: Config) -> frozenset[str]:
    """Return what must be made before the method can run, with its parameters."""
    return lookup(config.unlearn.method).needed(config.unlearn.params)


def method_code(project: Project, config: Config) -> Code:
    """Return the code of the method, which the unlearning stage looks up by name."""
    return Code(code(config.unlearn.method))


def labeler_code(project: Project, config: Config) -> Code:
    """Return the code of the labeler, which its stage looks up by name."""
    return Code(kinds.code(config.labeling.kind))


def metrics_code(project: Project, config: Config) -> Code:
    """Return the code of the metrics from other packages, which the evaluation looks up by name."""
    return Code(own.code())


def enough_exemplars(project: Project, config: Config) -> None:
    """Raise `MeguError` for a class with too few images for the labeler, which otherwise fails after the original's training: hours
    later."""
    loaded = _loaded(project, config)
    if loaded and "perturbing" in needs(config):
        params = config.labeling.params
        for judged in to_label(loaded, config):
            choose(judged.train, judged.classes, params.exemplars, params.references, params.seed, present(judged).tolist())


def subclasses(config: Config) -> tuple[str, ...]:
    """Return the names of the sub-classes that are to be forgotten while their classes stay, if the targets depend on what these look
    like: calibrated soft targets (`megu.unlearning.labels.perturbing`). For other targets no labeler is asked about them."""
    asked = config.perturbing
    calibrated = asked.label == "soft" and asked.sharpness == "auto" and config.calibration.share > 0
    return RequestScope.of(vars(config.forget)).subclasses if calibrated else ()


def subclass_names(project: Project, config: Config) -> tuple[str, ...]:
    """Return `subclasses`, for the stage that has a labeler score them."""
    return subclasses(config)


def to_label(loaded: Dataset, config: Config) -> list[Dataset]:
    """Return the data sets that the labeler scores: the data set itself and, if sub-classes are to be forgotten, the one with these
    set apart."""
    apart = subclasses(config)
    return [loaded, *([arrays.set_out(loaded, apart)] if apart and loaded.fine and set(apart) <= set(loaded.fine) else [])]


def labeler_ready(project: Project, config: Config) -> None:
    """Raise `MeguError` for a labeler whose model must be queried and cannot be."""
    if config.labeling.kind == "ollama" and "perturbing" in needs(config):
        from tasks import labeler

        labeler.ready(project, config)


def pin(project: Project, config: Config) -> str | None:
    """Return the hash that ``data.dvc`` has for the data set, None when it has none."""
    pinned = pins.read(project.root).get(config.data.name)
    return pinned.md5 if pinned else None


def dataset(project: Project, config: Config) -> dict[str, Any]:
    """Return the arguments of the stage that fetches the data set."""
    return {**vars(config.data), "pin": pin(project, config)}


def widened(project: Project, config: Config, data: Any, duplicates: Any | None) -> Config:
    """Return the configuration with the copies that the request includes, as far as known. duplicates: of the stage that finds them."""
    if not isinstance(duplicates, Result) or not duplicates.files:
        return config
    groups = project.store.arrays(duplicates.files["groups"])["groups"]
    forget = splits.widened(cached.dataset(project, data), config.forget, config.seed, groups)
    return config.model_copy(update={"forget": forget})


def through_dvc(project: Project, config: Config) -> bool:
    """Whether the requested split is the one of ``params.yaml``, which ``dvc.yaml`` makes and ``dvc.lock`` pins."""
    if not (project.root / "dvc.yaml").is_file() or not project.params.is_file():
        return False
    values = sections.read(project.params)
    if not {"seed", "data", "forget"} <= set(values):  # DVC compares what is written there; it does not know defaults
        return False
    if any(scalars.unquoted(values[name], Config.model_fields[name].annotation) for name in ("data", "forget")):
        return False  # DVC would read a different name: 7 for 07
    own = configuration.parse(values, project.params.name)
    return (own.data, own.forget, own.seed) == (config.data, config.forget, config.seed)


def provided_weights(project: Project, config: Config, section: str) -> Ref | None:
    """Return the weights file that a section specifies, copied to the store; None if its model is to be trained here. section: one of
    `MODELS`."""
    check_provided: ProvidedParams = getattr(config, section)
    if check_provided.weights:
        return _kept(project, _weights_file(project, check_provided.weights, section))
    return _fetched(project, check_provided.model, f"{section}.model") if check_provided.model else None


def original(project: Project, config: Config) -> Ref | None:
    return provided_weights(project, config, "original")


def reference(project: Project, config: Config) -> Ref | None:
    return provided_weights(project, config, "reference")


def _weights_file(project: Project, named: str, section: str) -> Path:
    path = project.root / named
    if not path.is_file():
        raise MeguError(f"{section}.weights: there is no file {named}", "specify a safetensors file, relative to the project")
    return path


def _fetched(project: Project, name: str, asked: str) -> Ref | None:
    """Return the weights of a model in MLflow, fetched once for what the name refers to now. asked: the key that specified it."""
    from megu import tracking

    identity, digest = tracking.identity(name, home=project.home, asked=asked)
    notes = project.home / "originals.json"
    if digest:
        known = project.store.find("safetensors", digest)
    else:
        known = project.store.find(*found) if (found := _noted(notes).get(identity)) else None
    if known is None:
        with tempfile.TemporaryDirectory() as folder:
            known = _kept(project, tracking.fetch_model(name, Path(folder), home=project.home, asked=asked))
        if identity and not digest:
            with writing(notes) as temporary:
                temporary.write_bytes(canonical_json({**_noted(notes), identity: [known.kind, known.sha256]}))
    return known


def _noted(path: Path) -> dict[str, tuple[str, str]]:
    """Return which weights a model in MLflow had when it was fetched; empty if the file is incomplete."""
    try:
        return {str(name): (str(kind), str(digest)) for name, (kind, digest) in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def makes_new_networks(project: Project, config: Config) -> None:
    """Raise `MeguError` for a provided model that cannot be used, and for a user's architecture that does not create fresh networks."""
    loaded = _loaded(project, config)
    if not config.original.provided and loaded and config.train.arch not in models.MODELS:
        size, train = loaded.image_size, config.train
        models.build(train.arch, loaded.num_classes, loaded.channels, 0, size, pretrained=train.pretrained)
    not_the_original(config, *(usable(project, config, section) for section in MODELS))


def usable(project: Project, config: Config, section: str) -> str | None:
    """Return the digest of a provided model's weights; None if none is provided, or its data set is not here yet. section: one of
    `MODELS`.

    Raises `MeguError` for a model that cannot be used.
    """
    check_provided: ProvidedParams = getattr(config, section)
    if check_provided.weights:
        path = _weights_file(project, check_provided.weights, section)
    elif ref := provided_weights(project, config, section):
        path = project.store.checked(ref)
    else:
        return None
    if loaded := _loaded(project, config):
        return digest_of(checked(path, check_provided.said(section), loaded, config.train)[0])
    read_state(path, check_provided.said(section))
    return None


def not_the_original(config: Config, original: str | None, reference: str | None) -> None:
    """Raise `MeguError` for a provided retrain that is the original. original, reference: digests of their weights; None: not known
    yet."""
    if config.reference.provided:
        refuse_original(original, reference, config.reference.said("reference"))


def draws_nothing(project: Project, config: Config) -> None:
    """Raise `MeguError` for what may draw from the process-wide generators, which threads share: an architecture that draws in
    training, a method of another package."""
    if config.unlearn.method not in METHODS:
        raise MeguError(
            f"runner.kind = threads: the plugin {config.unlearn.method} may draw random numbers, and threads share the generators",
            "set runner.kind=dask (processes) or serial",
        )
    loaded, arch = _loaded(project, config), config.train.arch
    size, channels, classes = (loaded.image_size, loaded.channels, loaded.num_classes) if loaded else ((32, 32), 3, 10)
    if loaded is None and arch not in models.MODELS:
        raise MeguError(
            f"runner.kind = threads: whether {arch} draws in training is unknown until data set {config.data.name!r} is here",
            "megu data fetch, or set runner.kind=dask (processes) or serial",
        )
    model = models.seeded(lambda: models.blank(arch, classes, channels, size), 0)
    if models.draws(model, (channels, *size)):
        raise MeguError(
            f"runner.kind = threads: {arch} draws random numbers in training (dropout, say), and threads share the generators",
            "set runner.kind=dask (processes) or serial",
        )


def _kept(project: Project, path: Path) -> Ref:
    return project.store.put_file(path, path.suffix.removeprefix(".") if path.suffix in OTHER_KINDS else "safetensors")
