"""Evaluate the weights again: the original and the unlearned model must perform as the dossier says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from megu.core.errors import MeguError
from megu.core.files.store import Ref, without_nan
from megu.lineage.verify.checks import files
from megu.lineage.verify.context import Check, VerificationContext, summed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from megu.data.arrays import Dataset

#: On another machine the last bit of an answer may differ, and with it the prediction for a borderline image: up to these limits, in
#: points (metrics in percent) or nats (entropies), a fresh evaluation counts as the same.
POINTS, NATS = 0.5, 0.02


def metrics_again(case: VerificationContext) -> Check:
    """Predict and evaluate afresh: the original, the unlearned model, and the retrain if there was exactly one."""
    name = "metrics again"
    if (gone := _erased(case, name)) is not None:
        return gone
    if (case.project is None) or files(case).holds is not True:
        return Check(name, None, "the weights or the split are not here unchanged")
    dataset = _dataset(case)
    if dataset is None:
        return Check(name, None, "the data set is not here unchanged")
    from megu import evaluation
    from megu.data.splits import ForgetSplit
    from megu.evaluation import held_out
    from megu.evaluation.condensed import condense
    from megu.tracking.environment import environment
    from megu.unlearning.labels.calibration_set import CalibrationParams, left_to_measure

    split = case.record("split")
    assert split is not None
    positions = ForgetSplit(
        scenario=split.values["scenario"],
        classes=tuple(split.values["classes"]),
        **case.project.store.arrays(Ref.from_json(split.files["positions"])),
    )
    here, there = environment(case.project.root), case.dossier.environment
    exact = case.dossier.device["class"] == "cpu" and all(
        here[key] == there[key] for key in ("cpu", "version.torch", "threads")
    )
    # Runs from before the calibration set existed have none.
    evaluated = case.record("evaluation")
    params = CalibrationParams(share=evaluated.parts.get("calibration.share", 0.0) if evaluated else 0.0)
    measured, left, positions = left_to_measure(dataset, positions, params)
    chosen = held_out.of(left, positions)
    recorded, wrong, count = case.dossier.evidence.evaluation, [], 0
    for model, label in _models(case).items():
        weights = next(record for record in case.records if record.label == label).refs["weights"]
        train, test = _answers(case, weights, dataset)
        said, labels = condense(train, test[measured], positions.forget), (dataset.train.labels, left.test.labels)
        score = evaluation.score(said, *labels, positions, dataset.num_classes, dataset.train.fine)
        more = held_out.score(said, labels[1], positions, chosen) if held_out.HELD_OUT in recorded else {}
        for metric, value in without_nan({**score.metrics, **more}).items():
            if metric not in recorded[model]["metrics"]:
                continue  # only later versions measure it
            count += 1
            wrong += _differs(f"{model} {metric}", recorded[model]["metrics"][metric], value, exact)
    how = "to the last digit" if exact else f"within {POINTS} points, on another machine or device"
    return summed(name, wrong, [], f"{count} metrics measured again are unchanged, {how}")


def _models(case: VerificationContext) -> dict[str, str]:
    """Return model -> label of the record with its weights. Of several retrains the evidence has the mean, which is not measured again."""
    labels = [record.label for record in case.records]
    found = {"original": next(label for label in labels if label == "original"), "unlearned": "unlearn"}
    return found | ({"reference": "reference"} if "reference" in labels else {})


def _differs(name: str, recorded: float | None, found: float | None, exact: bool) -> list[str]:
    if recorded is None or found is None:
        return [] if recorded is found else [f"{name} was {recorded}, is {found}"]
    allowed = 0.0 if exact else NATS if " entropy" in name else POINTS
    return [] if abs(recorded - found) <= allowed else [f"{name} was {recorded:.4f}, is {found:.4f}"]


def _erased(case: VerificationContext, name: str) -> Check | None:
    """Return the check to report where a purge has erased what would be measured; None where none has."""
    if case.erasures is None or not (steps := case.erasures.data(case.dossier.data.dvc_hash)):
        return None
    return case.without_erased(name, [], [], [f"data set {case.erasures.by(steps[-1])}"], "cannot be measured again")


def _dataset(case: VerificationContext) -> Dataset | None:
    """Return the data set as the run saw it; None where it is not here unchanged."""
    from megu.data import arrays, pins

    assert case.project is not None
    folder = case.project.data(case.dossier.data.name)
    if not folder.is_dir() or pins.hash_dir(folder).md5 != case.dossier.data.dvc_hash:
        return None
    return arrays.limited(arrays.load(folder), case.dossier.per_class)


def _answers(case: VerificationContext, weights: Ref, dataset: Dataset) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the logits of the training and of the test images."""
    from megu.core.device import resolve
    from megu.data.tensors import ImageSet
    from megu.training.loop import predict
    from megu.training.weights import load_model

    assert case.project is not None
    try:
        device = resolve(case.dossier.device["asked"])
    except MeguError:  # recorded on a GPU that is not here
        device = resolve("cpu")
    model = load_model(case.project.store.checked(weights))[0].to(device)
    train, test = (
        predict(model, ImageSet.from_partition(part, dataset.mean, dataset.std, device)).logits.cpu().numpy()
        for part in (dataset.train, dataset.test)
    )
    return train, test


def served_form(case: VerificationContext) -> Check:
    """Check that the registered version answers as the recorded weights do, on some test images."""
    import numpy as np

    name, recorded = "served form", case.dossier.tracked.version
    if recorded is None:
        return Check(name, True, "none was registered")
    if (gone := _erased(case, name)) is not None:
        return gone
    if case.connected is None or case.project is None or (dataset := _dataset(case)) is None:
        return Check(name, None, "MLflow or the data set is not here")
    from megu.core.device import resolve
    from megu.data.tensors import ImageSet
    from megu.lineage.verify.tracked import model_version
    from megu.tracking import lineage
    from megu.tracking.registry import serve
    from megu.training.loop import predict
    from megu.training.weights import load_model

    if model_version(case).holds is not True:
        return Check(name, None, "its files have changed, so they are not run")
    unlearn = case.record("unlearn")
    assert unlearn is not None
    images = np.arange(min(40, len(dataset.test)))
    model, _ = load_model(case.project.store.checked(unlearn.refs["weights"]))
    asked = ImageSet.from_partition(dataset.test, dataset.mean, dataset.std, resolve("cpu"), images)
    logits = predict(model, asked).logits.numpy().astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    version = f"models:/{recorded['name']}/{recorded['version']}"
    answers = serve(lineage.reach(case.project.home), version, np.asarray(dataset.test.images[images]))
    off = float(np.abs(answers - powers / powers.sum(axis=1, keepdims=True)).max())
    return summed(
        name,
        [] if off < 1e-4 else [f"its answers are off by up to {off:.4f}"],
        [],
        f"{len(images)} answers match those of the weights",
    )
