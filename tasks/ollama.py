"""How similar the concepts look, by a vision model behind the user's own Ollama."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from megu.core.errors import MeguError
from megu.core.project import Project
from megu.core.stages import Outcome, Result, Stage
from megu.labeling.ollama.params import Connection, Judging
from tasks.run import cached

if TYPE_CHECKING:
    from megu.data.arrays import Dataset


def ask(
    project: Project, data: Result, judging: Judging, digest: str, prompts: Mapping[str, str], connection: Connection
) -> Outcome:
    """digest: of the model. prompts: template -> its hash. Answers are also cached one by one: a stopped run continues from them."""
    return _asked(project, cached.dataset(project, data), judging, digest, prompts, connection)


def ask_subclasses(
    project: Project,
    data: Result,
    judging: Judging,
    digest: str,
    prompts: Mapping[str, str],
    connection: Connection,
    apart: Sequence[str],
) -> Outcome:
    """As `ask`, with the sub-classes ``apart`` as additional concepts."""
    from megu.data.arrays import set_out

    return _asked(project, set_out(cached.dataset(project, data), apart), judging, digest, prompts, connection, apart)


def _asked(
    project: Project,
    dataset: Dataset,
    judging: Judging,
    digest: str,
    prompts: Mapping[str, str],
    connection: Connection,
    apart: Sequence[str] = (),
) -> Outcome:
    from megu.labeling import label
    from megu.labeling.ollama.labeler import OllamaLabeler
    from megu.labeling.ollama.prompts import load

    templates = load(own_prompts(project, connection))
    if templates.hashes != prompts:
        raise MeguError("the prompt templates changed while the run began", "run again")
    labeler = OllamaLabeler(judging, templates, digest, project.answers, connection)
    found, cost = cached.measured(lambda: label(dataset, labeler, judging.exemplars, judging.references, judging.seed), "cpu")
    outcome = cached.labeling_outcome(project, found, apart)
    return replace(outcome, notes={**cost, "asked_now": labeler.new, "record": dict(found.record)})


def own_prompts(project: Project, connection: Connection) -> Path | None:
    """Return the user's templates, relative to the project."""
    return project.root / connection.prompts if connection.prompts else None


def say(result: Result) -> str:
    from megu.labeling.ollama.sanity import summary

    record = result.notes["record"]
    abstained = f", {record['abstained']} abstentions" if record["abstained"] else ""
    return (
        f"{result.values['labeler']['kind']}: {record['asked']:,} answers, {result.notes['asked_now']:,} of them new{abstained}; "
        f"{summary(record['sanity'])}"
    )


OLLAMA = Stage("ollama", "Ask the vision model how similar the concepts look", ask, say)
OLLAMA_APART = Stage("ollama-apart", "Ask the vision model what the sub-classes look like", ask_subclasses, say)
