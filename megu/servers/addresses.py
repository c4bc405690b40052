"""A team's servers, as specified in the environment: whether they answer, accept our login, and are compatible with the installed
packages.

Queried directly, with the logins and certificates that the environment has for Prefect's and MLflow's own clients: those take seconds
to import, and minutes to report that nobody answers. The settings in Prefect's profiles and ``prefect.toml`` are left to Prefect.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as ConfigError
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from megu.core.errors import MeguError

PREFECT, MLFLOW = "PREFECT_API_URL", "MLFLOW_TRACKING_URI"
#: Time limit of each query, in seconds: for the doctor, and for a flow about to start, which can put up with a busy server.
PATIENCE, FLOW_PATIENCE = 8.0, 30.0
#: A login in one of Prefect's own files, in any of their formats.
_LOGIN = re.compile(r"^\s*(export\s+)?(prefect_\w*)?(api_key|auth_string|custom_headers)\s*=", re.IGNORECASE | re.MULTILINE)
_DRIVERS = {"postgresql": ("psycopg2", 5432), "mysql": ("MySQLdb", 3306), "mssql": ("pyodbc", 1433)}


@dataclass(frozen=True)
class Found:
    """A server that answers. url: without a login. version: the server's. note: what is not quite right with it, else empty."""

    url: str
    version: str
    note: str = ""


def shown(address: str) -> str:
    """Return an address as it may be printed: without a login that a team may have written into it."""
    return re.sub(r"://[^/?#]*@", "://", address)


def refuse_prefect() -> None:
    """Raise `MeguError` for a Prefect server that the environment specifies and that cannot be used."""
    if named := os.environ.get(PREFECT):
        prefect(named, FLOW_PATIENCE)


def refuse_mlflow() -> None:
    """Raise `MeguError` for an MLflow server or database that the environment specifies and that cannot be used."""
    if named := os.environ.get(MLFLOW):
        mlflow(named, FLOW_PATIENCE)


# --- Prefect -----------------------------------------------------------------------------------------------------------------


def prefect(api: str, timeout: float = PATIENCE) -> Found:
    """Query the Prefect server whose API is at ``api``. Raises `MeguError` if it does not answer, refuses the login, or is
    incompatible."""
    server = _Prefect(api)
    if _has_login_elsewhere():
        return Found(shown(api), "", "not checked: the login is in Prefect's own settings")
    if urlsplit(api).netloc.endswith("prefect.cloud"):
        server.ask("work_pools/filter", {"limit": 1}, timeout)
        return Found(shown(api), "Cloud")
    version = server.ask("admin/version", None, timeout)
    if not isinstance(version, str) or not re.match(r"\d+\.", version):
        raise server.stranger()
    return Found(shown(api), version, server.fits("prefect", version))


def _has_login_elsewhere() -> bool:
    """Whether there is a login where only Prefect looks: a profile, ``prefect.toml``, ``pyproject.toml`` or ``.env``."""
    home = os.environ.get("PREFECT_HOME")
    files = [Path("prefect.toml"), Path("pyproject.toml"), Path(".env"), *([Path(home, "profiles.toml")] if home else [])]
    for file in files:
        with suppress(OSError, UnicodeDecodeError):
            if _LOGIN.search(file.read_text(encoding="utf-8")):
                return True
    return False


def ask_prefect(api: str, path: str, body: Mapping[str, Any], timeout: float = PATIENCE) -> Any:
    """Send one query to Prefect's API. Raises `MeguError`."""
    return _Prefect(api).ask(path, body, timeout)


class _Server:
    """One server and how to query it. variable: the environment variable that specifies it."""

    title = variable = example = login = without = ""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        try:
            sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            sound = False
        if not sound:
            raise MeguError(
                f"{self.variable}={shown(address)} is not the address of a server", f"export {self.variable}={self.example}"
            )
        self.own_login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
        self.url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))

    def headers(self) -> dict[str, str]:
        raise NotImplementedError

    def context(self) -> ssl.SSLContext | None:
        raise NotImplementedError

    def ask(self, path: str, body: Mapping[str, Any] | None, timeout: float) -> Any:
        """Return the JSON that the server answers, or the text if it is not JSON; POST if there is a body. Raises `MeguError`."""
        head = {"Content-Type": "application/json", "User-Agent": "megu"} | self.headers()
        if self.own_login:
            head["Authorization"] = _basic(self.own_login)
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data, head)
        try:
            with urllib.request.urlopen(request, timeout=timeout, context=self.context()) as answer:
                text = answer.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            raise self.refusal(error) from None
        except (OSError, ValueError) as error:
            why = _in_words(error, timeout)
            raise MeguError(f"no {self.title} server answers at {self.url} ({self.variable}): {why}", self.without) from None
        try:
            return json.loads(text)
        except ValueError:
            return text

    def refusal(self, error: urllib.error.HTTPError) -> MeguError:
        said = error.read(2000).decode(errors="replace")
        if "Invalid Host header" in said:
            host = urlsplit(self.url).netloc
            return MeguError(
                f"the {self.title} server at {self.url} does not accept the host name {host} (403: Invalid Host header)",
                f"start it with --allowed-hosts {host}",
            )
        if error.code in (401, 403):
            return MeguError(f"the {self.title} server at {self.url} refuses the login ({error.code})", self.login)
        if error.code >= 500:
            return MeguError(f"the {self.title} server at {self.url} fails ({error.code})", "read its log")
        return self.stranger()

    def stranger(self) -> MeguError:
        return MeguError(
            f"what answers at {self.url} ({self.variable}) is not {self.title}'s API", f"export {self.variable}={self.example}"
        )

    def fits(self, package: str, version: str) -> str:
        """Return what is not quite right with the server's version; empty if nothing is. Raises `MeguError` for an incompatible one."""
        from packaging.version import InvalidVersion, Version

        try:
            own, other = Version(metadata.version(package)), Version(version)
        except (metadata.PackageNotFoundError, InvalidVersion):
            return ""
        if own.major != other.major:
            raise MeguError(
                f"the {self.title} server at {self.url} is {version}, and {own} is installed here: they do not fit",
                f"install {self.title} {own.major} there, or set {self.variable} to a server that has it",
            )
        older = other.release[:2] < own.release[:2]
        return f"older than the {own} that is installed here" if older else ""


class _Prefect(_Server):
    title, variable, example = "Prefect", PREFECT, "http://HOST:4200/api"
    login = "export PREFECT_API_AUTH_STRING=USER:PASSWORD as the server has it (Prefect Cloud: PREFECT_API_KEY)"
    without = f"start it, or unset {PREFECT}"

    def headers(self) -> dict[str, str]:
        found: dict[str, str] = {}
        try:
            custom = json.loads(os.environ.get("PREFECT_CLIENT_CUSTOM_HEADERS") or "{}")
            found |= {str(name): str(value) for name, value in custom.items()}
        except (ValueError, AttributeError):
            raise MeguError(
                "PREFECT_CLIENT_CUSTOM_HEADERS is not a JSON object",
                """export PREFECT_CLIENT_CUSTOM_HEADERS='{"NAME": "VALUE"}'""",
            ) from None
        if login := os.environ.get("PREFECT_API_AUTH_STRING"):
            found["Authorization"] = _basic(login)
        if key := os.environ.get("PREFECT_API_KEY"):
            found["Authorization"] = f"Bearer {key}"
        return found

    def context(self) -> ssl.SSLContext | None:
        return _context(self.url, _true("PREFECT_API_TLS_INSECURE_SKIP_VERIFY"), os.environ.get("PREFECT_API_SSL_CERT_FILE"))


# --- MLflow ------------------------------------------------------------------------------------------------------------------


def mlflow(uri: str, timeout: float = PATIENCE) -> Found:
    """Query the MLflow server or database at ``uri``. Raises `MeguError` when it cannot be used."""
    scheme, separator, _ = uri.partition("://")
    kind = scheme.split("+")[0]
    if kind in ("http", "https"):
        return _mlflow_server(uri, timeout)
    if kind == "sqlite":
        return _sqlite(uri)
    if kind in _DRIVERS:
        return _sql_server(uri, kind, timeout)
    if kind == "file" or (not separator and uri not in ("databricks", "databricks-uc")):
        if not _true("MLFLOW_ALLOW_FILE_STORE"):
            raise MeguError(
                f"{MLFLOW}={uri} is a folder, and this MLflow keeps runs in a database or on a server only",
                f"unset {MLFLOW} to use the project's own, or export {MLFLOW}=sqlite:////FOLDER/mlflow.db",
            )
        return Found(uri, "a folder")
    return Found(shown(uri), "", "not checked: only MLflow knows how to connect to it")


def _mlflow_server(uri: str, timeout: float) -> Found:
    server = _Mlflow(uri)
    version = server.ask("version", None, timeout)
    # Version and health are public, under any host name and without a login: what counts is whether it lists experiments.
    if not (
        os.environ.get("MLFLOW_TRACKING_AUTH") or os.environ.get("MLFLOW_TRACKING_AWS_SIGV4")
    ):  # the client signs in by other means
        experiments = server.ask("api/2.0/mlflow/experiments/search", {"max_results": 1}, timeout)
        if not isinstance(experiments, dict):
            raise server.stranger()
    if not isinstance(version, str) or not re.match(r"\d+\.", version):
        raise server.stranger()
    return Found(shown(uri), version, server.fits("mlflow", version))


class _Mlflow(_Server):
    title, variable, example = "MLflow", MLFLOW, "http://HOST:5000"
    login = "export MLFLOW_TRACKING_USERNAME=USER MLFLOW_TRACKING_PASSWORD=PASSWORD, or MLFLOW_TRACKING_TOKEN"
    without = f"start it, or unset {MLFLOW} to use the project's own database"

    def headers(self) -> dict[str, str]:
        file = ConfigParser()
        with suppress(ConfigError, UnicodeDecodeError, OSError, RuntimeError):  # MLflow will report what is wrong with it
            file.read(Path("~/.mlflow/credentials").expanduser(), encoding="utf-8")
        section = file["mlflow"] if file.has_section("mlflow") else {}
        user, password = (
            os.environ.get(name) or section.get(name.lower())
            for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
        )
        if user and password:
            return {"Authorization": _basic(f"{user}:{password}")}
        token = os.environ.get("MLFLOW_TRACKING_TOKEN")
        return {"Authorization": f"Bearer {token}"} if token else {}

    def context(self) -> ssl.SSLContext | None:
        return _context(self.url, _true("MLFLOW_TRACKING_INSECURE_TLS"), os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))


def _sqlite(uri: str) -> Found:
    from megu.core.files.writable import refuse_unwritable
    from megu.servers import databases as creation

    path = Path(uri.split("///", 1)[-1].partition("?")[0])
    if not creation.usable(creation.MLFLOW, path):
        refuse_unwritable(path.parent)
        return Found(uri, "a database", "the first run makes it")
    return Found(uri, "a database")


def _sql_server(uri: str, kind: str, timeout: float) -> Found:
    dialect = uri.partition("://")[0]
    driver, port = _DRIVERS[kind]
    driver = {"pymysql": "pymysql", "psycopg": "psycopg"}.get(dialect.partition("+")[2], driver)
    parts = urlsplit(uri.replace(dialect, kind, 1))
    if util.find_spec(driver) is None:
        package = {"psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}.get(driver, driver)
        raise MeguError(
            f"{MLFLOW} names {shown(uri)}, whose driver {driver} is not installed", f"python -m pip install {package}"
        )
    try:
        socket.create_connection((parts.hostname or "localhost", parts.port or port), timeout).close()
    except (OSError, ValueError) as error:
        why = _in_words(error, timeout)
        raise MeguError(f"no database answers at {shown(uri)} ({MLFLOW}): {why}", _Mlflow.without) from None
    return Found(shown(uri), "a database", "its login was not tried")


# --- shared ------------------------------------------------------------------------------------------------------------------


def _basic(login: str) -> str:
    return f"Basic {base64.b64encode(login.encode()).decode()}"


def _true(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "t", "yes", "y", "on")


def _context(url: str, unverified: bool, certificates: str | None) -> ssl.SSLContext | None:
    if not url.startswith("https"):
        return None
    try:
        context = ssl.create_default_context(cafile=certificates or _bundle())
    except OSError as error:
        raise MeguError(
            f"the certificates {certificates} cannot be read ({error.strerror})", "specify a readable PEM file"
        ) from None
    if unverified:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _bundle() -> str | None:
    """Return the certificate authorities that both clients trust, if they are installed; else the system's."""
    spec = util.find_spec("certifi")
    path = Path(spec.origin).parent / "cacert.pem" if spec and spec.origin else None
    return str(path) if path and path.is_file() else None


def _in_words(error: BaseException, timeout: float) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return f"no answer in {timeout:.0f} s"
    said = getattr(reason, "strerror", None) or reason
    return " ".join(str(said).split())[:200] or type(error).__name__
