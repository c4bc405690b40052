"""Eight clients add 504 requests while the processing flow is at work, on real servers: each must be promoted, once, and none be lost.

    python benchmarks/crowd.py DATA_FOLDER [--clients 8] [--requests 63] [--document docs/operations.md]

DATA_FOLDER: ``data/fashion-mnist``; a slice of it is used. Prefect server and worker, MLflow server on SQLite, a schedule of every 20 s
(`benchmarks/service.py`). The clients are processes that begin as soon as a first request is being processed; half of what each adds every
other adds, too. The schedule takes what they added, and whatever asks for an approval gets one through Prefect's API. Three minutes, so it
is not part of CI. Exit code 1 when anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "benchmarks"), str(REPOSITORY / "tests" / "support")]

from service import PATIENCE_S, Service, approve, quiet, requests, schedules, taken, until  # noqa: E402

from benchmarks.clients import expected, start  # noqa: E402
from benchmarks.document import write  # noqa: E402
from megu.data import arrays  # noqa: E402

WAY = ["received", "accepted", "processing", "unlearned", "verified", "approved", "promoted"]


def crowd(service: Service, clients: int, count: int) -> dict[str, Any]:
    """All requests from received to promoted, and how things stand then."""
    inbox, started = service.inbox, time.perf_counter()
    ids = [sample.decode() for sample in arrays.load(service.project.data("slice")).train.ids[:60]]
    targets = [{"ids": ids[at : at + 3]} for at in range(0, len(ids), 3)]
    schedules(active=True)
    first = inbox.add(next(requests(service.project.data("slice")))).id
    until("processing", lambda: inbox.entry(first).state == "processing")
    began = time.perf_counter()
    adding = start(service.project.root, clients, count, targets)
    codes = [process.wait() for process in adding]
    added, at_work = time.perf_counter() - began, inbox.entry(first).state == "processing"

    def promoted() -> bool:
        for version in {entry.fact("version").rpartition("/")[2] for entry in inbox.entries("verified")}:
            approve(service, version)
        return all(entry.state == "promoted" for entry in inbox.entries())

    until("all promoted", promoted, 2 * PATIENCE_S)
    took = time.perf_counter() - started
    schedules(active=False)
    until("nothing taken", quiet)
    entries = inbox.entries()
    references = [str(entry.facts["reference"]) for entry in entries if entry.id != first]
    kinds = [[event.kind.removeprefix("request.") for event in entry.events] for entry in entries]
    moves = [event.facts["version"] for event in service.project.ledger.events("megu", "champion.moved")]
    found = {
        "clients": clients,
        "added": clients * count,
        "different": expected(clients, count),
        "found": len(references),
        "doubled": len(references) - len(set(references)),
        "straight": kinds.count(WAY),
        "again": len(kinds) - kinds.count(WAY),
        "states": Counter(entry.state for entry in entries),
        "failures": sum(entry.failures for entry in entries),
        "adding_seconds": round(added, 1),
        "flow_at_work": at_work,
        "promotions": len(moves),
        "seconds": round(took, 1),
        "slots_taken": taken(),
        "ledger": service.project.ledger.check() or "whole",
    }
    wanted = {
        "clients ended well": not any(codes),
        "none lost": found["found"] == found["different"],
        "none doubled": not found["doubled"],
        "the flow was at work": at_work,
        "promoted once": all(way.count("promoted") == way.count("approved") == 1 and way[-1] == "promoted" for way in kinds),
        "no failure": not found["failures"],
        "no slot": not found["slots_taken"],
        "ledger": found["ledger"] == "whole",
    }
    return {**found, "wrong": [name for name, holds in wanted.items() if not holds]}


def lines(found: dict[str, Any]) -> list[str]:
    """For the page."""
    return [
        "| | |",
        "|---|---|",
        f"| clients; requests they added; different ones among these | {found['clients']}; {found['added']}; {found['different']} |",
        f"| taken while the flow processed another request | {'yes' if found['flow_at_work'] else 'no'}, in {found['adding_seconds']} s |",
        f"| found; doubled | {found['found']}; {found['doubled']} |",
        f"| promoted, of them and the first | {found['states']['promoted']} of {found['different'] + 1}, in {found['promotions']} promotions, "
        f"{found['seconds']:.0f} s after the first came |",
        f"| processed a second time, since the champion changed meanwhile | {found['again']} |",
        f"| counted as failed; slots taken; ledger | {found['failures']}; {sum(found['slots_taken'].values())}; {found['ledger']} |",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=63, help="of each client")
    parser.add_argument("--document", type=Path, help="write the figures into this page, between its markers")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="megu-crowd-", ignore_cleanup_errors=True) as folder:
        service = Service(Path(folder) / "project", given.data.resolve())
        try:
            service.start()
            found = crowd(service, given.clients, given.requests)
        except TimeoutError:
            print(Path(folder, "project", "worker.log").read_text()[-6000:], file=sys.stderr)
            raise
        finally:
            service.stop()
    print(json.dumps(found, indent=2))
    if given.document:
        write(given.document, "crowd", lines(found))
    return int(bool(found["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
