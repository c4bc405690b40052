"""Whether an error is an outage: a server, the network, a database or the disk is unavailable, whatever the request was.

An outage is recognised by the kind of error, never by how many things fail. The libraries that raise these errors are not imported
here: a program that never used a library has none of its errors.
"""

from __future__ import annotations

import errno
import re

from megu.core.errors import Outage, chain

_DISK_AND_NETWORK = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOLCK, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
}
#: Module (and its submodules), class: all errors of a library that mean that nobody answered, or that a database is unavailable.
_AWAY = {
    ("httpx", "TransportError"),
    ("httpcore", "NetworkError"),
    ("httpcore", "TimeoutException"),
    ("requests", "ConnectionError"),
    ("requests", "Timeout"),
    ("urllib3", "HTTPError"),
    ("ollama", "ResponseError"),
    ("sqlalchemy", "OperationalError"),
    ("sqlalchemy", "InterfaceError"),
    ("sqlalchemy", "TimeoutError"),
    ("sqlite3", "OperationalError"),
}
#: Status codes of servers that answered: busy, failing, or refusing the client.
_STATUS = {401, 403, 407, 408, 429}
#: Messages that Prefect and MLflow raise without a specific exception class.
_SAID = re.compile(
    r"ephemeral Prefect API server|Failed to reach API at|API request to \S+ failed with (exception|error code (5\d\d|429|401|403))"
)


def is_outage(error: BaseException) -> bool:
    """Whether an error, or one of its causes, is an outage."""
    return any(_is_outage(found) for found in chain(error))


def _is_outage(error: BaseException) -> bool:
    if isinstance(error, (Outage, ConnectionError, TimeoutError)):
        return True
    if isinstance(error, OSError) and error.errno in _DISK_AND_NETWORK:
        return True
    if any((kind.__module__.partition(".")[0], kind.__name__) in _AWAY for kind in type(error).__mro__):
        return True
    if type(error).__module__.startswith(("httpx", "prefect")):
        status = getattr(getattr(error, "response", None), "status_code", 0)
        if status >= 500 or status in _STATUS:
            return True
    return bool(type(error).__module__.startswith(("mlflow", "prefect", "builtins")) and _SAID.search(str(error)))
