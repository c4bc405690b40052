"""The prototype labeler's judgement of how similar the concepts look. The one of a vision model is in `tasks.ollama`."""

from __future__ import annotations

from collections.abc import Sequence

from megu.core.project import Project
from megu.core.stages import Device, Outcome, Result, Stage
from megu.labeling.prototype import PrototypeParams
from tasks.run import kept


def judge(project: Project, data: Result, params: PrototypeParams, device: Device) -> Outcome:
    """Knows nothing of the forget set: computed once for a data set and a labeler, reused by every later request."""
    from megu.core.device import resolve
    from megu.labeling import label
    from megu.labeling.prototype import PrototypeLabeler

    labeler = PrototypeLabeler(params.temperature, params.image_size, resolve(device))
    return kept.labeling_outcome(
        project, label(kept.dataset(project, data), labeler, params.exemplars, params.references, params.seed)
    )


def judge_apart(project: Project, data: Result, params: PrototypeParams, apart: Sequence[str], device: Device) -> Outcome:
    """The same beside the finer classes ``apart``, each as a concept of its own: what those look like to whoever knows the others alone."""
    from megu.core.device import resolve
    from megu.data.arrays import set_out
    from megu.labeling import label
    from megu.labeling.prototype import PrototypeLabeler

    labeler = PrototypeLabeler(params.temperature, params.image_size, resolve(device))
    beside = set_out(kept.dataset(project, data), apart)
    found = label(beside, labeler, params.exemplars, params.references, params.seed)
    return kept.labeling_outcome(project, found, apart)


LABELING = Stage("labeling", "Judge how similar the concepts look", judge, lambda result: str(result.values["labeler"]["kind"]))
APART = Stage("labeling-apart", "Judge what the sub-classes look like", judge_apart, LABELING.says)
