"""The perturbing labels of the forget set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from megu.perturbing import PerturbParams
from megu.project import Project
from megu.stages import Outcome, Result, Stage
from tasks import kept

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def perturb(
    project: Project,
    data: Result,
    split: Result,
    predictions: Result,
    transition: Result,
    proxy: Result | None,
    params: PerturbParams,
    seed: int,
) -> Outcome:
    """proxy: whose answers count in the original's place, where one was made; None where it can be none (rank labels, say)."""
    import numpy as np

    from megu.head import retained_entropy
    from megu.perturbing import perturb as choose
    from megu.proxy import perturb_by_proxy

    positions = kept.forget_split(project, split)
    every = kept.dataset(project, data).train.labels
    labels = every[positions.forget]
    answers = project.store.arrays(predictions.files["predictions"])
    features = answers["train_features"]

    def entropy(forbidden: NDArray[np.bool_]) -> float:
        retain = positions.retain
        return retained_entropy(features[retain], every[retain], features[positions.forget], forbidden)

    matrix = project.store.arrays(transition.files["transition"])["T"]
    # A class that an erasure has emptied is no label to teach.
    emptied = set(range(len(data.values["classes"]))) - set(every.tolist())
    forgotten = sorted({*positions.classes, *emptied})
    if proxy is not None and proxy.values["used"]:
        logits = project.store.arrays(proxy.files["proxy"])["logits"]
        chosen = perturb_by_proxy(matrix, logits, forgotten, params.sharpness)
    else:
        logits = answers["train_logits"][positions.forget]
        chosen = choose(matrix, logits, labels, forgotten, params, entropy, seed)
    arrays: dict[str, NDArray[Any]] = {"labels": chosen.labels, "targets": chosen.targets, "reasoning": chosen.reasoning}
    means = chosen.targets.mean(axis=0)
    shares = {
        data.values["classes"][k]: round(float(means[k]), 4) for k in np.argsort(-means, kind="stable") if means[k] >= 0.0005
    }
    return Outcome(
        files={"perturbing": project.store.put_arrays(arrays)},
        values={"label": params.label, "sharpness": chosen.sharpness, "entropy": chosen.entropy, "shares": shares},
    )


def say(result: Result) -> str:
    first = list(result.values["shares"].items())[:3]
    sharpness = f" (sharpness {result.values['sharpness']:.2f})" if result.values["label"] == "soft" else ""
    return f"{result.values['label']}{sharpness}: " + ", ".join(f"{name} {100 * share:.0f}%" for name, share in first)


PERTURBING = Stage("perturbing", "Choose the perturbing labels", perturb, say)
