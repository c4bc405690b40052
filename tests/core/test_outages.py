"""What is an outage and what is not: by the errors that the libraries really raise, against ports where nobody answers."""

from __future__ import annotations

import errno
import http.server
import sqlite3
import threading
from collections.abc import Callable, Iterator

import pytest

from megu.core.errors import MeguError
from megu.core.outages import is_outage


def raised(call: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any: which one it is is asked afterwards
        call()
    return caught.value


@pytest.fixture(scope="module")
def busy() -> Iterator[str]:
    """A server that answers 503 to everything."""

    class Busy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503)

        do_POST = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


NOBODY = "http://127.0.0.1:9"


@pytest.mark.parametrize("where", [NOBODY, "busy"])
def test_a_server_of_mlflow_that_is_away(where: str, busy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    from megu.tracking import answered

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    client = MlflowClient(busy if where == "busy" else where)
    error = raised(answered(client.search_experiments))
    assert isinstance(error, MeguError)
    assert is_outage(error)


@pytest.mark.parametrize("where", [NOBODY, "busy"])
def test_a_server_of_ollama_that_is_away(where: str, busy: str) -> None:
    import ollama

    from megu.labeling.ollama.server import explained

    def ask() -> None:
        try:
            ollama.Client(busy if where == "busy" else where).show("gemma3:4b")
        except Exception as error:
            raise explained(error, where, "gemma3:4b") from error

    assert is_outage(raised(ask))


@pytest.mark.parametrize("where", [NOBODY, "busy"])
def test_a_server_of_prefect_that_is_away(where: str, busy: str) -> None:
    import httpx
    from prefect.exceptions import PrefectHTTPStatusError

    address = f"{busy if where == 'busy' else where}/api/health"

    def ask() -> None:
        try:
            httpx.get(address).raise_for_status()
        except httpx.HTTPStatusError as error:
            raise PrefectHTTPStatusError.from_httpx_error(error) from error

    assert is_outage(raised(ask))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EHOSTUNREACH])
def test_the_disk_and_the_network(code: int) -> None:
    assert is_outage(OSError(code, "away"))


def test_a_database_that_is_away() -> None:
    from sqlalchemy import create_engine, text

    with pytest.raises(Exception) as caught:  # noqa: PT011
        create_engine("sqlite:////nowhere/at/all.db").connect().execute(text("SELECT 1"))
    assert is_outage(caught.value)
    assert is_outage(sqlite3.OperationalError("database is locked"))


def test_what_it_came_from_counts_unless_it_was_dealt_with() -> None:
    def mended() -> None:
        try:
            raise ConnectionRefusedError
        except OSError:
            raise MeguError("no such class") from None

    def during() -> None:
        try:
            raise ConnectionRefusedError
        except OSError as error:
            raise MeguError("the server is away") from error

    assert not is_outage(raised(mended))
    assert is_outage(raised(during))


@pytest.mark.parametrize(
    "error",
    [
        MeguError("the request leaves no training image", "ask for the class"),
        MeguError("training failed with exception 5"),
        ValueError("API request"),
        FileNotFoundError(errno.ENOENT, "no file"),
        PermissionError(errno.EACCES, "not yours"),
        RuntimeError("loss is NaN"),
        KeyError("Bag"),
    ],
)
def test_what_is_a_request_or_a_defect_of_its_own(error: Exception) -> None:
    assert not is_outage(error)
