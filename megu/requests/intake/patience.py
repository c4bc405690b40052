"""uvicorn's protocol with a deadline: a client that does not finish its request in time is dropped, however slowly bytes keep coming.

uvicorn itself waits for the rest of a request as long as the connection lasts, and leaves deadlines to a proxy.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def patient(seconds: float) -> type[H11Protocol]:
    """Return the protocol class with this deadline, counted from the beginning of a connection or the end of the previous request."""

    class Patient(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._begin()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end()
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.conn.their_state is not h11.SEND_BODY:  # refused before its end: the rest gets the remaining time
                self._begin()

        def send_400_response(self, msg: str) -> None:
            self._refuse(HTTPStatus.BAD_REQUEST)

        def _should_upgrade(self) -> bool:
            return False

        def _begin(self) -> None:
            self._end()
            self._deadline = self.loop.call_later(seconds, self._too_slow)

        def _end(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()

        def _too_slow(self) -> None:
            if self.transport.is_closing() or self.conn.their_state in (h11.DONE, h11.MUST_CLOSE):
                return  # the request is complete: now it is the application's turn
            if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
                self.transport.close()  # it sent nothing
                return
            self.logger.warning("a client did not end its request in time and was dropped")
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

        def _refuse(self, status: HTTPStatus) -> None:
            """Send an answer unless one was sent, and close."""
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                body = f'{{"error": "{status.phrase.lower()}"}}'.encode()
                head: list[tuple[bytes, bytes]] = [
                    (b"content-type", b"application/json"),
                    (b"content-length", str(len(body)).encode()),
                    (b"connection", b"close"),
                ]
                answer: list[Any] = [
                    h11.Response(status_code=status, headers=head, reason=status.phrase.encode()),
                    h11.Data(data=body),
                    h11.EndOfMessage(),
                ]
                for event in answer:
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

    return Patient
