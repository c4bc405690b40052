"""The prototype labeler's judgement of how similar the concepts look. The one of a vision model is in `tasks.ollama`."""

from __future__ import annotations

from megu.labeling.prototype import PrototypeParams
from megu.project import Project
from megu.stages import Outcome, Result, Stage
from tasks import kept


def judge(project: Project, data: Result, params: PrototypeParams) -> Outcome:
    """Knows nothing of the forget set: computed once for a data set and a labeler, reused by every later request."""
    from megu.labeling import label
    from megu.labeling.prototype import PrototypeLabeler

    labeler = PrototypeLabeler(params.temperature, params.image_size)
    return kept.labeling_outcome(
        project, label(kept.dataset(project, data), labeler, params.exemplars, params.references, params.seed)
    )


LABELING = Stage("labeling", "Judge how similar the concepts look", judge, lambda result: str(result.values["labeler"]["kind"]))
