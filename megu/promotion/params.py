"""What is registered in the MLflow registry and under which name, what is tried until the gate lets a model pass, who approves, and who is
notified."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from megu.core.errors import MeguError
from megu.core.params import STRICT, check
from megu.lineage.promoted.champions import CHAMPION, PREVIOUS


@dataclass(frozen=True, kw_only=True)
class RegistryParams:
    """enabled: whether the unlearned model is registered; ``megu process`` needs this.
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
        check("alias", self.alias, not moved, f"a name other than {CHAMPION} and {PREVIOUS}, which `megu promote` moves")

    def required(self) -> None:
        """Raise `MeguError` where requests cannot be processed: a request is fulfilled by a version that becomes the champion."""
        if not self.enabled:
            raise MeguError(
                "registry.enabled is false, and a request is fulfilled by a registered version that becomes the champion",
                "set registry.enabled: true; `megu run` unlearns without a registry, but then megu tracks no request",
            )


@dataclass(frozen=True, kw_only=True)
class LadderParams:
    """What is tried, one rung after the other, until the gate lets a model pass (`megu.promotion.ladder`).

    when: when the next rung is tried after the gate says no: for "requests" (``megu process``), "always" (``megu run`` too) or "never".
    methods: tried in this order after the configured one; the exact retrain always comes last.
    trials: runs of each method, the first with its parameters unchanged, the others with its main ones drawn.
    hours: for all rungs together, with time reserved for the retrain.
    """

    __pydantic_config__ = STRICT

    when: Literal["requests", "always", "never"] = "requests"
    methods: tuple[str, ...] = ("delete", "scrub")
    trials: int = 3
    hours: float = 24.0

    def __post_init__(self) -> None:
        from megu.unlearning.methods import names

        known = names()
        for name in self.methods:
            near = difflib.get_close_matches(name, known, n=1)
            check(
                "methods", name, name in known, f"a method; did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
            )
            check("methods", name, name != RETRAIN, "left out: the retrain always comes last")
        check("methods", list(self.methods), len(set(self.methods)) == len(self.methods), "a list that names each method once")
        check("trials", self.trials, 1 <= self.trials <= 100, "between 1 and 100")
        check("hours", self.hours, 0 < self.hours <= 10_000, "above 0 and at most 10000")


#: The method of the last rung.
RETRAIN = "retrain"
#: Who approves. "person": someone by name, always. "automatic": the policy itself where the gate says "pass", else a person.
POLICIES = ("person", "automatic")
#: An address that an environment variable holds, since it is a secret: ``$TEAM_HOOK``.
NAMED = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class PromotionParams:
    """policy: who approves: a "person", or "automatic" (the policy itself, where the gate says pass).
    served: the URL of the server that serves the champion (MLflow's scoring protocol); requests then close once it was seen to do so.
    webhook: a URL that is notified of a promotion, as JSON. In both, ``$NAME`` is the environment variable NAME, and null is none.
    """

    __pydantic_config__ = STRICT

    policy: str = "person"
    ladder: LadderParams = field(default_factory=LadderParams)  # torch is imported to check its methods
    served: str | None = None
    webhook: str | None = None

    def __post_init__(self) -> None:
        check("policy", self.policy, self.policy in POLICIES, " or ".join(POLICIES))
        for key in ("served", "webhook"):
            value = getattr(self, key)
            check(key, value, value is None or bool(NAMED.fullmatch(value)) or is_address(value), ADDRESS)


ADDRESS = "an http or https URL without a login, or $NAME for an environment variable that has one"


def is_address(url: str) -> bool:
    """Return whether a text is an http or https URL that holds no login."""
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
        ) and url.isprintable()
    except ValueError:
        return False
