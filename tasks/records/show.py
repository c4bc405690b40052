"""Cached similarity scores, and how far they agree with what else is known about the classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megu.config.tree import Config
from megu.core.errors import MeguError
from megu.core.files.store import writing
from megu.core.project import Project
from megu.core.stages import Result
from tasks.run import cached

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: How many concepts are listed for each class.
NEAREST = 3


@dataclass(frozen=True)
class Shown:
    """labeler: in words. nearest: by class, other concepts with their similarity. own: of each class to itself. abstained: by class.

    agreement: with what -> Spearman's rank correlation over pairs of different classes, None if undefined.
    missing: with what -> why it could not be compared. sanity: measures of a labeler that queries a model. picture: the figure's path.
    because: by class, the labeler's reasons in its own words, if it was asked for them. scoring: for a labeler that queries a model, a
    line for each way of scoring its answers, with the number of answers.
    """

    labeler: str
    nearest: dict[str, dict[str, float]]
    own: dict[str, float]
    abstained: dict[str, int]
    agreement: dict[str, float | None]
    missing: dict[str, str]
    sanity: dict[str, Any]
    picture: str
    because: dict[str, list[str]]
    scoring: list[str]


def cached_or_refused(judged: Any, config: Config) -> Result:
    if isinstance(judged, Result):
        return judged
    setting = "" if config.labeling.kind == "prototype" else f" --set labeling.kind={config.labeling.kind}"
    raise MeguError(f"no labeling of {config.data.name} by this labeler is cached", f"megu label{setting}")


def shown(project: Project, data: Result, judged: Result, before: Any, compared: Any) -> Shown:
    """Draw and describe it. before: the original's predictions, compared: the prototype labeler's similarity scores, if there are any."""
    import numpy as np

    from megu.labeling.agreement import off_diagonal, rank_correlation
    from megu.labeling.ollama.labeler import scoring_lines
    from megu.report import similarity

    arrays = project.store.arrays(judged.files["labeling"])
    S, classes = arrays["S"], tuple(data.values["classes"])
    found: dict[str, NDArray[Any]] = {}
    missing: dict[str, str] = {}
    if isinstance(before, Result):
        found["the model's own features"] = feature_overlap(project, data, before)
    else:
        missing["the model's own features"] = "no trained original is cached: megu run trains one"
    if isinstance(compared, Result):
        found["the prototype labeler"] = project.store.arrays(compared.files["labeling"])["S"]
    agreement = {name: rank_correlation(off_diagonal(S), off_diagonal(other)) for name, other in found.items()}
    silent = np.bincount(arrays["exemplar_class"], weights=arrays["abstained"].sum(axis=1), minlength=len(classes)).astype(int)
    order = [[int(at) for at in np.argsort(-S[k], kind="stable") if at != k][:NEAREST] for k in range(len(classes))]
    record = judged.notes.get("record", {})
    path = project.root / "results" / "labeling.png"
    words = str(judged.values["labeler"]["kind"])
    picture = similarity.draw(similarity.Judged(classes, S, silent, order, words, agreement, record.get("sanity", {})))
    _write(path, picture)
    return Shown(
        labeler=words,
        nearest={classes[k]: {classes[at]: round(float(S[k, at]), 4) for at in order[k]} for k in range(len(classes))},
        own={name: round(float(S[k, k]), 4) for k, name in enumerate(classes)},
        abstained={name: int(silent[k]) for k, name in enumerate(classes)},
        agreement={name: None if value is None else round(value, 4) for name, value in agreement.items()},
        missing=missing,
        sanity=dict(record.get("sanity", {})),
        picture=project.relative(path),
        because=dict(record.get("because", {})),
        scoring=scoring_lines(record.get("scoring", {})),
    )


def feature_overlap(project: Project, data: Result, before: Result) -> NDArray[np.float64]:
    """Return the soft overlap (K, K) of the original's own features on the training data."""
    import numpy as np

    from megu.unlearning.entanglement import soft_overlap

    loaded = cached.dataset(project, data)
    features = project.store.arrays(before.files["predictions"])["train_features"]
    labels = np.asarray(loaded.train.labels)
    return soft_overlap(np.stack([features[labels == k].mean(axis=0) for k in range(loaded.num_classes)]).astype(np.float64))


def _write(path: Path, content: bytes) -> None:
    with writing(path) as temporary:
        temporary.write_bytes(content)
        temporary.chmod(0o644)
