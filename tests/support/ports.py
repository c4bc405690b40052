"""Ports of this machine that nobody listens on."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def free_ports() -> dict[str, int]:
    """Two, as `megu.servers.services.up` takes them."""
    with socket.socket() as one, socket.socket() as two:
        one.bind((HOST, 0))
        two.bind((HOST, 0))
        return {"prefect_port": one.getsockname()[1], "mlflow_port": two.getsockname()[1]}
