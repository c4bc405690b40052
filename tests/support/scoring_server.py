"""A server that answers as MLflow's scoring server does, or as a case has it; and a project whose champion it may serve."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megu.core.files.ledger import Event
from megu.core.project import Project
from megu.data import arrays
from megu.lineage.commitments import commit, fingerprint
from megu.lineage.dossier import sha256
from megu.lineage.keys import Keys
from megu.lineage.promoted import probes
from megu.lineage.promoted.champions import MOVED
from megu.lineage.promoted.probes import MADE, Probes

CLASSES, RUN = ("a", "b", "c", "d"), "0123456789abcdef0123456789abcdef"


@dataclass
class Scoring:
    """url: its address. asked: the paths, headers and bodies that came in."""

    url: str = ""
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)


@contextmanager
def scoring(answer: Callable[[BaseHTTPRequestHandler, Any], None]) -> Iterator[Scoring]:
    """A server on loopback. answer: writes the answer to a request and its JSON."""
    found = Scoring()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.asked.append((self.path, dict(self.headers), body))
            answer(self, body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


def said(status: int, content: str | bytes, **headers: str) -> Callable[[BaseHTTPRequestHandler, Any], None]:
    """Answers everything with this."""

    def answer(handler: BaseHTTPRequestHandler, body: Any) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content if isinstance(content, bytes) else content.encode())

    return answer


def predicting(table: Callable[[int], NDArray[Any]]) -> Callable[[BaseHTTPRequestHandler, Any], None]:
    """Answers as MLflow does. table: number of images -> probabilities."""

    def answer(handler: BaseHTTPRequestHandler, body: Any) -> None:
        found = table(len(body["instances"]))
        said(200, json.dumps({"predictions": found.tolist()}))(handler, body)

    return answer


def for_ever(pause: float) -> Callable[[BaseHTTPRequestHandler, Any], None]:
    """Answers 200 and then bytes that never end, a pause between them."""

    def answer(handler: BaseHTTPRequestHandler, body: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            try:
                handler.wfile.write(b" " * (1 if pause else 1_000_000))
            except OSError:
                return
            time.sleep(pause)

    return answer


def photos(root: Path, count: int = 24, size: int = 4) -> arrays.Dataset:
    """A data set of random pictures of four classes."""
    rng = np.random.default_rng(0)
    parts = [(rng.integers(0, 256, (n, size, size, 1), dtype=np.uint8), np.arange(n) % len(CLASSES)) for n in (16, count)]
    return arrays.save(root / "data" / "photos", name="photos", classes=CLASSES, train=parts[0], test=parts[1])


def rows(seed: int, count: int = 6, classes: int = 4) -> NDArray[np.float64]:
    """Probabilities (N, K) of a model."""
    return np.random.default_rng(seed).dirichlet(np.ones(classes), count).round(6)


def moved(project: Project, version: str = "2", before: str | None = "1", name: str = "megu") -> Event:
    """The ledger's event of a promotion."""
    facts = {"why": "promotion", "version": version, "from": before, "seal": "s" * 64, "approver": "Kim", "run_id": RUN}
    return project.ledger.append(MOVED, name, {**facts, "data": "photos"})


def promoted(
    project: Project, champion: NDArray[Any], other: NDArray[Any] | None, before: str = "1", kept: Sequence[int] = range(6)
) -> Probes:
    """A project with a data set, a champion (version 2) and the probes of its promotion. kept: which test images are probes."""
    key, dataset = Keys(project.keys).commitment_key(create=True), photos(project.root)
    assert key is not None
    event = moved(project, before=before if before.isdigit() else None)
    made = Probes(
        format=probes.FORMAT,
        model="megu",
        version="2",
        before="" if other is None else before,
        data="photos",
        key=fingerprint(key),
        samples=[commit(key, bytes(dataset.test.ids[number])).hex() for number in kept],
        champion=champion.tolist(),
        other=[] if other is None else other.tolist(),
    )
    content = made.to_bytes()
    folder = project.dossiers / RUN
    folder.mkdir(parents=True)
    (folder / probes.file_name(content)).write_bytes(content)
    project.ledger.append(MADE, "megu", {"event": event.number, "version": "2", "run_id": RUN, "sha256": sha256(content)})
    return made
