"""Eight processes add 500 requests each (half of them the same ones) while a ninth judges, claims and finishes them: none lost, none doubled.

python benchmarks/inbox.py [clients [requests]]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from megu.project import Project
from megu.requests.batches import batches
from megu.requests.inbox import Inbox

ADD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from megu.project import Project
from megu.requests.inbox import Inbox
from megu.requests.request import Request
inbox, own, count = Inbox(Project(Path(sys.argv[1]))), int(sys.argv[2]), int(sys.argv[3])
for number in range(count):
    reference = f"ALL-{number}" if number % 2 else f"OWN-{own}-{number}"
    inbox.add(Request(classes=("Bag",), basis="contract", requester="internal", due="2026-12-24", reference=reference))
"""


def main(clients: int, count: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "params.yaml").write_text("seed: 0\n")
        inbox = Inbox(Project(Path(folder)))
        started = time.perf_counter()
        adding = [
            subprocess.Popen([sys.executable, "-c", ADD, folder, str(n), str(count), str(Path(__file__).resolve().parents[1])])
            for n in range(clients)
        ]
        while any(process.poll() is None for process in adding):
            inbox.judge(lambda target: ("", 1))
            for batch in batches(inbox.pending(3), 100):
                inbox.move(inbox.claim(batch, {}).ids, "unlearned", {})
            time.sleep(0.2)
        took = time.perf_counter() - started
        inbox.judge(lambda target: ("", 1))
        found = [str(entry.facts["reference"]) for entry in inbox.entries()]
        expected = clients * ((count + 1) // 2) + count // 2
        return {
            "clients": clients,
            "added": clients * count,
            "expected": expected,
            "found": len(found),
            "doubled": len(found) - len(set(found)),
            "events": len(inbox.ledger.events()),
            "ledger": inbox.ledger.check() or "whole",
            "failed_clients": sum(process.returncode != 0 for process in adding),
            "seconds": round(took, 1),
        }


if __name__ == "__main__":
    sizes = [int(argument) for argument in sys.argv[1:]]
    print(json.dumps(main(*(sizes + [8, 63][len(sizes) :])), indent=2))
