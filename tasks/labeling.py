"""How similar the concepts look, by a labeler that computes here. The stages of a vision model are in `tasks.ollama`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from megu.core.project import Project
from megu.core.stages import Code, Device, Outcome, Result, Stage
from tasks.run import cached

if TYPE_CHECKING:
    from megu.data.arrays import Dataset


def label(project: Project, data: Result, kind: str, params: Any, code: Code, device: Device) -> Outcome:
    """Does not depend on the forget set: computed once for a data set and a labeler, reused by every later request.

    kind: one of `megu.labeling.kinds`. code: that labeler's own, for the cache key.
    """
    return _judged(project, cached.dataset(project, data), kind, params, device)


def label_subclasses(
    project: Project, data: Result, kind: str, params: Any, code: Code, apart: Sequence[str], device: Device
) -> Outcome:
    """As `label`, with the sub-classes ``apart`` as additional concepts: what they look like to a labeler that knows only the others."""
    from megu.data.arrays import set_out

    return _judged(project, set_out(cached.dataset(project, data), apart), kind, params, device, apart)


def _judged(project: Project, dataset: Dataset, kind: str, params: Any, device: Device, apart: Sequence[str] = ()) -> Outcome:
    from megu.core.device import resolve
    from megu.labeling import label
    from megu.labeling.kinds import lookup

    make = lookup(kind).make
    assert make is not None
    found = label(dataset, make(params, resolve(device)), params.exemplars, params.references, params.seed)
    return cached.labeling_outcome(project, found, apart)


LABELING = Stage("labeling", "Judge how similar the concepts look", label, lambda result: str(result.values["labeler"]["kind"]))
APART = Stage("labeling-apart", "Judge what the sub-classes look like", label_subclasses, LABELING.says)
