"""Requests over HTTP, for a ticket system or a form: ``POST /requests`` takes one in, ``GET /requests/<id>`` returns its state.

Starlette and uvicorn come with Prefect; clients that never finish, which they leave to a proxy, are handled by
`megu.requests.intake.patience`. Callers need the token in ``$MEGU_REQUEST_TOKEN``; without one nothing is served. Answers and logs have
ids and states, never what a request names.
"""

from __future__ import annotations

import hmac
import logging
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from megu.core.errors import MeguError
from megu.core.outages import is_outage
from megu.requests.inbox import Added, Done, Inbox
from megu.requests.intake.files import People
from megu.requests.intake.files import read_requests as asked_for
from megu.requests.intake.formats import as_json
from megu.requests.request import RequestParams

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request as Asked
    from starlette.responses import JSONResponse, Response

TOKEN = "MEGU_REQUEST_TOKEN"
#: Enough for a hundred thousand ids.
_LARGEST = 4 << 20
_SHORTEST = 16
#: Most clients at once, bytes in the head of a request, and seconds that a whole request may take.
_CLIENTS, _HEAD, _PATIENCE_S = 256, 16 << 10, 20.0


def application(inbox: Inbox, params: RequestParams, token: str) -> Starlette:
    """Return the server's application; see the module."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import ClientDisconnect
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    def refused(read_requests: Asked) -> JSONResponse | None:
        given = read_requests.headers.get("authorization", "").removeprefix("Bearer ")
        if hmac.compare_digest(given.encode(), token.encode()):
            return None
        return JSONResponse({"error": "the token is missing or wrong"}, 401, {"WWW-Authenticate": "Bearer"})

    def away(error: MeguError) -> JSONResponse:
        """Log the error for the operator of the server; the client does not see it."""
        logging.getLogger("uvicorn.error").error(str(error))
        return JSONResponse({"error": "the inbox cannot be used now: try again later"}, 503)

    def take(value: dict[str, Any]) -> list[Added]:
        requests = asked_for(value, "request", params, datetime.now(UTC).date(), People(inbox.project))
        return inbox.add_all(requests, "http")

    async def add(read_requests: Asked) -> Response:
        if no := refused(read_requests) or _unfit(read_requests):
            return no
        content = bytearray()
        try:
            async for part in read_requests.stream():
                content += part
                if len(content) > _LARGEST:
                    return _too_large()
        except ClientDisconnect:
            return Response(status_code=400)  # nobody receives it
        try:
            value = as_json(content.decode())
        except ValueError as error:  # the decoder's or the parser's own message would repeat the body
            own = type(error) is ValueError
            return JSONResponse({"error": f"the body is not JSON{f': {error}' if own else ''}"}, 400)
        try:
            if not isinstance(value, dict):
                raise MeguError("the body is not a request", 'send {"classes": ["…"], "basis": "…", "requester": "…"}')
            added = await run_in_threadpool(take, value)
        except Done as error:
            (_, entry), *_ = error.entries
            answer = {"error": str(error), "id": entry.id, "state": entry.state, "since": entry.events[-1].time}
            return JSONResponse(answer, 409)
        except MeguError as error:
            if is_outage(error):
                return away(error)
            return JSONResponse({"error": str(error)}, 422)
        rows = [{"id": one.id, "new": one.new, "state": one.state} for one in added]
        # For people, there is a request for each data set that has samples of theirs.
        said: dict[str, Any] = {"requests": rows} if value.get("subjects") else rows[0]
        return JSONResponse(said, 201 if any(one.new for one in added) else 200)

    async def show(read_requests: Asked) -> JSONResponse:
        if no := refused(read_requests):
            return no
        try:
            entry = await run_in_threadpool(inbox.entry, read_requests.path_params["request"])
        except MeguError as error:
            return away(error) if is_outage(error) else JSONResponse({"error": error.what}, 404)
        return JSONResponse({"id": entry.id, "state": entry.state, "due": entry.due, "why": entry.reason or None})

    return Starlette(
        routes=[Route("/requests", add, methods=["POST"]), Route("/requests/{request:str}", show, methods=["GET"])]
    )


def _unfit(read_requests: Asked) -> JSONResponse | None:
    """Return a refusal if the head of a request already justifies one, so that its body is not read."""
    from starlette.responses import JSONResponse

    head = read_requests.headers
    kind, _, rest = head.get("content-type", "application/json").partition(";")
    charset = rest.strip().lower().removeprefix("charset=").strip('"')
    if kind.strip().lower() != "application/json" or charset not in ("", "utf-8", "utf8"):
        return JSONResponse({"error": "the body is not declared as JSON in UTF-8: send Content-Type: application/json"}, 415)
    if head.get("content-encoding", "identity").strip().lower() != "identity":
        return JSONResponse({"error": "the body must not be compressed: send no Content-Encoding"}, 415)
    if "content-length" in head and "transfer-encoding" in head:
        return JSONResponse({"error": "the body has two lengths: send Content-Length or chunks"}, 400)
    return _too_large() if int(head.get("content-length", "0")) > _LARGEST else None


def _too_large() -> JSONResponse:
    from starlette.responses import JSONResponse

    return JSONResponse({"error": f"a request may have at most {_LARGEST >> 20} MB"}, 413)


def token() -> str:
    """Return the token that callers need. Raises `MeguError` when none is set, or one that can be guessed."""
    found = os.environ.get(TOKEN, "")
    if len(found) < _SHORTEST:
        raise MeguError(
            f"{TOKEN} is not set to a token of at least {_SHORTEST} characters", "set it in the environment, nowhere else"
        )
    return found


def serve(inbox: Inbox, params: RequestParams, host: str, port: int) -> None:
    """Serve until stopped."""
    import uvicorn

    uvicorn.Server(server(application(inbox, params, token()), host, port)).run()


def server(app: Starlette, host: str, port: int, patience: float = _PATIENCE_S) -> uvicorn.Config:
    """Return the server's configuration. patience: seconds that a client has to send a request, however slowly it trickles in."""
    import uvicorn

    from megu.requests.intake.patience import patient

    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        http=patient(patience),
        ws="none",
        lifespan="off",
        server_header=False,
        timeout_keep_alive=5,
        limit_concurrency=_CLIENTS,
        h11_max_incomplete_event_size=_HEAD,
    )
