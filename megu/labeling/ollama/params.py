"""The parameters of the Ollama labeler: those that determine an answer, and those that reach the server."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from megu.core.params import STRICT, Means, check
from megu.labeling.protocol import Kind

#: How the server parses a duration: seconds, or numbers with their units.
_SECONDS = re.compile("-?[0-9]+")
_DURATION = re.compile(r"[-+]?(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+")

#: The sanity measures, each with its limit; `override` names those that may miss it.
MEASURES = ("answered", "own", "symmetry", "repeat", "position")


@dataclass(frozen=True, kw_only=True)
class Judging:
    """What determines the answers, and so is the key of a cached matrix.

    model: a vision model's tag on the server; the digest behind it is what counts.
    strategy: "pairwise" (the paper's: every exemplar, every class), "ranked" (one question an exemplar) or "screened" (ranked, then
        True or False on the best candidates).
    exemplars: images compared per class (the paper's n).
    references: images per class to show as examples.
    candidates: classes that each class is compared with after screening, itself included (m).
    depth: classes that a ranked answer names.
    reasons: whether a ranked answer also gives its reason in a few words; costs tokens and does not change the scores.
    image_size: side length in pixels of the images that the model sees.
    seed: chooses the images and their order; separate from the run's seed.
    num_ctx: the smallest context to request, in tokens; raised where the longest question needs more.
    descriptions: explanations of classes for the model, by class name: {sea: a seascape}.
    sample: questions asked again in another form, to measure sanity (`megu.labeling.ollama.sanity`).
    min_answered: floor: share of usable answers.
    min_own: floor: share of exemplars whose own class is confirmed.
    min_symmetry: floor: rank correlation of the matrix with its transpose.
    min_repeat: floor: share of answers that stay the same when asked again in another form.
    max_position: ceiling: share of answers that depend on the position of a choice.
    override: measures that may miss their limit: answered, own, symmetry, repeat, position.
    """

    __pydantic_config__ = STRICT

    model: str = "gemma3:4b"
    strategy: Literal["pairwise", "ranked", "screened"] = "screened"
    exemplars: int = 10
    references: int = 4
    candidates: int = 10
    depth: int = 5
    reasons: bool = False
    image_size: int = 224
    seed: int = 0
    num_ctx: int = 8192
    descriptions: Mapping[str, str] = field(default_factory=dict)
    sample: int = 20
    min_answered: float = 0.8
    min_own: float = 0.5
    min_symmetry: float = 0.1
    min_repeat: float = 0.6
    max_position: float = 0.3
    override: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        holds = bool(self.model) and self.model.isprintable() and not any(sign.isspace() for sign in self.model)
        check("model", self.model, holds and len(self.model) <= 200, "a model's tag, such as gemma3:4b")
        check("exemplars", self.exemplars, 1 <= self.exemplars <= 10_000, "between 1 and 10000")
        check("references", self.references, 2 <= self.references <= 100, "between 2 and 100")
        check("candidates", self.candidates, 2 <= self.candidates <= 10_000, "between 2 and 10000")
        check("depth", self.depth, 1 <= self.depth <= 20, "between 1 and 20")
        # Vision models have crashed on images of 28 to 32 pixels.
        check("image_size", self.image_size, 224 <= self.image_size <= 2048, "between 224 and 2048")
        check("num_ctx", self.num_ctx, 1024 <= self.num_ctx <= 2**20, "between 1024 and 1048576")
        check("sample", self.sample, 2 <= self.sample <= 10_000, "between 2 and 10000")
        for name in ("min_answered", "min_own", "min_repeat", "max_position"):
            check(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "between 0 and 1")
        check("min_symmetry", self.min_symmetry, -1 <= self.min_symmetry <= 1, "between -1 and 1")
        unknown = [name for name in self.override if name not in MEASURES]
        check("override", self.override, not unknown, f"some of {', '.join(MEASURES)}")


@dataclass(frozen=True, kw_only=True)
class Connection(Means):
    """How the server is reached. None of it determines an answer: no question is asked again after a change.

    host: the server's address; null means ``$OLLAMA_HOST``, else 127.0.0.1:11434. http://host without a port means 80.
    concurrency: questions in flight; those beyond the server's ``OLLAMA_NUM_PARALLEL`` (1 unless set) only wait there.
    load_timeout: seconds to wait for the model to load.
    call_timeout: seconds to wait for an answer.
    retries: how often to repeat a call that failed in transit.
    backoff: seconds before the first retry, doubled each time.
    keep_alive: how long the server keeps the model loaded.
    allow_remote: whether images may leave this machine.
    prompts: a folder with your own system.txt, pairwise.txt or ranked.txt; their content determines the answers, their location does
        not.
    """

    host: str | None = None
    concurrency: int = 1
    load_timeout: float = 300.0
    call_timeout: float = 120.0
    retries: int = 6
    backoff: float = 1.0
    keep_alive: str = "30m"
    allow_remote: bool = False
    prompts: str | None = None

    def __post_init__(self) -> None:
        check("concurrency", self.concurrency, 1 <= self.concurrency <= 64, "between 1 and 64")
        check("load_timeout", self.load_timeout, 0 < self.load_timeout <= 86_400, "above 0 and at most 86400")
        check("call_timeout", self.call_timeout, 0 < self.call_timeout <= 86_400, "above 0 and at most 86400")
        check("retries", self.retries, 0 <= self.retries <= 100, "between 0 and 100")
        check("backoff", self.backoff, 0 <= self.backoff <= 60, "between 0 and 60")
        holds = bool(_SECONDS.fullmatch(self.keep_alive) or _DURATION.fullmatch(self.keep_alive))
        check("keep_alive", self.keep_alive, holds, "a duration, such as 30m, 1h30m or -1")

    @property
    def keep_loaded(self) -> int | str:
        """`keep_alive` as it is sent: the server accepts seconds as a number, and text only with a unit."""
        return int(self.keep_alive) if _SECONDS.fullmatch(self.keep_alive) else self.keep_alive


@dataclass(frozen=True, kw_only=True)
class OllamaParams(Judging, Connection):
    """Both groups of parameters as one section of the configuration."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        Judging.__post_init__(self)
        Connection.__post_init__(self)

    @property
    def judging(self) -> Judging:
        return Judging(**{entry.name: getattr(self, entry.name) for entry in dataclasses.fields(Judging)})

    @property
    def connection(self) -> Connection:
        return Connection(**{entry.name: getattr(self, entry.name) for entry in dataclasses.fields(Connection)})


KIND = Kind(OllamaParams, None)
