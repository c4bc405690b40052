"""Machine unlearning as a pipeline, and as functions.

With torch and numpy alone::

    data = megu.Dataset.load("data/fashion-mnist")
    split = megu.forget(data, classes=["Sneaker"])
    found = megu.unlearn(model, forget=split.forget, retain=split.retain, method="megu")
    scores = megu.evaluate(found.model, data, split, reference=retrain)

With the full installation, a project and everything that the command line does with it: ``megu.Project("folder").run()``.

Nothing else is public. Each name is imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from megu.api.evaluating import evaluate, gate
    from megu.api.project import Project
    from megu.api.request import forget
    from megu.api.unlearning import unlearn
    from megu.data.arrays import Dataset
    from megu.labeling.kinds import labelers
    from megu.unlearning.methods import methods

__version__ = "0.2.0"

__all__ = ["Dataset", "Project", "evaluate", "forget", "gate", "labelers", "methods", "unlearn"]

_HOMES = {
    "Dataset": "megu.data.arrays",
    "Project": "megu.api.project",
    "evaluate": "megu.api.evaluating",
    "forget": "megu.api.request",
    "gate": "megu.api.evaluating",
    "labelers": "megu.labeling.kinds",
    "methods": "megu.unlearning.methods",
    "unlearn": "megu.api.unlearning",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'megu' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
