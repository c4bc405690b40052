"""Put the questions of a strategy to the model, and turn its answers into similarity scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megu.core.errors import MeguError
from megu.core.progress import stages, track
from megu.labeling.ollama import context, sanity, strategies
from megu.labeling.ollama.answer_store import Answer, Answers
from megu.labeling.ollama.asking import Asking
from megu.labeling.ollama.params import Connection, Judging
from megu.labeling.ollama.prompts import Prompts
from megu.labeling.ollama.questions import PROTOCOL, TOP_LOGPROBS, Prompt, Questions
from megu.labeling.ollama.server import Model, Server
from megu.labeling.protocol import Identity, Judgement, Question


class Unanswered(Exception):
    """A question has no cached answer."""


@dataclass
class OllamaLabeler:
    """judging: what is asked. digest: of the expected model. folder: where answers are cached. connection: how the server is reached.

    ask: False raises `Unanswered` instead of asking, to find out whether the cached answers are enough.
    new: how many questions have been put to the server.
    """

    judging: Judging
    prompts: Prompts
    digest: str
    folder: Path
    connection: Connection = field(default_factory=Connection)
    ask: bool = True
    new: int = 0
    _scoring: str = ""
    _model: Model | None = None
    _num_ctx: int = 0

    @property
    def identity(self) -> Identity:
        """Return the identity; it says how answers were scored only once there are answers."""
        return Identity(
            name=self.judging.model,
            kind=f"multi-modal LLM through Ollama: {self.judging.model}, {self.judging.strategy}{self._scoring}",
            version=f"protocol {PROTOCOL}",
            digest=self.digest,
        )

    def judge(self, question: Question) -> Judgement:
        """Ask whatever has no answer yet.

        Raises `MeguError` when the server, the model or an answer is missing in the end, or when the answers make no sense.
        """
        questions = Questions(question, self.judging, self.prompts, self.digest)
        with Answers(self.folder, self.digest) as answers:
            strategy = {"pairwise": self._pairwise, "ranked": self._ranked, "screened": self._screened}[self.judging.strategy]
            return strategy(questions, answers)

    # --- the three strategies ------------------------------------------------------------------------------------------------

    def _pairwise(self, questions: Questions, answers: Answers) -> Judgement:
        classes, n = len(questions.names), self.judging.exemplars
        pairs = [questions.pair(*pair) for pair in strategies.every_pair(classes, n)]
        again = self._again(questions, pairs)
        self._ask(questions, answers, [*pairs, *again], "ask: True or False")
        q = _q(pairs, answers, classes, n)
        return self._judged(questions, answers, q, pairs, again, [])

    def _ranked(self, questions: Questions, answers: Answers) -> Judgement:
        classes, n, depth = len(questions.names), self.judging.exemplars, self.judging.depth
        ranked = self._rank(questions, answers)
        scores = _ranked_scores(ranked, answers, classes, n, depth)
        # Check that the model recognises what it sees: for some exemplars, is it their own class, and is it the least similar one?
        far = strategies.class_means(scores, n)
        np.fill_diagonal(far, np.inf)
        count = strategies.repeats(classes, n, self.judging.sample)
        some = strategies.spread(range(classes * n), count)
        pairs = [questions.pair(x, concept) for x in some for concept in (x // n, int(far[x // n].argmin()))]
        again = [questions.repeated(asked) for asked in strategies.spread(list(_decisive(ranked).values()), count)]
        self._ask(questions, answers, [*pairs, *again], "ask: sanity")
        return self._judged(questions, answers, strategies.ranked_q(scores, n), pairs, again, ranked)

    def _screened(self, questions: Questions, answers: Answers) -> Judgement:
        classes, n, m = len(questions.names), self.judging.exemplars, self.judging.candidates
        if not strategies.screens(classes, m):
            return self._pairwise(questions, answers)
        ranked = self._rank(questions, answers)
        scores = _ranked_scores(ranked, answers, classes, n, self.judging.depth)
        candidates = strategies.chosen_candidates(strategies.class_means(scores, n), m)
        budget = classes * n * m - strategies.repeats(classes, n, self.judging.sample)
        plausible = strategies.screened_pairs(candidates, n, budget)
        # Ordered by concept: the server caches what questions about the same concept have in common.
        pairs = [questions.pair(*pair) for pair in sorted(plausible, key=lambda pair: (pair[1], pair[0]))]
        again = self._again(questions, pairs)
        self._ask(questions, answers, [*pairs, *again], "ask: True or False")
        q = strategies.with_tail(_q(pairs, answers, classes, n), scores, candidates, n)
        return self._judged(questions, answers, q, pairs, again, ranked)

    def _rank(self, questions: Questions, answers: Answers) -> list[Prompt]:
        """Ask what every exemplar looks most like, in groups of choices and then among the classes named, until one question decides.
        Returns all questions in the order in which they were asked."""
        every: list[Prompt] = []
        now = [questions.ranked(exemplar) for exemplar in range(len(questions.about.exemplar_ids))]
        while now:
            asked = [entry for parts in now for entry in parts]
            self._ask(questions, answers, asked, "ask: most similar")
            every += asked
            named = {
                parts[0].exemplar: [c for entry in parts for c in _named(answers[entry.key])] for parts in now if len(parts) > 1
            }
            now = [questions.ranked(exemplar, among) for exemplar, among in named.items() if among]
        return every

    def _again(self, questions: Questions, pairs: Sequence[Prompt]) -> list[Prompt]:
        """Return some of the pairs with other examples in the other order, half of them about the exemplar's own class."""
        n = self.judging.exemplars
        count = strategies.repeats(len(questions.names), n, self.judging.sample)
        own = strategies.spread([asked for asked in pairs if asked.concept == asked.exemplar // n], (count + 1) // 2)
        others = strategies.spread([asked for asked in pairs if asked.concept != asked.exemplar // n], count // 2)
        return [questions.repeated(asked) for asked in [*own, *others]]

    # --- what they share -----------------------------------------------------------------------------------------------------

    def _ask(self, questions: Questions, answers: Answers, asked: Sequence[Prompt], label: str) -> None:
        new = len({entry.key for entry in asked if entry.key not in answers})
        if not new:
            return
        if not self.ask:
            raise Unanswered
        if new < len(asked):
            stages().note(f"{len(asked) - new:,} of {len(asked):,} answers are already cached")
        server = Server(self.judging.model, self.connection)
        if self._model is None:
            try:
                self._model = self._prepare(server, questions)
            except MeguError as error:
                raise answers.keeping(error) from error
        with track(label, new, "questions") as advance:
            Asking(server, self._model, questions, answers, self._num_ctx).all(asked, advance)
        self.new += new

    def _prepare(self, server: Server, questions: Questions) -> Model:
        """Load the expected model with the context that the questions need."""
        model = server.ready()
        if model.digest != self.digest:
            raise MeguError(
                f"{self.judging.model} is {model.digest[:12]}… now, and was {self.digest[:12]}… a moment ago", "run again"
            )
        self._num_ctx = context.num_ctx(questions, model)
        if self._num_ctx > self.judging.num_ctx:
            stages().note(f"num_ctx is raised to {self._num_ctx:,} tokens: the longest question needs it")
        stages().note(f"loading {self.judging.model} …")
        server.warm_up(self._num_ctx)
        return model

    def _judged(
        self,
        questions: Questions,
        answers: Answers,
        q: NDArray[np.float64],
        pairs: Sequence[Prompt],
        again: Sequence[Prompt],
        ranked: Sequence[Prompt],
    ) -> Judgement:
        """Return the similarity scores with their record, after checking their sanity."""
        classes = np.asarray(questions.about.exemplar_class)
        told = [(asked, answers[asked.key]) for asked in [*ranked, *pairs, *again]]
        reasons = dict(Counter(answer.reason for _, answer in told if answer.value is None).most_common())
        own: dict[int, float | None] = {}
        others: dict[int, list[float]] = {}
        for asked in pairs:
            value = answers[asked.key].value
            if asked.concept == classes[asked.exemplar]:
                own[asked.exemplar] = value if isinstance(value, float) else None
            elif isinstance(value, float):
                others.setdefault(asked.exemplar, []).append(value)
        first = {(asked.exemplar, asked.concept): answers[asked.key] for asked in [*ranked, *pairs]}
        twice = [(first[asked.exemplar, asked.concept], answers[asked.key]) for asked in again]
        S = strategies.class_means(q, self.judging.exemplars)
        every = [answer for _, answer in told]
        measured = sanity.measure(every, own, others, S, twice, [(answers[asked.key], len(asked.choices)) for asked in ranked])
        overridden = sanity.demand(measured, self.judging, reasons)
        how = Counter(answer.how for answer in every if answer.how)
        self._scoring = describe_scoring(how)
        abstained = np.zeros(q.shape, dtype=bool)
        for asked in [*_decisive(ranked).values(), *pairs]:
            if answers[asked.key].value is None:
                abstained[asked.exemplar, slice(None) if asked.concept is None else asked.concept] |= True
        record = {
            **_as_json(self.judging),
            "digest": self.digest,
            "protocol": PROTOCOL,
            "prompts": {name: {"sha256": self.prompts.hashes[name], "text": text} for name, text in self.prompts.texts.items()},
            "options": {kind: questions.options(some[0]) for kind, some in (("ranked", ranked), ("pair", pairs)) if some},
            "scoring": {name: how[name] for name in SCORING if how[name]},
            "asked": len(every),
            "answered": len(every) - sum(reasons.values()),
            "abstained": sum(reasons.values()),
            "reasons": reasons,
            "asked_again": sum(answer.again for answer in every),
            "retried": sum(answer.retried for answer in every),
            "seconds": round(sum(answer.seconds for answer in every), 3),
            "prompt_tokens": sum(answer.prompt_tokens for answer in every),
            "tokens": sum(answer.tokens for answer in every),
            "sanity": measured,
            "overridden": overridden,
            **({"because": _reasons(questions, ranked, answers)} if self.judging.reasons else {}),
        }
        return Judgement(q, abstained, record)


def _as_json(judging: Judging) -> dict[str, Any]:
    values = asdict(judging)
    return {**values, "descriptions": dict(judging.descriptions), "override": list(judging.override)}


def _q(pairs: Sequence[Prompt], answers: Answers, classes: int, exemplars: int) -> NDArray[np.float64]:
    told: dict[tuple[int, int], float | None] = {}
    for asked in pairs:
        value = answers[asked.key].value
        told[asked.exemplar, asked.concept or 0] = value if isinstance(value, float) else None
    return strategies.pair_scores(told, classes, exemplars)


def _ranked_scores(ranked: Sequence[Prompt], answers: Answers, classes: int, n: int, depth: int) -> NDArray[np.float64]:
    told = {exemplar: _named(answers[asked.key]) or None for exemplar, asked in _decisive(ranked).items()}
    return strategies.ranked_scores(told, classes, n, depth)


def _decisive(ranked: Sequence[Prompt]) -> dict[int, Prompt]:
    """Return exemplar -> the last question about it, in which only one group of choices is left."""
    return {asked.exemplar: asked for asked in ranked}


def _reasons(questions: Questions, ranked: Sequence[Prompt], answers: Answers) -> dict[str, list[str]]:
    """Return, by class, the reasons that the model gave for its exemplars, each once."""
    found: dict[str, list[str]] = {}
    for exemplar, asked in _decisive(ranked).items():
        if because := answers[asked.key].because:
            said = found.setdefault(questions.about.concepts[int(questions.about.exemplar_class[exemplar])], [])
            if because not in said:
                said.append(because)
    return found


def _named(answer: Answer) -> list[int]:
    """Return the concepts of a ranked answer; none where it abstained."""
    return answer.value if isinstance(answer.value, list) else []


#: `Answer.how` -> how answers became numbers, in words, and why.
SCORING = {
    "soft": ("soft scores", "read from the log-probabilities"),
    "hard": ("hard 0/1 scores", "the server gave no log-probabilities"),
    "unlisted": ("hard 0/1 scores", f"True and False were not among the {TOP_LOGPROBS} likeliest tokens"),
    "ranked": ("ranked answers", "scored by the order of the classes that they name"),
}


def describe_scoring(how: Mapping[str, int]) -> str:
    """Say how True and False became numbers: from the log-probabilities, or as 0 and 1 and why. how: answers by `Answer.how`."""
    found = {name: how.get(name, 0) for name in ("soft", "hard", "unlisted") if how.get(name, 0)}
    if list(found) == ["soft"]:
        return ", soft scores"
    hard = {name: f" ({SCORING[name][1]})" for name in ("hard", "unlisted")}
    return "".join(f", {count:,} {SCORING[name][0]}{hard.get(name, '')}" for name, count in found.items())


def scoring_lines(how: Mapping[str, int]) -> list[str]:
    """Return one line for each way in which answers became numbers, with the number of answers. how: answers by `Answer.how`."""
    return [f"{how[name]:,} {what}: {why}" for name, (what, why) in SCORING.items() if how.get(name)]
