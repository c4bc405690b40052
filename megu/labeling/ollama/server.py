"""An Ollama server through its official client: where it is, which model answers, and every failure explained in one line.

By itself the client does things that it must not do here: wait for ever, follow a redirect with the images, send ``OLLAMA_API_KEY`` to
any configured host, use a proxy for an address on this machine, drop ``remote_host`` from a model's description.
"""

from __future__ import annotations

import importlib
import ipaddress
import json
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from megu.core.errors import MeguError, chain
from megu.labeling.ollama.params import Connection

if TYPE_CHECKING:
    import ollama

PORT = 11434
#: Timeouts in seconds for a connection, and for requests that a server answers from memory.
CONNECT_S, QUICK_S = 5.0, 10.0


@dataclass(frozen=True)
class Model:
    """A model on a server. digest: what its tag points to. capabilities: what it can do ("vision", "thinking", …).

    remote_host: where it really runs, empty when on that server. family: such as "gemma3". context_length: tokens that it can read;
    image_tokens: tokens per image; each 0 where the server does not say.
    """

    name: str
    digest: str
    capabilities: tuple[str, ...] = ()
    remote_host: str = ""
    family: str = ""
    context_length: int = 0
    image_tokens: int = 0


_IMPORTING = threading.Lock()


def official() -> Any:
    """Import the official client, on first use. It reads ``OLLAMA_HOST`` on import and raises when it cannot parse it, so it is imported
    without that variable. `address` decides which server is used."""
    with _IMPORTING:
        if "ollama" not in sys.modules:
            host = os.environ.pop("OLLAMA_HOST", None)
            try:
                importlib.import_module("ollama")
            finally:
                if host is not None:
                    os.environ["OLLAMA_HOST"] = host
    return sys.modules["ollama"]


def address(host: str | None) -> str:
    """Return the URL of a host setting as Ollama interprets it: no scheme means port 11434, ``http://`` 80, ``https://`` 443.

    None or empty means ``$OLLAMA_HOST``. 0.0.0.0 and [::] are addresses to listen on, not to connect to: they mean this machine.
    Raises `MeguError`, which shows no login, for an invalid address.
    """
    named = "OLLAMA_HOST" if not (host or "").strip() else "labeling.host"
    text = ((host or "").strip() or os.environ.get("OLLAMA_HOST", "")).strip().strip("'\"").strip()
    scheme, separator, rest = text.partition("://")
    scheme, rest = (scheme.lower(), rest) if separator else ("http", text)
    place, _, path = rest.partition("/")
    path = path.rstrip("/")
    try:
        if scheme not in ("http", "https"):
            raise ValueError(f"Ollama is reached by http or https, not {scheme or 'no scheme at all'}")
        if "@" in rest:
            raise ValueError("a login is not supported")
        if path.rpartition("/")[2] in ("v1", "api"):
            raise ValueError(f"leave /{path} out")
        if not (path.isascii() and path.isprintable()) or any(sign in path for sign in "?# \\"):
            raise ValueError("it is more than a server and a path")
        if path and not place:
            raise ValueError("a file or a socket is not a server")
        name, port = _name_and_port(place)
        port = port or str(PORT if not separator else 443 if scheme == "https" else 80)
        if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
            raise ValueError("a port is a number from 1 to 65535")
        name = _host_name(name)
    except ValueError as error:
        shown = f"{scheme + separator if separator else ''}…@{rest.rpartition('@')[2]}" if "@" in rest else text
        raise MeguError(
            f"{named} = {one_line(shown, 100)!r} is no address: {error}", "write it as 127.0.0.1:11434 or http://host:11434"
        ) from None
    return f"{scheme}://{name}:{port}" + (f"/{path}" if path else "")


def _name_and_port(place: str) -> tuple[str, str]:
    """Split "name", "name:port", "[IPv6]", "[IPv6]:port", "IPv6" or ":port" into name and port; an empty string for a missing part."""
    if place.startswith("["):
        name, closed, rest = place[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")) or rest == ":":
            raise ValueError("what follows the bracket is not a port")
        return _ipv6(name), rest[1:]
    if place.count(":") > 1:
        return _ipv6(place), ""
    name, colon, port = place.partition(":")
    if colon and not port:
        raise ValueError("the port is missing")
    return name, port


def _ipv6(text: str) -> str:
    """Return an IPv6 address in its shortest form; one that maps an IPv4 address as that address."""
    if "%" in text:
        raise ValueError("an address with a zone is not supported")
    try:
        found = ipaddress.IPv6Address(text)
    except ValueError:
        raise ValueError("it has the colons of an IPv6 address but is not one") from None
    return str(found.ipv4_mapped or found)


#: A part of a host name between two dots; Docker and Windows allow the underscore.
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


def _host_name(name: str) -> str:
    """Return a host name for a URL, with non-ASCII letters in the form that name servers use. Raises `ValueError` for an invalid name."""
    name = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)
    if ":" in name:
        return f"[{name}]"
    try:
        name = name if name.isascii() else httpx.URL(f"http://{name}").raw_host.decode()
    except httpx.InvalidURL:
        name = ""
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.removesuffix(".").split(".")):
        raise ValueError("its name is not one that a server can have")
    return name


def is_here(url: str) -> bool:
    """Return whether an address is this machine."""
    name = (urlsplit(url).hostname or "").removesuffix(".")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


@dataclass(frozen=True)
class Server:
    """A server and the model used on it. The server is not contacted until something is requested."""

    model: str
    connection: Connection

    @cached_property
    def url(self) -> str:
        return address(self.connection.host)

    def client(self, timeout: float, hear: Callable[[httpx.Response], None] | None = None) -> ollama.Client:
        """Return the official client. hear: called with every raw response."""
        return official().Client(  # type: ignore[no-any-return]
            self.url,
            timeout=httpx.Timeout(timeout, connect=min(CONNECT_S, timeout)),
            follow_redirects=False,
            trust_env=not is_here(self.url),
            verify=self.url.startswith("https"),  # without TLS no certificates are needed, and loading them takes a while
            event_hooks={"request": [_without_key], "response": [hear] if hear else []},
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=60),
        )

    def version(self) -> str:
        """Return the server's version. Raises `MeguError` when there is no server."""

        def ask(client: ollama.Client) -> None:
            client._client.get("/api/version").raise_for_status()  # the one request for which the client has no method

        said = self._told(ask).get("version")
        if not isinstance(said, str) or not said:
            raise explained(ValueError(), self.url, self.model)
        return one_line(said, 40)

    def find(self) -> Model | None:
        """Return the model as the server lists it, with its digest; None when the server does not have it."""
        wanted = self.model if ":" in self.model.rpartition("/")[2] else f"{self.model}:latest"
        for entry in self._told(lambda client: client.list()).get("models") or []:
            if wanted in (entry.get("model"), entry.get("name")) and entry.get("digest"):
                told = tuple(str(word) for word in entry.get("capabilities") or [])
                return Model(self.model, str(entry["digest"]), told, str(entry.get("remote_host") or ""), **_facts(entry))
        return None

    def refuse_remote(self, remote_host: str = "") -> None:
        """Raise `MeguError` where images would leave this machine without permission."""
        if self.connection.allow_remote:
            return
        allow = "choose a local one, or allow it with --set labeling.allow_remote=true"
        if self.model.endswith(("-cloud", ":cloud")) or remote_host:
            where = f"runs on {one_line(remote_host, 100)}" if remote_host else "is a cloud model"
            raise MeguError(f"{self.model} {where}: the images would leave this machine", allow)
        if not is_here(self.url):
            raise MeguError(f"{self.url} is another machine: the images would leave this one", allow)

    def ready(self) -> Model:
        """Return the model, after checking that the server is running and has it, and that it can see images and runs here.

        Raises `MeguError` with the command that fixes the problem.
        """
        self.refuse_remote()
        self.version()
        found = self.find()
        pull = f"ollama pull {self.model}"
        if found is None:
            raise MeguError(f"the Ollama server at {self.url} has no model {self.model}", pull)
        told = self._told(lambda client: client.show(self.model))
        self.refuse_remote(str(told.get("remote_host") or found.remote_host))
        capabilities = tuple(str(word) for word in told.get("capabilities") or found.capabilities)
        if "vision" not in capabilities:
            raise MeguError(f"{self.model} cannot see images", "choose a vision model: ollama pull gemma3:4b")
        facts = {name: value or getattr(found, name) for name, value in _facts(told).items()}
        return Model(self.model, found.digest, capabilities, found.remote_host, **facts)

    def warm_up(self, num_ctx: int) -> None:
        """Load the model and keep it loaded. A client that gives up cancels the load, so this waits long."""
        limit = self.connection.load_timeout
        try:
            with self.client(limit) as client:
                client.chat(self.model, messages=[], options={"num_ctx": num_ctx}, keep_alive=self.connection.keep_loaded)
        except httpx.TimeoutException:
            raise MeguError(
                f"{self.model} was not loaded within {limit:.0f} s", "raise labeling.load_timeout, or choose a smaller model"
            ) from None
        except Exception as error:
            raise explained(error, self.url, self.model) from error

    def _told(self, ask: Callable[[ollama.Client], object]) -> dict[str, Any]:
        """Return the whole answer to a quick request: the client's own types leave some of it out."""
        told: list[bytes] = []
        try:
            with self.client(QUICK_S, lambda response: told.append(response.read())) as client:
                ask(client)
            answer = json.loads(told[-1])
        except Exception as error:
            raise explained(error, self.url, self.model) from error
        if not isinstance(answer, dict):
            raise explained(ValueError(), self.url, self.model)
        return answer


def _facts(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a server reports about a model's family, context and images, as fields of `Model`."""

    def number(value: object) -> int:
        return value if isinstance(value, int) and value > 0 else 0

    details, info = ({} if not isinstance(entry, Mapping) else entry for entry in (told.get("details"), told.get("model_info")))
    lengths = [number(value) for name, value in info.items() if name.endswith(".context_length")]
    images = [number(value) for name, value in info.items() if name.endswith(".mm.tokens_per_image")]
    return {
        "family": str(details.get("family") or ""),
        "context_length": max([number(details.get("context_length")), *lengths]),
        "image_tokens": max(images, default=0),
    }


def _without_key(request: httpx.Request) -> None:
    if request.url.host not in ("ollama.com", "www.ollama.com"):
        request.headers.pop("authorization", None)


def explained(error: BaseException, url: str, model: str) -> MeguError:
    """Explain in one line what went wrong with a call, and how to fix it."""
    if isinstance(error, MeguError):
        return error
    if isinstance(error, (ConnectionError, httpx.ConnectError, httpx.ConnectTimeout)):
        return MeguError(*_no_connection(error, url))
    if isinstance(error, httpx.TimeoutException):
        fix = "raise labeling.call_timeout, or lower labeling.concurrency"
        return MeguError(f"the Ollama server at {url} did not answer in time", fix)
    if isinstance(error, official().ResponseError):
        return MeguError(*_refusal(error.status_code, complaint(error.error), url, model))
    if isinstance(error, httpx.HTTPStatusError):
        return MeguError(*_refusal(error.response.status_code, complaint(error.response.text), url, model))
    if isinstance(error, httpx.TransportError):
        # A server that expects TLS may hang up on a client without it.
        https = f"; if it speaks HTTPS, write {_by('https', url)}" if isinstance(error, httpx.RemoteProtocolError) else ""
        return MeguError(f"the connection to {url} broke ({one_line(error, 120)})", f"see the server's log, run again{https}")
    if isinstance(error, (ValueError, TypeError)):  # not JSON, or not what the client takes for an answer
        what = "not JSON" if isinstance(error, json.JSONDecodeError) else "not one of Ollama's"
        return MeguError(f"what answers at {url} is no Ollama server: its answer is {what}", _WHERE)
    return MeguError(f"a request to {url} failed ({type(error).__name__})", "run again; the answers so far are kept")


_WHERE = "check labeling.host and OLLAMA_HOST"


def _by(scheme: str, url: str) -> str:
    """Return the URL of the same server with another scheme."""
    return f"{scheme}://{url.partition('://')[2]}"


def _no_connection(error: BaseException, url: str) -> tuple[str, str]:
    """Explain why a connection failed, and how to fix it."""
    # The client reports every such error alike; the real cause is behind it.
    behind = list(chain(error, hidden=True))
    said = " ".join(str(cause) for cause in behind).lower()
    if "ssl" in said or "certificate" in said or "tls" in said:
        if "certificate" in said:
            return (
                f"the certificate of {url} is not trusted here",
                "set SSL_CERT_FILE to its authority's, or use http:// on this machine",
            )
        return f"what answers at {url} does not speak HTTPS", f"write {_by('http', url)}"
    if any(isinstance(cause, socket.gaierror) for cause in behind):
        return f"the name {urlsplit(url).hostname} is not known here", _WHERE
    # A scheme without a port means 80, which is hardly ever meant.
    named = url.endswith((":80", ":443"))
    serve = "ollama serve" if is_here(url) else "OLLAMA_HOST=0.0.0.0 ollama serve, on that machine"
    fix = f"{serve} (or name its port: {url.rpartition(':')[0]}:{PORT})" if named else serve
    return f"there is no Ollama server at {url}", fix


def _refusal(code: int, said: str, url: str, model: str) -> tuple[str, str]:
    """Explain an error status, and how to fix it."""
    at = f"the Ollama server at {url}"
    low = said.lower()
    if code == 404 and re.match(r"model .+ not found", low):
        return f"{at} has no model {model}", f"ollama pull {model}"
    if "https server" in low or "https port" in low:
        return f"what answers at {url} speaks HTTPS", f"write {_by('https', url)}"
    if low.startswith("time: ") and "duration" in low:
        return f"{at} does not take labeling.keep_alive ({said})", "write it as 30m, 1h or -1"
    if "context size" in low or "context length" in low:
        return f"a question does not fit into the model's context: {said}", "raise labeling.num_ctx"
    if code in (400, 500) and any(word in low for word in ("multimodal", "vision", "image")):
        return f"{model} does not take these images: {said}", "choose a vision model: ollama pull gemma3:4b"
    known = {
        401: (f"what answers at {url} wants a login (401)", _WHERE),
        403: (f"{at} refused the call (403)", "set OLLAMA_ORIGINS there, or use 127.0.0.1"),
        404: (f"what answers at {url} is no Ollama server", _WHERE),
        405: (f"what answers at {url} is no Ollama server", _WHERE),
        503: (f"{at} stayed busy (503)", "lower labeling.concurrency, or wait"),
    }
    if 300 <= code < 400:
        return f"what answers at {url} redirects elsewhere ({code})", "name the address that it redirects to, https:// perhaps"
    return known.get(code, (f"{at} answered {code}: {said}", "see its log: ollama serve prints it"))


def complaint(said: Any) -> str:
    """Return the server's error message, which is sometimes JSON inside a string."""
    for _ in range(3):
        if isinstance(said, str) and said.lstrip().startswith("{"):
            try:
                said = json.loads(said)
            except ValueError:
                break
        if isinstance(said, Mapping):
            said = said.get("error") or said.get("message") or ""
    return one_line(str(said), 200) or "nothing"


def one_line(text: object, most: int) -> str:
    """Make foreign text safe to print: no line breaks, no control characters, not too long."""
    plain = "".join(sign if sign.isprintable() else " " for sign in str(text))
    words = " ".join(plain.split())
    return words if len(words) <= most else f"{words[: most - 1]}…"
