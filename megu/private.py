"""Requests that name samples, kept where only the project's owner reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from megu import config
from megu.lineage.commitments import commit
from megu.lineage.keys import Keys, write_secret
from megu.project import Project
from megu.sections import read
from megu.stages import PRIVATE
from megu.store import canonical_json


def apart(project: Project, params: Path, settings: Sequence[str]) -> tuple[Path, list[str]]:
    """The configuration file and the changes to it that a flow is called with.

    Prefect keeps a flow's parameters in its database and shows them to whoever opens its pages. So changes that name samples go into
    a file of the project's home, readable by its owner alone, and the flow is told the file's path. The file's name is a commitment:
    the same request has the same file, and the name gives nothing away.
    """
    if not any(change.partition("=")[0].strip() in (*PRIVATE, "forget") for change in settings):
        return params, list(settings)
    content = canonical_json(config.settled(config.merged(read(params), settings)))  # JSON is YAML
    key = Keys(project.keys).commitment_key(create=True)
    assert key is not None
    path = project.home / "private" / f"{commit(key, content).hex()[:32]}.yaml"
    if not path.exists():
        write_secret(path, content)
    return path, []
