"""The labeler's judgement of how similar the concepts look."""

from __future__ import annotations

from megu.labeling import LabelingParams
from megu.project import Project
from megu.stages import Outcome, Result, Stage
from tasks import kept


def judge(project: Project, data: Result, params: LabelingParams) -> Outcome:
    """Knows nothing of the forget set: computed once for a data set and a labeler, reused by every later request."""
    from megu.labeling import label

    found = label(kept.dataset(project, data), params)
    return Outcome(
        files={"labeling": project.store.put_arrays(found.to_arrays())}, values={"labeler": found.identity.to_json()}
    )


LABELING = Stage("labeling", "Judge how similar the concepts look", judge, lambda result: str(result.values["labeler"]["kind"]))
