"""A project and the operations of the command line, for a program or a notebook. Needs the whole installation.

The program is composed here and in the command line: nothing else in `megu` imports flows and tasks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megu.core import project

if TYPE_CHECKING:
    from megu.evaluation.summary import Summary
    from megu.lineage.verify.run import Report
    from megu.promotion.moves import Candidate, Moved
    from megu.requests.inbox import Added

#: The environment variable that tells flows, and the processes that they start, which project to use.
NAMED = "MEGU_PROJECT"


class Project:
    """The project that a folder belongs to: the nearest folder with ``params.yaml``, here or above.

    A process works with the Prefect and MLflow of one project, the first that it opens, unless ``PREFECT_API_URL`` and
    ``MLFLOW_TRACKING_URI`` name others.

    Raises `MeguError` where there is no project.
    """

    def __init__(self, path: str | Path = ".") -> None:
        self._here = project.find(Path(path))

    def __repr__(self) -> str:
        return f"Project({str(self.root)!r})"

    @property
    def root(self) -> Path:
        """The folder with ``params.yaml``."""
        return self._here.root

    def run(self, settings: Mapping[str, Any] | None = None, *, params: str | Path = project.PARAMS) -> Summary:
        """Run the pipeline as ``megu run`` does: reuse cached results, compute the rest and record everything.

        settings: changes to the configuration, as in ``{"forget.classes": ["Bag"]}``. params: the configuration file, in the project.

        Raises `MeguError` for every mistake that can be detected before anything is computed.
        """
        here, changes = self._here, [f"{key}={json.dumps(value)}" for key, value in (settings or {}).items()]
        with self._named():
            from megu.config.redaction import redact_settings
            from megu.config.tree import load
            from megu.servers.databases import ensure_own_prefect
            from megu.servers.ready import refuse_unusable
            from tasks.run.inputs import preflight

            config = load(here.root / params, changes)
            refuse_unusable(here)
            preflight(here, config)
            ensure_own_prefect(here.home / "prefect")
            from flows.unlearn import unlearn
            from tasks.prefect import temporary_server

            temporary_server.tether()
            named, kept = redact_settings(here, here.root / params, changes)
            summary: Summary = unlearn(params=str(named), settings=kept)
            return summary

    def request(
        self,
        *,
        classes: Sequence[str] = (),
        subclasses: Sequence[str] = (),
        ids: Sequence[str] = (),
        files: Sequence[str] = (),
        basis: str,
        requester: str,
        reason: str = "erasure-request",
        due: str = "",
        reference: str = "",
        data: str = "",
    ) -> Added:
        """Add a deletion request to the inbox, as ``megu request add`` does; a request that is already open changes nothing.

        due: an ISO date; counted from today when omitted. data: the data set concerned; the configured one when omitted.

        Raises `MeguError` for a value that is not on its closed list, and for a request that has already been fulfilled.
        """
        values = {name: list(entries) for name, entries in zip(_KINDS, (classes, subclasses, ids, files), strict=True)}
        said = {"basis": basis, "requester": requester, "reason": reason, "due": due, "reference": reference, "data": data}
        with self._named():
            from megu.core.files.writable import refuse_unwritable
            from megu.core.settings.sections import section
            from megu.requests.inbox import Inbox
            from megu.requests.intake import files as intake
            from megu.requests.request import RequestParams

            refuse_unwritable(self.root, self._here.home)
            rules = section(self._here.params, "requests", RequestParams)
            asked = intake.parse({**values, **said}, "Project.request", rules, datetime.now(UTC).date())
            return Inbox(self._here).add(asked)

    def promote(
        self, version: str | None = None, *, approver: str = "", rationale: str = "", evidence: str = ""
    ) -> Candidate | Moved:
        """Show the candidate for promotion, or make it the champion, as ``megu promote`` does.

        version: its number; the challenger when omitted. approver, rationale, evidence: who decides, why, and the digest of the evidence
        that they saw. Without an approver the policy decides; where the policy leaves it to a person, the candidate is returned unchanged.

        Raises `MeguError` when anything prevents an approval.
        """
        with self._named():
            from megu.config.tree import load
            from megu.core.files.writable import refuse_unwritable
            from megu.promotion import moves

            refuse_unwritable(self.root, self._here.home)
            config = load(self._here.params)
            moves.reconcile(self._here)
            if approver:
                approval = moves.Approval(approver=approver, rationale=rationale, evidence=evidence)
                return moves.promote(self._here, config, approval, version)
            found = moves.inspect_candidate(self._here, config, version)
            if moves.automatic(config, found):
                return moves.promote(self._here, config, moves.by_policy(found), found.version)
            return found

    def verify(self, target: str, *, replay: bool = False, sealed: bool = False) -> Report:
        """Recompute everything that a dossier claims, as ``megu verify`` does; ``exit_code`` is 0 when all of it holds.

        target: an MLflow run id, ``models:/name/version`` or a dossier's folder. replay: evaluate again from the weights. sealed: accept
        what a signed purge of the run erased.

        Raises `MeguError` when there is no such dossier.
        """
        with self._named():
            from megu.lineage.verify.run import verify

            return verify(target, self._here, replay=replay, sealed=sealed)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Let flows find this project whatever the working directory is."""
        from megu.servers.environment import prepare_environment

        before = os.environ.get(NAMED)
        os.environ[NAMED] = str(self.root)
        prepare_environment(self._here)
        try:
            yield
        finally:
            if before is None:
                del os.environ[NAMED]
            else:
                os.environ[NAMED] = before


_KINDS = ("classes", "subclasses", "ids", "files")
