"""Servers of a team, pretended: Prefect's and MLflow's, sound or as a case has them."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from typing import Any

PREFECT, MLFLOW = metadata.version("prefect"), metadata.version("mlflow")
#: What both servers answer that are as they should be.
SOUND: dict[str, Any] = {
    "/api/admin/version": json.dumps(PREFECT),
    "/version": MLFLOW,
    "/api/2.0/mlflow/experiments/search": '{"experiments": []}',
}
NAMES = (
    *("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY", "PREFECT_CLIENT_CUSTOM_HEADERS"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLFLOW_ALLOW_FILE_STORE"),
)


def basic(login: str) -> str:
    return f"Basic {base64.b64encode(login.encode()).decode()}"


@contextmanager
def serving(
    answers: dict[str, str], header: tuple[str, str] = ("", ""), refusal: tuple[int, str] = (401, "no")
) -> Iterator[str]:
    """A server that answers by path, to who sends the header; the root of its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            name, wanted = header
            if name and self.path != "/version" and self.headers[name] != wanted:
                status, text = refusal
            else:
                status, text = (200, answers[self.path]) if self.path in answers else (404, "<html>")
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
