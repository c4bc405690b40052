"""The perturbing labels of the forget set."""

from __future__ import annotations

from megu.perturbing import PerturbParams
from megu.project import Project
from megu.stages import Outcome, Result, Stage
from tasks import kept


def perturb(project: Project, data: Result, split: Result, predictions: Result, transition: Result, params: PerturbParams) -> Outcome:
    import numpy as np

    from megu.perturbing import perturb as choose

    positions = kept.forget_split(project, split)
    labels = kept.dataset(project, data).train.labels[positions.forget]
    logits = project.store.arrays(predictions.files["predictions"])["train_logits"][positions.forget]
    chosen = choose(project.store.arrays(transition.files["transition"])["T"], logits, labels, positions.classes, params)
    arrays = {"labels": chosen.labels, "targets": chosen.targets, "reasoning": chosen.reasoning}
    classes, counts = np.unique(chosen.labels, return_counts=True)
    shares = {data.values["classes"][k]: round(float(n) / len(labels), 4) for k, n in zip(classes, counts, strict=True)}
    return Outcome(files={"perturbing": project.store.put_arrays(arrays)}, values={"shares": shares})


def say(result: Result) -> str:
    first = sorted(result.values["shares"].items(), key=lambda entry: -entry[1])[:3]
    return "rank labels: " + ", ".join(f"{name} {100 * share:.0f}%" for name, share in first)


PERTURBING = Stage("perturbing", "Choose the perturbing labels", perturb, say)
