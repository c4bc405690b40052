"""Eight processes add 500 requests each (half of them the same ones) while a ninth judges, claims and finishes them: none lost, none doubled.

python benchmarks/inbox.py [clients [requests]]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.clients import expected, start
from megu.core.project import Project
from megu.requests.batches import batches
from megu.requests.inbox import Inbox


def main(clients: int, count: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "params.yaml").write_text("seed: 0\n")
        inbox = Inbox(Project(Path(folder)))
        started = time.perf_counter()
        adding = start(Path(folder), clients, count, [{"classes": ["Bag"]}])
        while any(process.poll() is None for process in adding):
            inbox.review(lambda target: ("", 1))
            for batch in batches(inbox.pending(3), 100):
                inbox.move(inbox.claim(batch, {}).ids, "unlearned", {})
            time.sleep(0.2)
        took = time.perf_counter() - started
        inbox.review(lambda target: ("", 1))
        found = [str(entry.facts["reference"]) for entry in inbox.entries()]
        return {
            "clients": clients,
            "added": clients * count,
            "expected": expected(clients, count),
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
