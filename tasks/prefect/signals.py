"""What is told to Prefect as events, for automations to act on (``automations.yaml``). A server that is away loses no run."""

from __future__ import annotations

from collections.abc import Sequence

from prefect.events import emit_event


def gate_failed(version: str, broken: Sequence[str]) -> None:
    emit_event(
        "megu.evaluation.gate.failed", {"prefect.resource.id": f"megu.version.{version}"}, payload={"broken": list(broken)}
    )


def overdue(request: str, due: str) -> None:
    emit_event("megu.request.overdue", {"prefect.resource.id": f"megu.request.{request}"}, payload={"due": due})


def waiting(version: str, decision: str) -> None:
    """A model waits for a person's approval. decision: the gate's, so that a pass and what holds without a retrain are told apart."""
    emit_event("megu.approval.waiting", {"prefect.resource.id": f"megu.version.{version}"}, payload={"gate": decision})
