"""Prefect automations from ``automations.yaml``, made once however often they are created."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.events.actions import ChangeFlowRunState, DoNothing, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger

from megu.core.errors import MeguError

#: Those that megu brings.
FILE = Path(__file__).with_name("automations.yaml")


@dataclass(frozen=True)
class Made:
    name: str
    done: Literal["created", "brought up to date", "as it was"]


def read(path: Path, block: Any = None) -> list[AutomationCore]:
    """The automations in a file. block: the id of a notification block. Raises `MeguError` when the file cannot be used."""
    try:
        return [_automation(entry, block) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]
    except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError) as error:
        raise MeguError(f"{path} cannot be used ({str(error).splitlines()[0]})", "mend the file, or leave --file out") from None


def _automation(entry: Mapping[str, Any], block: Any) -> AutomationCore:
    if "state" in entry:
        action: Any = ChangeFlowRunState(**entry["state"])
    elif block is None:
        action = DoNothing()
    else:
        action = SendNotification(block_document_id=block, subject=entry["name"], body=entry["message"])
    description = entry.get("message") or entry["state"]["message"]
    return AutomationCore(
        name=entry["name"], description=description, trigger=EventTrigger(**entry["trigger"]), actions=[action]
    )


def create(path: Path, notify: str | None = None) -> list[Made]:
    """Make the automations of a file on the server at hand. notify: a notification block, "slack-webhook/team".

    Raises `MeguError` when there is no such block.
    """
    block = None
    if notify is not None:
        try:
            block = Block.load(notify)._block_document_id  # type: ignore[union-attr]
        except ValueError:
            raise MeguError(
                f"Prefect has no block {notify}", "make one in its UI under Blocks, or leave --notify out"
            ) from None
    made = []
    with get_client(sync_client=True) as client:
        for automation in read(path, block):
            found = client.read_automations_by_name(automation.name)
            if not found:
                client.create_automation(automation)
                made.append(Made(automation.name, "created"))
            elif _same(found[0], automation):
                made.append(Made(automation.name, "as it was"))
            else:
                client.update_automation(found[0].id, automation)
                made.append(Made(automation.name, "brought up to date"))
    return made


def _same(one: AutomationCore, other: AutomationCore) -> bool:
    """Whether two automations do the same; the server adds ids of its own to triggers.

    Compared as Python values: as JSON a trigger's sets of events become lists, whose order differs between equal sets.
    """

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: bare(entry) for key, entry in value.items() if key not in ("id", "created", "updated")}
        return [bare(entry) for entry in value] if isinstance(value, list) else value

    names = {"name", "description", "enabled", "trigger", "actions"}
    return bool(bare(one.model_dump(include=names)) == bare(other.model_dump(include=names)))
