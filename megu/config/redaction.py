"""Requests that name samples, stored where only the project's owner can read them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megu.config import tree as config
from megu.core.files.store import canonical_json
from megu.core.project import Project
from megu.core.settings.sections import read
from megu.core.stages import PRIVATE
from megu.lineage.commitments import commit, redact
from megu.lineage.keys import Keys, write_secret

#: Settings of a run or a benchmark that name samples, or may name them.
_NAMING = (*PRIVATE, "forget", "base", "base.forget", "targets")


def names_samples(setting: str) -> bool:
    """Whether a ``key=value`` may name single samples."""
    key, _, value = setting.partition("=")
    key = key.strip()
    return key in (*PRIVATE, "forget") or (key in _NAMING and bool(re.search(r"\b(ids|files)\b", value)))


def redact_settings(project: Project, params: Path, settings: Sequence[str]) -> tuple[Path, list[str]]:
    """Return the configuration file and the changes to it that a flow is called with.

    Prefect stores a flow's parameters in its database and shows them on its pages. So changes that name samples go into
    a file of the project's home, readable only by its owner, and the flow gets the file's path. The file's name is a commitment:
    the same request has the same file, and the name reveals nothing.
    """
    if not any(map(names_samples, settings)):
        return params, list(settings)
    return store_redacted(project, config.settled(config.merged(read(params), settings))), []


def store_redacted(project: Project, values: Mapping[str, Any]) -> Path:
    """Write a configuration or a benchmark that names samples to a private file."""
    content = canonical_json(values)  # JSON is YAML
    path = project.home / "private" / f"{commit(_key(project), content).hex()[:32]}.yaml"
    if not path.exists():
        write_secret(path, content)
    return path


def told(setting: str) -> str:
    """Return a ``key=value`` as a page may show it."""
    return f"{setting.partition('=')[0]}=…" if names_samples(setting) else setting


def redacted(project: Project, values: Any) -> Any:
    """Replace what the ``ids`` and ``files`` of a benchmark or configuration name by commitments. Create no key if none is needed."""
    if isinstance(values, Mapping):
        return {
            name: redact(_key(project), [str(one) for one in entry])
            if name in ("ids", "files") and isinstance(entry, Sequence) and entry and not isinstance(entry, str)
            else redacted(project, entry)
            for name, entry in values.items()
        }
    if isinstance(values, Sequence) and not isinstance(values, str | bytes):
        return [redacted(project, entry) for entry in values]
    return values


def _key(project: Project) -> bytes:
    key = Keys(project.keys).commitment_key(create=True)
    assert key is not None
    return key
