"""One JSON request to a server outside our control: it may be down, slow, endless, or another program altogether."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from megu.core.errors import MeguError
from megu.promotion.params import NAMED

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Answer:
    status: int
    content: bytes


def address(value: str, key: str) -> str:
    """Return the URL that a setting names: itself, or the environment variable of ``$NAME``. key: the setting.

    Raises `MeguError` for a variable that is not set or not a URL.
    """
    if not NAMED.fullmatch(value):
        return value
    url = os.environ.get(value[1:], "")
    if urlsplit(url).scheme not in ("http", "https"):
        raise MeguError(f"{key}: {value} is not set to an http or https URL", f"export {value[1:]}=https://HOST/PATH")
    return url


def origin(url: str) -> str:
    """Return scheme, host and port: all that may be printed of an address whose path may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def post(url: str, body: bytes, *, token: str = "", seconds: float, most: int) -> Answer:
    """POST JSON and return the answer. token: sent as a bearer token. seconds: for everything, however slowly bytes keep coming. most: the
    size limit of an answer in bytes.

    Raises `MeguError` when nothing answers in time, the connection fails, or the answer never ends.
    """
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", "User-Agent": "megu"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    # In a thread of its own: a flow may have an event loop already.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, _post(url, body, headers, seconds, most)).result()


async def _post(url: str, body: bytes, headers: Mapping[str, str], seconds: float, most: int) -> Answer:
    import httpx

    where = origin(url)
    try:
        # A proxy set in the shell does not know this machine's loopback.
        own = urlsplit(url).hostname in _LOOPBACK
        async with (
            asyncio.timeout(seconds),
            httpx.AsyncClient(timeout=None, trust_env=not own) as client,
            client.stream("POST", url, content=body, headers=headers) as response,
        ):
            content = bytearray()
            async for part in response.aiter_raw():
                content += part
                if len(content) > most:
                    raise MeguError(f"the answer of {where} does not end (more than {most:,} bytes)", _FIX)
            return Answer(response.status_code, bytes(content))
    except TimeoutError:
        raise MeguError(f"{where} has not answered in {seconds:.0f} s", _FIX) from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise MeguError(f"{where} does not answer: {why}", _FIX) from None


_FIX = "check that the server runs there, and the address"
