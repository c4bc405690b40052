"""Requests over HTTP, for a ticket system or a form: ``POST /requests`` takes one in, ``GET /requests/<id>`` says where it stands.

Starlette and uvicorn come with Prefect. Whoever calls must hold the token in ``$MEGU_REQUEST_TOKEN``; without one nothing is served.
What is answered and logged has ids and states, never what a request names.
"""

from __future__ import annotations

import hmac
import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from megu.errors import MeguError
from megu.requests.files import parse
from megu.requests.inbox import Done, Inbox
from megu.requests.request import RequestParams

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request as Asked
    from starlette.responses import JSONResponse

TOKEN = "MEGU_REQUEST_TOKEN"
#: A hundred thousand ids.
_LARGEST = 4 << 20
_SHORTEST = 16


def application(inbox: Inbox, params: RequestParams, token: str) -> Starlette:
    """The server's application; see the module."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    def refused(asked: Asked) -> JSONResponse | None:
        given = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if hmac.compare_digest(given.encode(), token.encode()):
            return None
        return JSONResponse({"error": "the token is missing or wrong"}, 401, {"WWW-Authenticate": "Bearer"})

    async def add(asked: Asked) -> JSONResponse:
        if no := refused(asked):
            return no
        content = bytearray()
        async for part in asked.stream():
            content += part
            if len(content) > _LARGEST:
                return JSONResponse({"error": f"a request has at most {_LARGEST >> 20} MB"}, 413)
        try:
            value = json.loads(bytes(content))
            if not isinstance(value, dict):
                raise MeguError("the body is no request", 'send {"classes": ["…"], "basis": "…", "requester": "…"}')
            request = parse(value, "request", params, datetime.now(UTC).date())
            added = await run_in_threadpool(inbox.add, request, "http")
        except ValueError:
            return JSONResponse({"error": "the body is not JSON"}, 400)
        except Done as error:
            (_, entry), *_ = error.entries
            answer = {"error": str(error), "id": entry.id, "state": entry.state, "since": entry.events[-1].time}
            return JSONResponse(answer, 409)
        except MeguError as error:
            return JSONResponse({"error": str(error)}, 422)
        return JSONResponse({"id": added.id, "new": added.new, "state": added.state}, 201 if added.new else 200)

    async def show(asked: Asked) -> JSONResponse:
        if no := refused(asked):
            return no
        try:
            entry = await run_in_threadpool(inbox.entry, asked.path_params["request"])
        except MeguError as error:
            return JSONResponse({"error": error.what}, 404)
        return JSONResponse({"id": entry.id, "state": entry.state, "due": entry.due, "why": entry.reason or None})

    return Starlette(
        routes=[Route("/requests", add, methods=["POST"]), Route("/requests/{request:str}", show, methods=["GET"])]
    )


def token() -> str:
    """The token that callers must hold. Raises `MeguError` when none is set, or one that can be guessed."""
    found = os.environ.get(TOKEN, "")
    if len(found) < _SHORTEST:
        raise MeguError(
            f"{TOKEN} is not set to a token of at least {_SHORTEST} characters", "set it in the environment, nowhere else"
        )
    return found


def serve(inbox: Inbox, params: RequestParams, host: str, port: int) -> None:
    """Serve until stopped."""
    import uvicorn

    uvicorn.run(application(inbox, params, token()), host=host, port=port, log_level="warning")
