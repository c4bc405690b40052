"""Make a model forget. Everything that the chosen method needs is made here, by the code that the pipeline's stages run."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from megu.api.request import Subset, calibrating
from megu.core.device import CPU, resolve
from megu.core.errors import MeguError
from megu.data.arrays import Dataset, set_out
from megu.data.splits import emptied
from megu.data.tensors import ImageSet
from megu.labeling import choose, kinds, label, present
from megu.labeling.protocol import Labeler
from megu.labeling.prototype import PrototypeParams, make
from megu.models.foreign import Adopted, adopt, check_output
from megu.training.loop import TrainParams, counting, predict
from megu.unlearning.entanglement import analyse
from megu.unlearning.labels.calibration_set import CalibrationParams
from megu.unlearning.labels.forget_targets import Perturbing
from megu.unlearning.labels.perturbing import PerturbParams
from megu.unlearning.labels.replacing import NONE, OVERLAP
from megu.unlearning.labels.targets import subclass_likeness, targets
from megu.unlearning.labels.transition import transition_matrix
from megu.unlearning.methods import Context, Method, lookup, names
from megu.unlearning.noise import NoiseBank, NoiseParams, make_noise_bank, taught

T = TypeVar("T")

#: The source of the class similarities: a labeler, its name or parameters, a similarity matrix, or none.
Judge = Labeler | PrototypeParams | NDArray[Any] | str | None


@dataclass(frozen=True)
class Unlearned:
    """An unlearned model.

    model: on the device where it was made; the input model is left unchanged. targets: the labels that the forget samples were trained on,
    None where the method uses none. chosen: what the method determined itself (a learning rate, say). seconds: by step. passes: images that
    went through the network forward and backward.
    """

    model: nn.Module
    targets: Perturbing | None
    chosen: Mapping[str, Any]
    seconds: Mapping[str, float]
    passes: int


def unlearn(
    model: nn.Module,
    *,
    forget: Subset,
    retain: Subset,
    method: str = "megu",
    labeler: Judge = "prototype",
    perturbing: PerturbParams | None = None,
    noise: NoiseParams | None = None,
    calibration: float = 0.3,
    recipe: TrainParams | None = None,
    fresh: Callable[[], nn.Module] | None = None,
    seed: int = 0,
    device: str = "auto",
    **params: Any,
) -> Unlearned:
    """Make a model forget ``forget`` and keep ``retain`` (`megu.forget` returns both).

    Parameters
    ----------
    model: takes normalised images, float32 (B, C, H, W), and returns logits (B, K). It is left unchanged.
    method: one of `megu.methods`; ``params`` are its own parameters.
    labeler: the source of the class similarities, for the methods that train on perturbing labels: "prototype" (the embedded network, two
        packages beside torch), its parameters (`megu.labelers`), the name of a plugin, an object with the labelers' protocol, a similarity
        matrix (K, K), or None, to use the original's predictions alone.
    perturbing, noise: how the labels and the feature noise are made; the pipeline's defaults when omitted.
    calibration: the share of each class's test images on which the labels are calibrated, in [0, 0.9]; no metric should be measured on
        them, and `megu.evaluate` leaves them out.
    recipe, fresh: how the model was trained, and a function that returns a newly initialised one, for the methods that train from scratch.
    seed: determines everything random. device: "auto" (CUDA when available), "cpu", "cuda" or "cuda:1".

    Raises
    ------
    MeguError: a method, parameter or labeler does not exist or lacks something, or the model does not fit the data.
    """
    data, (chosen, settings), apart = forget.data, _method(method, params), calibrating(calibration)
    needs = chosen.needed(settings)
    _refuse(method, needs, forget, retain, recipe, fresh)
    similarity = _similarity(labeler, data) if "perturbing" in needs else None
    shown = perturbing or (PerturbParams(matrix=NONE) if labeler is None else PerturbParams())
    on = resolve(device)
    frozen = adopt(copy.deepcopy(model).to(on), "the model")
    check_output(frozen, "the model", data.num_classes, (data.channels, *data.image_size))
    clock = _Clock()
    train = ImageSet.from_partition(data.train, data.mean, data.std, on)
    context = Context(
        params=settings,
        seed=seed,
        num_classes=data.num_classes,
        forgotten=_leaving(data, forget.positions),
        fresh=None if fresh is None else lambda: adopt(fresh(), "fresh"),
        recipe=recipe,
    )
    with counting() as passes:
        if "perturbing" in needs:
            made = _targets(frozen, forget, train, similarity, shown, apart, context, clock)
            context = dataclasses.replace(context, perturbing=made)
            if "noise" in needs:
                bank = clock("noise", lambda: _noise(frozen, forget, made, noise or NoiseParams(), seed))
                context = dataclasses.replace(context, noise=bank)
        lost, kept = (train.subset(part.positions) for part in (forget, retain))
        found = clock("unlearn", lambda: chosen.run(frozen, lost, kept, context))
    model = found.model if isinstance(found, Adopted) else found
    return Unlearned(model, context.perturbing, context.chosen, clock.seconds, sum(passes))


@dataclass
class _Clock:
    """Measures steps. seconds: wall-clock time of each step so far."""

    seconds: dict[str, float] = field(default_factory=dict)

    def __call__(self, step: str, work: Callable[[], T]) -> T:
        begun = time.perf_counter()
        found = work()
        self.seconds[step] = time.perf_counter() - begun
        return found


def _method(name: str, params: Mapping[str, Any]) -> tuple[Method, Any]:
    """Return the method and its validated parameters."""
    try:
        found = lookup(name)
    except KeyError:
        raise MeguError(f"there is no method {name!r}", f"the ones here are {', '.join(names())}") from None
    known = [entry.name for entry in dataclasses.fields(found.params)]
    if unknown := sorted(set(params) - set(known)):
        near = difflib.get_close_matches(unknown[0], known, n=1)
        fix = f"did you mean {near[0]}?" if near else f"its parameters are {', '.join(known) or 'none'}"
        raise MeguError(f"the method {name} has no parameter {unknown[0]!r}", fix)
    try:
        return found, found.params(**params)
    except (ValueError, TypeError) as error:
        raise MeguError(f"the method {name}: {error}", "change that parameter") from None


def _refuse(
    method: str,
    needs: frozenset[str],
    forget: Subset,
    retain: Subset,
    recipe: TrainParams | None,
    fresh: Callable[[], nn.Module] | None,
) -> None:
    """Raise `MeguError` for every failure that can be foreseen before anything is computed."""
    if forget.data is not retain.data:
        raise MeguError("forget and retain come from two data sets", "take both from one megu.forget")
    if not len(forget) or not len(retain):
        raise MeguError("forget or retain has no images", "take both from one megu.forget")
    if both := len(np.intersect1d(forget.positions, retain.positions)):
        raise MeguError(f"{both} images are in both forget and retain", "take both from one megu.forget")
    if "train_recipe" in needs and (recipe is None or fresh is None):
        raise MeguError(f"the method {method} trains from scratch", "pass recipe and fresh")


def _similarity(labeler: Judge, data: Dataset) -> NDArray[Any] | Callable[[Dataset], NDArray[Any]] | None:
    """Return the similarity matrix, or a function that has a labeler compute one for a data set; None without a labeler."""
    if labeler is None:
        return None
    if isinstance(labeler, np.ndarray):
        if labeler.shape != (data.num_classes,) * 2:
            raise MeguError(f"the similarity matrix is {labeler.shape}", f"give {data.num_classes} x {data.num_classes}")
        return labeler
    params: Any = labeler if isinstance(labeler, PrototypeParams) else PrototypeParams()
    judge: Labeler
    if isinstance(labeler, str):
        found = kinds.lookup(labeler) if labeler in kinds.names() else None
        if found is None or found.make is None:
            fix = 'give "prototype", the name of a plugin, your own object, a similarity matrix or None'
            raise MeguError(f"there is no labeler {labeler!r} here", fix)
        params = found.params()
        judge = found.make(params, CPU)
    else:
        judge = make(labeler, CPU) if isinstance(labeler, PrototypeParams) else labeler
    asked = (params.exemplars, params.references, params.seed)
    choose(data.train, data.classes, *asked, present(data).tolist())  # refuse a class with too few images now
    return lambda judged: label(judged, judge, *asked).S


def _leaving(data: Dataset, positions: NDArray[np.int64]) -> tuple[int, ...]:
    """Return the classes of which no training image is left."""
    gone = np.zeros(len(data.train), dtype=bool)
    gone[positions] = True
    return tuple(number for number, _ in emptied(data.train.labels, data.classes, gone))


def _targets(
    model: nn.Module,
    forget: Subset,
    train: ImageSet,
    similarity: NDArray[Any] | Callable[[Dataset], NDArray[Any]] | None,
    params: PerturbParams,
    calibration: CalibrationParams,
    context: Context,
    clock: _Clock,
) -> Perturbing:
    data = forget.data
    test = ImageSet.from_partition(data.test, data.mean, data.std, train.device)
    overlap = params.matrix == OVERLAP
    said, held_out = clock(
        "predict", lambda: (predict(model, train, features=overlap), predict(model, test, label="predict test"))
    )
    matrix: NDArray[np.float64] = np.eye(data.num_classes)
    likeness: dict[int, float] = {}
    if isinstance(similarity, np.ndarray):
        matrix = transition_matrix(similarity)
    elif similarity is not None:
        matrix, likeness = clock("labeling", lambda: _judged(similarity, forget, context.forgotten))
    shared = None
    if overlap:
        mask = np.zeros(len(data.train), dtype=bool)
        mask[forget.positions] = True
        assert said.features is not None
        shared = analyse(said.features.numpy(), data.train.labels, data.num_classes, mask).soft
    return targets(
        data,
        forget.positions,
        said.logits.numpy(),
        held_out.logits.numpy(),
        matrix,
        context.forgotten,
        params,
        calibration,
        context.seed,
        likeness,
        shared,
    )


def _judged(
    similarity: Callable[[Dataset], NDArray[Any]], forget: Subset, leaving: tuple[int, ...]
) -> tuple[NDArray[np.float64], dict[int, float]]:
    """Return the transition matrix, and how much each removed sub-class resembles its class, where that class stays."""
    data = forget.data
    matrix = transition_matrix(similarity(data))
    if data.fine is None or data.train.fine is None:
        return matrix, {}
    gone = np.zeros(len(data.train), dtype=bool)
    gone[forget.positions] = True
    own = {finer: int(data.train.labels[data.train.fine == finer][0]) for finer, _ in emptied(data.train.fine, data.fine, gone)}
    apart = [data.fine[finer] for finer, coarse in own.items() if coarse not in leaving]
    return matrix, subclass_likeness(data, apart, similarity(set_out(data, apart)), leaving) if apart else {}


def _noise(model: nn.Module, forget: Subset, made: Perturbing, params: NoiseParams, seed: int) -> NoiseBank:
    data = forget.data
    shape = (data.channels, *data.image_size)
    away_from = sorted({int(own) for own in forget.labels})
    return make_noise_bank(model, taught(made.targets, params.coverage), shape, away_from, params, seed)
