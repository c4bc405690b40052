"""Notifications that really arrive, and slots that really come free, on real servers: `megu up`'s Prefect and MLflow on free ports.

    python benchmarks/notifications.py [--document docs/operations.md]

A small HTTP server on loopback is the team's webhook. Measured: from the event `megu.request.overdue` to the message of the automation that
`megu automations create --notify` made; from the move of the alias ``champion`` to MLflow's own webhook; from the SIGKILL of a process
that holds a GPU slot until the slot is free, and the same when the Prefect server is killed too and started again. Five minutes, nearly
all of it waiting for leases of two minutes, so it is not part of CI. Exit code 1 when something did not come.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "benchmarks"), str(REPOSITORY / "tests" / "support")]

import psutil  # noqa: E402
from ports import free_port  # noqa: E402
from service import end, tree  # noqa: E402

from benchmarks.document import write  # noqa: E402
from megu.servers import services  # noqa: E402

PATIENCE_S = 400.0
HOLD = "import time\nfrom tasks.prefect.slots import slot\nwith slot('gpu:0'):\n    print('held', flush=True)\n    time.sleep(3600)\n"


class Receiver(http.server.ThreadingHTTPServer):
    """The team's webhook: keeps what it is sent."""

    def __init__(self) -> None:
        self.came: list[tuple[str, dict[str, Any]]] = []
        received = self.came

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append((self.path, json.loads(body)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        super().__init__((services.HOST, 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://{services.HOST}:{self.server_address[1]}{path}"

    def of(self, path: str) -> list[dict[str, Any]]:
        return [body for at, body in self.came if at == path]


def seconds(what: str, holds: Callable[[], Any]) -> float | None:
    """How long until it holds; None when it does not in `PATIENCE_S`."""
    started = time.monotonic()
    while time.monotonic() - started < PATIENCE_S:
        if holds():
            print(f"{time.monotonic() - started:8.1f} s  {what}", file=sys.stderr, flush=True)
            return time.monotonic() - started
        time.sleep(0.1)
    print(f"   never  {what}", file=sys.stderr, flush=True)
    return None


def automation(home: Path, receiver: Receiver) -> float | None:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    from tasks.prefect import signals

    block = CustomWebhookNotificationBlock(
        name="team", url=receiver.url("/prefect"), json_data={"subject": "{{subject}}", "body": "{{body}}"}
    )
    block.save("team")
    command = [sys.executable, "-m", "megu.cli.main", "automations", "create", "--notify", "custom-webhook/team"]
    subprocess.run(command, check=True, stdout=sys.stderr, env={**os.environ, "MEGU_PROJECT": str(home.parent)})
    time.sleep(5)  # the server reads its automations anew
    signals.overdue("r0000000000000001", "2026-01-01")
    return seconds("the automation's message", lambda: receiver.of("/prefect"))


def registry(receiver: Receiver, url: str) -> float | None:
    from mlflow import MlflowClient

    client = MlflowClient(url)
    client.create_registered_model("megu")
    run = client.create_run("0").info
    client.create_model_version("megu", f"{run.artifact_uri}/model", run.run_id)
    client.create_webhook("team", receiver.url("/mlflow"), ["model_version_alias.created"])
    client.set_registered_model_alias("megu", "champion", "1")
    return seconds("MLflow's webhook", lambda: receiver.of("/mlflow"))


def slot(restart: Callable[[], None] | None) -> float | None:
    """From the kill of the holder until the slot is free."""
    from prefect.client.orchestration import get_client

    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"

    def active() -> int:
        with get_client(sync_client=True) as client:
            return int(client.read_global_concurrency_limit_by_name("gpu:0").active_slots)

    assert active() == 1
    end([psutil.Process(holder.pid)])
    started = time.monotonic()
    if restart:
        restart()
        assert active() == 1, "the lease was to be there still"
    waited = seconds("the slot is free", lambda: active() == 0)
    return None if waited is None else time.monotonic() - started


def lines(found: dict[str, float | None]) -> list[str]:
    return ["| from … to | seconds |", "|---|---|"] + [
        f"| {what} | {'never' if took is None else f'{took:.1f}'} |" for what, took in found.items()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--document", type=Path, help="write the figures into this page, between its markers")
    given = parser.parse_args()
    # The team's webhook is on this machine and speaks plain HTTP here, which MLflow refuses unless it is told.
    os.environ.update(MLFLOW_WEBHOOK_ALLOWED_SCHEMES="http", MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS="true")
    with tempfile.TemporaryDirectory(prefix="megu-notify-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        (root / "params.yaml").write_text("seed: 0\n")
        (root / "deploy").symlink_to(REPOSITORY / "deploy")
        home, ports = root / ".megu", {"prefect_port": free_port(), "mlflow_port": free_port()}
        services._START_S = PATIENCE_S
        receiver = Receiver()

        def restart() -> None:
            (server,) = (entry for entry in services.status(home) if entry.name == "prefect")
            end(tree(psutil.Process(server.pid)))
            services.up(home, **ports)

        try:
            prefect, mlflow = services.up(home, **ports)
            os.environ.update(PREFECT_API_URL=f"{prefect.url}/api", PREFECT_HOME=str(home / "prefect"))
            os.environ["PYTHONPATH"] = str(REPOSITORY)
            from prefect.client.orchestration import get_client
            from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

            with get_client(sync_client=True) as client:
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="gpu:0", limit=1))
            found = {
                "`megu.request.overdue` is emitted … the team's webhook has the automation's message": automation(
                    home, receiver
                ),
                "the alias `champion` moves … the team's webhook has MLflow's message": registry(receiver, mlflow.url),
                "SIGKILL of a process with a GPU slot … the slot is free (a lease of 120 s)": slot(None),
                "the same, and the Prefect server killed too and started again … the slot is free": slot(restart),
            }
        finally:
            services.down(home)
            receiver.shutdown()
    print(json.dumps({"seconds": found, "messages": receiver.came}, indent=2))
    if given.document:
        write(given.document, "notifications", lines(found))
    return int(None in found.values())


if __name__ == "__main__":
    sys.exit(main())
