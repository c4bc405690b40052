"""Reads the results of earlier stages back as the original objects."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from megu.core.files.store import canonical_json
from megu.core.project import Project
from megu.core.stages import Outcome, Result, computing
from megu.data import arrays
from megu.data.arrays import Dataset
from megu.data.splits import ForgetSplit

if TYPE_CHECKING:
    from torch import nn

    from megu.data.tensors import ImageSet
    from megu.labeling import Labeling
    from megu.training.weights import ModelInfo
    from megu.unlearning.labels.forget_targets import Perturbing

T = TypeVar("T")


def dataset(project: Project, data: Result) -> Dataset:
    """Return the data set as the run sees it, limited if ``data.per_class`` is set."""
    return arrays.limited(arrays.load(project.data(data.values["name"])), data.values.get("per_class"))


def forget_split(project: Project, split: Result) -> ForgetSplit:
    return ForgetSplit(
        scenario=split.values["scenario"],
        classes=tuple(split.values["classes"]),
        **project.store.arrays(split.files["positions"]),
    )


def train_images(project: Project, data: Result, device: str, index: Any = None) -> ImageSet:
    """Return the training images on the device, only those at ``index`` if specified."""
    from megu.core.device import resolve
    from megu.data.tensors import ImageSet

    loaded = dataset(project, data)
    return ImageSet.from_partition(loaded.train, loaded.mean, loaded.std, resolve(device), index=index)


def model(project: Project, result: Result, device: str) -> nn.Module:
    """Return the model that a stage stored, in evaluation mode."""
    from megu.core.device import resolve
    from megu.training.weights import load_model

    network, _ = load_model(project.store.checked(result.files["weights"]))
    return network.to(resolve(device))


def arrays_of(project: Project, result: Result | None, name: str) -> dict[str, Any] | None:
    """Return the arrays that a stage stored under ``name``; None if the stage did not run."""
    return None if result is None else dict(project.store.arrays(result.files[name]))


def perturbing(project: Project, result: Result) -> Perturbing:
    from megu.unlearning.labels.forget_targets import Perturbing

    arrays = project.store.arrays(result.files["perturbing"])
    return Perturbing(**arrays, sharpness=result.values["sharpness"])


def checkpoint(project: Project, stage: str, *depends: Any) -> Path:
    """Return where a long stage writes its checkpoint, and finds it in the next run: one place for the same inputs and the same key.

    Checkpoints for the same inputs under another key (other code, packages or device) are removed: nothing can continue from them.
    """
    inputs = _digest([entry.digest if isinstance(entry, Result) else str(entry) for entry in depends])
    own = project.checkpoints / f"{stage}-{inputs}-{_digest(computing())}.safetensors"
    for other in project.checkpoints.glob(f"{stage}-{inputs}*.safetensors"):
        if other != own:
            other.unlink(missing_ok=True)
    return own


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()[:16]


def measured(work: Callable[[], T], device: str) -> tuple[T, dict[str, Any]]:
    """Return the result of ``work``, and notes on the cost of the computation alone, as every stage stores them."""
    from megu.core.device import measured, resolve
    from megu.training.loop import counting

    with counting() as passes:
        found, cost = measured(work, resolve(device))
    return found, {"compute_seconds": cost.seconds, "peak_memory_bytes": cost.peak_memory_bytes, "passes": sum(passes)}


def model_outcome(
    project: Project, network: nn.Module, info: ModelInfo, notes: Mapping[str, Any], values: Mapping[str, Any] | None = None
) -> Outcome:
    """Return a trained model as every training stage stores it: its weights, the cost of the computation, and further values."""
    from megu.training.weights import digest, to_bytes

    return Outcome(
        files={"weights": project.store.put_bytes("safetensors", to_bytes(network, info))},
        values={"weights_digest": digest(network), **(values or {})},
        notes=notes,
    )


def labeling_outcome(project: Project, found: Labeling, apart: Sequence[str] = ()) -> Outcome:
    """Return a labeler's similarity scores as every labeler's stage stores them: the numbers, with their provenance in the file's header.

    apart: the sub-classes that are concepts of their own, after the classes.
    """
    meta = {"labeler": canonical_json(found.identity.to_json()).decode(), "record": canonical_json(dict(found.record)).decode()}
    return Outcome(
        files={"labeling": project.store.put_arrays(found.to_arrays(), meta)},
        values={"labeler": found.identity.to_json(), **({"apart": list(apart)} if apart else {})},
    )


def say_trained(result: Result) -> str:
    return f"trained in {result.notes['compute_seconds']:.1f} s"
