"""What a project needs, what is available, and the command that fixes each missing thing.

Nothing here changes anything, and no check can break or delay the others: an error or a time-out inside a check becomes its finding.
What takes seconds (importing torch) is done in a separate process.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from megu.cli.doctor import packages, places, servers
from megu.cli.doctor import project as own
from megu.cli.doctor.check import Check, Question, answers
from megu.core.project import Project
from megu.servers import databases as creation

#: Seconds for the data set: a large one is hashed.
_DATA_S = 300.0


def checks(root: Path, home: Path) -> list[Check]:
    """Run every check; takes a few seconds, mostly for importing torch. Raises nothing."""
    project = Project(root)

    def one(name: str, check: Callable[[], Check], limit: float = 20.0) -> Question:
        return Question((name,), lambda: [check()], limit)

    questions = [
        one("python", packages.python),
        Question(("torch", "torchvision"), packages.torch, limit=75.0),
        one("prefect", packages.prefect),
        *(one(name, lambda name=name: packages.package(name)) for name in ("mlflow", "dvc", "ollama")),  # type: ignore[misc]
        one("packages", packages.others),
        Question(("ollama server", "ollama model"), lambda: servers.ollama(root), optional=True),
        one("labeler weights", packages.labeler_weights),
        one("git", lambda: places.code(root)),
        one("disk", lambda: places.disk(home)),
        one("home", lambda: places.writable(project)),
        one("mlflow database", lambda: places.database(project, creation.MLFLOW)),
        one("prefect database", lambda: places.database(project, creation.PREFECT)),
        one("dvc stores", lambda: places.dvc(project)),
        one("params.yaml", lambda: own.params(root)),
        one("data set", lambda: own.data(root), _DATA_S),
        one("runs", lambda: own.runs(root, home)),
        one("prefect server", servers.prefect),
        one("mlflow server", servers.mlflow),
        one("services", lambda: servers.own(home)),
    ]
    found = answers(questions)
    return [found[name] for question in questions for name in question.names]


__all__ = ["Check", "checks"]
