"""What is registered in the MLflow registry, under which name, who approves, and who is told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from megu.core.errors import MeguError
from megu.core.params import STRICT, check
from megu.lineage.champions import CHAMPION, PREVIOUS


@dataclass(frozen=True, kw_only=True)
class RegistryParams:
    """enabled: whether the unlearned model is registered; ``megu process`` needs it.
    name: the registered model, and the MLflow experiment.
    alias: given to the new version.
    """

    __pydantic_config__ = STRICT

    enabled: bool = True
    name: str = "megu"
    alias: str = "challenger"

    def __post_init__(self) -> None:
        for key in ("name", "alias"):
            value = getattr(self, key)
            check(key, value, bool(value) and not set(value) & set("/:@"), "a name without / : @")
        moved = self.alias in (CHAMPION, PREVIOUS)
        check("alias", self.alias, not moved, f"another than {CHAMPION} and {PREVIOUS}, which `megu promote` moves")

    def required(self) -> None:
        """Raise `MeguError` where requests cannot be processed: what fulfils one is a version that becomes the champion."""
        if not self.enabled:
            raise MeguError(
                "registry.enabled is false, and a request is fulfilled by a registered version that becomes the champion",
                "set registry.enabled: true; `megu run` unlearns without a registry, and megu then follows no request",
            )


#: Who approves. "person": someone by name, always. "automatic": the policy itself where the gate says "pass", else a person.
POLICIES = ("person", "automatic")
#: An address that an environment variable holds, since it is a secret: ``$TEAM_HOOK``.
NAMED = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class PromotionParams:
    """policy: one of `POLICIES`. served: the URL of the server that serves the champion (MLflow's scoring protocol). webhook: the URL that a
    promotion is told to. Of both, ``$NAME`` is the environment variable NAME, and None is none.
    """

    __pydantic_config__ = STRICT

    policy: str = "person"
    served: str | None = None
    webhook: str | None = None

    def __post_init__(self) -> None:
        check("policy", self.policy, self.policy in POLICIES, " or ".join(POLICIES))
        for key in ("served", "webhook"):
            value = getattr(self, key)
            check(key, value, value is None or bool(NAMED.fullmatch(value)) or is_address(value), ADDRESS)


ADDRESS = "an http or https URL without a login, or $NAME for an environment variable that has one"


def is_address(url: str) -> bool:
    """Whether a text is an http or https URL that holds no login."""
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
        ) and url.isprintable()
    except ValueError:
        return False
