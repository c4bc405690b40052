"""Clients that add requests at the same time, each a process: half of what one adds is what every other adds, too."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

_ADD = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from megu.core.project import Project
from megu.requests.inbox import Inbox
from megu.requests.request import Request
inbox, own, count, targets = Inbox(Project(Path(sys.argv[1]))), int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[5])
for number in range(count):
    reference = f"ALL-{number}" if number % 2 else f"OWN-{own}-{number}"
    target = {name: tuple(value) for name, value in targets[number % len(targets)].items()}
    inbox.add(Request(**target, basis="contract", requester="internal", due="2030-01-01", reference=reference))
"""


def start(
    root: Path, clients: int, count: int, targets: Sequence[Mapping[str, Sequence[str]]]
) -> list[subprocess.Popen[bytes]]:
    """``clients`` processes that add ``count`` requests each to the project at ``root``, naming the targets in turn."""
    rest = [str(count), str(REPOSITORY), json.dumps([dict(target) for target in targets])]
    return [subprocess.Popen([sys.executable, "-c", _ADD, str(root), str(client), *rest]) for client in range(clients)]


def expected(clients: int, count: int) -> int:
    """How many different requests they add."""
    return clients * ((count + 1) // 2) + count // 2
