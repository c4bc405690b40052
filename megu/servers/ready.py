"""What a flow needs before it starts: writable folders, usable servers and databases."""

from __future__ import annotations

from megu.core.files.writable import refuse_unwritable
from megu.core.project import Project
from megu.servers import addresses, databases


def refuse_unusable(project: Project, *, tracked: bool = True) -> None:
    """Raise `MeguError` for a flow whose results could not be written, or whose servers and databases cannot be used. tracked: whether it
    needs MLflow.
    """
    refuse_unwritable(project.root, project.home)
    addresses.refuse_prefect()
    if tracked:
        addresses.refuse_mlflow()
        databases.refuse_unusable_mlflow(project.home)
