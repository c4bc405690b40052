"""A project to promote in, and promoters that are killed.

Run as a program (``python promoting.py FINISHED COPY``) it tries every step of a promotion and of a rollback in COPY: a forked process
is killed with SIGKILL at the step, another comes and settles; what then stands is printed, a JSON object a line. One program, because
importing MLflow takes longer than all of it: it looks at FINISHED, with MLflow and without it, to import what is needed, and opens
nothing of COPY before it forks.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lineage_fixtures import Finished

from megu.config import tree as config
from megu.core.project import Project
from megu.promotion import moves as promotion
from megu.requests.inbox import Inbox
from megu.requests.request import Request
from megu.tracking import lineage


def copied(finished: Finished, to: Path) -> Project:
    """The finished project, to move aliases in: database, ledger and dossiers are its own, MLflow's files are where they were."""
    return Project(shutil.copytree(finished.pristine, to, symlinks=True))


def aliases(project: Project) -> dict[str, str]:
    return {name: at for name, at in lineage.aliases(lineage.reach(project.home), "megu").items() if name != "challenger"}


def approval(project: Project, version: str | None = None, **changes: Any) -> promotion.Approval:
    """By somebody who has looked."""
    seen = promotion.inspect_candidate(project, config.load(project.params), version).seal
    return promotion.Approval(**{"approver": "A. Approver", "rationale": "evidence-holds", "evidence": seen, **changes})


def verified(project: Project, name: str, version: str) -> str:
    """A request that a version forgot and the gate passed; by the ledger alone."""
    inbox = Inbox(project)
    asked = Request(classes=(name,), basis="gdpr-17-1-a", requester="data-subject", due="2027-01-01")
    one = inbox.add(asked).id
    inbox.review(lambda target: ("", 30))
    facts = {"version": f"megu/{version}", "champion": ""}
    for state in ("processing", "unlearned", "verified"):
        inbox.move([one], state, facts)
    return one


def in_child(work: Callable[[], Any]) -> int:
    """The exit status of a forked process that does the work."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_at(step: str) -> Callable[[str], None]:
    def reached(now: str) -> None:
        if now == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return reached


def main(project: Project) -> None:
    settings = config.load(project.params)
    seal = json.loads((project.dossiers / _run_of(project, 2) / "seal.json").read_bytes())["seal"]
    said = promotion.Approval(approver="A. Approver", rationale="evidence-holds", evidence=seal)
    state = [project.home / "mlflow.db", project.home / "ledger.db"]

    def restore(kept: dict[Path, bytes | None]) -> None:
        for path, content in kept.items():
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)

    def promote(reached: Callable[[str], None]) -> None:
        promotion.promote(project, settings, said, "2", reached=reached)

    def rollback(reached: Callable[[str], None]) -> None:
        promotion.rollback(project, settings, "A. Approver", "deadline", "1", reached=reached)

    dossier = project.dossiers / _run_of(project, 2) / "dossier.json"
    whole = dossier.read_bytes()

    def tried(move: Callable[[Callable[[str], None]], None], step: str, changed: bool) -> None:
        killed = in_child(lambda: move(killed_at(step)))
        if changed:
            dossier.write_bytes(whole.replace(b'"Sneaker"', b'"Sneakers"', 1))
        told = {"move": move.__name__, "step": step, "changed": changed, "killed": killed}
        assert in_child(lambda: print(json.dumps({**told, **stands(project)}), flush=True)) == 0
        dossier.write_bytes(whole)

    for move in (promote, rollback):
        before = {path: path.read_bytes() if path.is_file() else None for path in state}
        for changed in (False, True) if move is promote else (False,):
            for step in promotion.STEPS:
                restore(before)
                tried(move, step, changed)
        restore(before)
        assert in_child(lambda: promote(lambda step: None)) == 0


def stands(project: Project) -> dict[str, Any]:
    """Settle, twice, and say what stands."""
    said = promotion.reconcile(project)
    return {
        "said": said,
        "again": promotion.reconcile(project),
        "aliases": aliases(project),
        "events": [event.kind for event in project.ledger.events(kind="champion.")],
        "ledger": project.ledger.check(),
    }


def _run_of(project: Project, version: int) -> str:
    for path in project.dossiers.glob("*/dossier.json"):
        found = json.loads(path.read_bytes())["tracked"]["version"]
        if found and found["version"] == str(version):
            return path.parent.name
    raise LookupError(version)


if __name__ == "__main__":
    warm = Project(Path(sys.argv[1]))
    promotion.inspect_candidate(warm, config.load(warm.params))
    aliases(warm)
    main(Project(Path(sys.argv[2])))
