"""A labeler that queries a model: what is known about the model, whether it can be queried, and what that will cost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from megu.config.tree import Config
from megu.core.errors import MeguError
from megu.core.progress import stages
from megu.core.project import Project
from megu.data import arrays
from megu.labeling.ollama import answer_store as answers
from megu.labeling.ollama import strategies
from megu.labeling.ollama.params import OllamaParams
from megu.labeling.ollama.prompts import load
from megu.labeling.ollama.server import Server, address
from tasks.dataset import DATASET
from tasks.ollama import OLLAMA, OLLAMA_APART, own_prompts
from tasks.run import inputs
from tasks.run.engine import Planner

#: Assumed seconds for each call until one was measured: a GPU takes 0.5 to 1.5, two CPU cores over a minute.
ASSUMED_S = 1.0


@dataclass(frozen=True)
class ModelVersion:
    """What a model's tag points to. digest: empty if unknown. problem: why the server could not tell; digest is then the server's last
    answer, at ``seen``.
    """

    digest: str
    problem: MeguError | None = None
    seen: str = ""


def model_version(project: Project, params: OllamaParams) -> ModelVersion:
    """Ask the server, or recall its last answer: a tag moves, and cached similarity scores belong to a digest."""
    try:
        found = Server(params.model, params.connection).find()
        problem = None if found else MeguError(f"the Ollama server has no model {params.model}", f"ollama pull {params.model}")
    except MeguError as error:
        found, problem = None, error
    if found:
        answers.remember(project.answers, params.model, found.digest, datetime.now(UTC).isoformat(timespec="minutes"))
        return ModelVersion(found.digest)
    last = answers.last_seen(project.answers, params.model) or {"digest": "", "seen": ""}
    return ModelVersion(last["digest"], problem, last["seen"])


def arguments(project: Project, params: OllamaParams, model: ModelVersion) -> dict[str, Any]:
    """Return the arguments of `tasks.ollama.OLLAMA` except the data set."""
    prompts = load(own_prompts(project, params.connection)).hashes
    return {"judging": params.judging, "digest": model.digest, "prompts": prompts, "connection": params.connection}


def query(project: Project, config: Config) -> dict[str, Any]:
    """As `arguments`, for the model that the labeler's tag points to now."""
    params: OllamaParams = config.labeling.params
    return arguments(project, params, model_version(project, params))


def query_subclasses(project: Project, config: Config) -> dict[str, Any]:
    return {**query(project, config), "apart": inputs.subclasses(config)}


def ready(project: Project, config: Config) -> None:
    """Raise `MeguError` when the similarity scores are not cached and the model cannot be queried. No other labeler takes its place."""
    params = config.labeling.params
    model = model_version(project, params)
    planner = Planner(project)
    data = planner(DATASET, **inputs.dataset(project, config))
    found = arguments(project, params, model)
    planner(OLLAMA, label="labeling", data=data, **found)
    hit = planner.decisions[-1].hit
    if apart := inputs.subclasses(config):
        planner(OLLAMA_APART, label="labeling apart", data=data, apart=apart, **found)
        hit = hit and planner.decisions[-1].hit
    if model.problem and (hit or all_answered(project, config, model)):
        what = "the labeling" if hit else "every answer"
        stages().note(f"{model.problem.what}: {what} is cached ({params.model}, {model.digest[:12]}…, last seen {model.seen})")
    elif not hit:
        try:
            Server(params.model, params.connection).ready()
        except MeguError as error:
            raise answers.Answers(project.answers, model.digest).keeping(error) if model.digest else error from None


def all_answered(project: Project, config: Config, model: ModelVersion) -> bool:
    """Whether the similarity scores can be computed from cached answers alone, as after a change of the code that reads them."""
    from megu.labeling import ask_about
    from megu.labeling.ollama.labeler import OllamaLabeler, Unanswered

    params: OllamaParams = config.labeling.params
    folder = project.data(config.data.name)
    if not model.digest or not (folder / "meta.json").is_file():
        return False
    prompts = load(own_prompts(project, params.connection))
    labeler = OllamaLabeler(params.judging, prompts, model.digest, project.answers, ask=False)
    try:
        loaded = arrays.limited(arrays.load(folder), config.data.per_class)
        for judged in inputs.to_label(loaded, config):
            labeler.judge(ask_about(judged, params.exemplars, params.references, params.seed))
    except Unanswered:
        return False
    return True


@dataclass(frozen=True)
class Cost:
    """The cost of querying. calls, minutes: at most; None if the data set is not here to count its classes. seconds_a_call:
    measured on cached answers of this model, or assumed.
    """

    strategy: str
    calls: int | None
    minutes: float | None
    seconds_a_call: float
    measured: bool

    def to_json(self) -> dict[str, Any]:
        return {"strategy": self.strategy, "calls": self.calls, "minutes": self.minutes}

    def describe(self) -> str:
        if self.calls is None:
            return f"labeling: {self.strategy}; the number of questions is known once the data set is here: megu data fetch"
        if not self.calls:
            return f"labeling: {self.strategy}, cached: nothing is asked"
        source = "as measured" if self.measured else "assumed; two CPU cores take over a minute"
        return (
            f"labeling: {self.strategy}, at most {self.calls:,} questions, about {self.minutes:,.1f} minutes "
            f"({self.seconds_a_call:.2g} s a question, {source})"
        )


def cost(project: Project, config: Config, hit: bool) -> Cost | None:
    """Return the cost of a configuration's labeler; None for one that queries nothing. hit: its similarity scores are cached.

    Raises `MeguError` if it would have to query an invalid address; no server is contacted here.
    """
    if config.labeling.kind != "ollama":
        return None
    params: OllamaParams = config.labeling.params
    last = answers.last_seen(project.answers, params.model)
    measured = answers.Answers(project.answers, last["digest"]).seconds_a_call() if last else None
    seconds = ASSUMED_S if measured is None else measured
    calls: int | None = 0
    if not hit:
        address(params.connection.host)
        classes = number_of_classes(project, config.data.name)
        calls = classes and strategies.calls(
            params.strategy, classes, params.exemplars, params.candidates, params.sample, params.depth
        )
    minutes = None if calls is None else round(calls * seconds / params.concurrency / 60, 2)
    return Cost(params.strategy, calls, minutes, seconds, measured is not None)


def number_of_classes(project: Project, name: str) -> int | None:
    """Return the number of classes of a data set that is here, or of one that is known by name."""
    from megu.data.sources.downloads import CLASSES

    try:
        return len(json.loads((project.data(name) / "meta.json").read_text(encoding="utf-8"))["classes"])
    except (OSError, ValueError, KeyError, TypeError):
        return len(CLASSES[name]) if name in CLASSES else None
