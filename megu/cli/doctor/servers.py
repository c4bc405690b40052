"""The servers that a run may use: those specified in the environment, the project's own, and the vision model's."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from megu.cli.doctor.check import Check
from megu.core.errors import MeguError
from megu.servers import addresses, services


def prefect() -> Check:
    named = os.environ.get(addresses.PREFECT)
    if not named:
        return Check("prefect server", True, f"{addresses.PREFECT} names none; a run starts a temporary one")
    return _found("prefect server", addresses.prefect(named, addresses.PATIENCE))


def mlflow() -> Check:
    named = os.environ.get(addresses.MLFLOW)
    if not named:
        return Check("mlflow server", True, f"{addresses.MLFLOW} names none; runs are kept in the project's own database")
    return _found("mlflow server", addresses.mlflow(named, addresses.PATIENCE))


def _found(name: str, found: addresses.Found) -> Check:
    detail = f"{found.version} at {found.url}".removeprefix(" at ")
    if found.note.startswith("older"):
        return Check(name, None, f"{detail}, {found.note}", f"upgrade {name.split(maxsplit=1)[0]} where that server runs")
    return Check(name, True, f"{detail}, {found.note}" if found.note else detail)


def own(home: Path) -> Check:
    found = services.status(home)
    live = [f"{services.TITLES[entry.name]} at {entry.url}" for entry in found if entry.running]
    if len(live) == len(found):
        return Check("services", True, ", ".join(live))
    detail = f"only {live[0]} is running" if live else "no server of this project is running; a run starts a temporary one"
    return Check("services", None, detail, "megu up")


def ollama(root: Path) -> list[Check]:
    """Check the server and the model that the Ollama labeler would query. Needed only if `labeling.kind` is ollama."""
    from megu.config import tree as config
    from megu.labeling.ollama.params import OllamaParams
    from megu.labeling.ollama.server import Server

    params, needed = OllamaParams(), False
    with suppress(MeguError):  # a broken params.yaml is another finding
        labeling = config.load(root / "params.yaml").labeling
        needed = labeling.kind == "ollama"
        params = labeling.params if needed else params
    bad, spare = (False, "") if needed else (None, "; the prototype labeler needs no server")
    try:
        server = Server(params.model, params.connection)
        version = server.version()
    except MeguError as error:
        unknown = Check("ollama model", bad, f"{params.model}: no server to ask", f"ollama pull {params.model}")
        return [Check("ollama server", bad, f"{error.what}{spare}", error.fix), unknown]
    found = Check("ollama server", True, f"{version} at {server.url}")
    try:
        model = server.ready()
    except MeguError as error:
        return [found, Check("ollama model", bad, f"{error.what}{spare}", error.fix)]
    return [found, Check("ollama model", True, f"{model.name} sees images (digest {model.digest[:12]}…)")]
