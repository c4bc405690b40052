"""The transition matrix, from the labeler's similarity scores."""

from __future__ import annotations

from megu.core.project import Project
from megu.core.stages import Outcome, Result, Stage


def matrix(project: Project, labeling: Result) -> Outcome:
    from megu.unlearning.labels.transition import transition_matrix

    similarity = project.store.arrays(labeling.files["labeling"])["S"]
    return Outcome(files={"transition": project.store.put_arrays({"T": transition_matrix(similarity)})})


TRANSITION = Stage("transition", "Turn the judgement into the transition matrix", matrix, lambda result: "column-stochastic")
