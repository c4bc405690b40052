"""``megu doctor``, ``up``, ``down``, ``serve`` and ``status``: the servers, and the state of the project."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from megu.cli.common import JsonOption, find_project, watching, writable_project
from megu.core.errors import MeguError
from megu.core.escaping import plain

if TYPE_CHECKING:
    from megu.core.project import Project


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(doctor)
    app.command()(up)
    app.command()(down)
    app.command()(serve)
    app.command()(status)


def doctor(as_json: JsonOption = False) -> None:
    """Check what is installed, reachable and missing, each with a fix; exit code 1 when something needed is missing."""
    from megu.cli.doctor import checks
    from megu.cli.terminal import print_checks

    here = find_project()
    found = checks(here.root, here.home)
    print_checks(found, as_json=as_json)
    if any(check.ok is False for check in found):
        raise typer.Exit(1)


def up(
    prefect_port: Annotated[int, typer.Option(help="Port of the Prefect server.", min=1, max=65535)] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow server.", min=1, max=65535)] = 5000,
) -> None:
    """Start a Prefect server and an MLflow server for this project, on this machine only (127.0.0.1)."""
    from megu.servers import services

    with watching():
        started = services.up(writable_project().home, prefect_port=prefect_port, mlflow_port=mlflow_port)
    for service in started:
        print(f"{service.name}: {service.url}")


def down() -> None:
    """Stop the servers that `megu up` started."""
    from megu.servers import services

    stopped = services.down(find_project().home)
    print("\n".join(f"{name}: stopped" for name in stopped) or "nothing was running")


def serve(
    host: Annotated[
        str, typer.Option(help="The address to listen on; any other than loopback needs a proxy with TLS and a login.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5001,
    every: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two checks of the champion.")] = 5.0,
) -> None:
    """Serve the champion with `mlflow models serve`, restarted whenever another version becomes the champion."""
    from megu.core.settings.sections import section
    from megu.promotion.params import RegistryParams
    from megu.serving import supervisor

    here = find_project()
    name = section(here.params, "registry", RegistryParams).name
    supervisor.serve(here, name, host, port, every, lambda line: print(plain(line), flush=True))


def status(
    served: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Ask this server which version it serves (default: promotion.served); exit code 1 if not the champion.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the state of the project: servers, requests, champion, served version, last runs, next schedules, what needs a person."""
    from megu.core.settings.sections import section
    from megu.promotion.params import PromotionParams, RegistryParams
    from megu.requests.overview import markdown, overview
    from megu.requests.request import RequestParams

    here = find_project()
    name = section(here.params, "registry", RegistryParams).name
    wanted = section(here.params, "promotion", PromotionParams)
    seen = _served(here, name, wanted, served)
    now = overview(
        here,
        name,
        section(here.params, "requests", RequestParams),
        served=seen.to_json() if seen else None,
        awaited=bool(wanted.served),
    )
    if as_json:
        print(json.dumps(now.to_json(), indent=2))
    else:
        for service, url in now.services.items():
            print(f"{service}: {url or 'not running'}")
        print(f"\n{markdown(now, plain)}")
    if served and seen and seen.verdict != "champion":
        raise typer.Exit(1)


def _served(here: Project, name: str, params: Any, url: str | None) -> Any:
    """Return what a server was seen to serve; the configured server also closes requests. None if there is no server to ask."""
    from megu.promotion.params import ADDRESS, is_address

    if url is not None and not is_address(url):
        raise MeguError(f"--served {url} is not {ADDRESS.partition(',')[0]}", "for example --served http://127.0.0.1:5001")
    if url is None and not params.served:
        return None
    from megu.serving import check, follow

    if url is not None:
        return check.inspect_server(here, name, url)
    seen, closed, troubles = follow.inspect_served(here, name, params)
    for line in [*troubles, *([f"closed with it: {', '.join(closed)}"] if closed else [])]:
        print(f"megu: {plain(line)}", file=sys.stderr)
    return seen
