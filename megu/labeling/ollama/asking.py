"""Asking many questions: a few at once, again where that can help, each answer kept the moment it is there."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import ollama

from megu.errors import MeguError
from megu.labeling.ollama import answers as reading
from megu.labeling.ollama.answers import Reply, Unusable
from megu.labeling.ollama.kept import Answer, Answers
from megu.labeling.ollama.questions import TOP_LOGPROBS, Asked, Questions
from megu.labeling.ollama.server import Model, Server, explained
from megu.progress import Advance

#: Seconds between two looks at the model's digest, and the longest wait between two tries.
CHECK_S, LONGEST_WAIT_S = 20.0, 30.0


class Stopped(Exception):
    """Another question failed for good; this one was not asked."""


@dataclass(frozen=True)
class Asking:
    """One model being asked: everything that a worker needs, shared by all of them."""

    server: Server
    model: Model
    questions: Questions
    answers: Answers

    def all(self, asked: Sequence[Asked], advance: Advance) -> None:
        """Ask what has no answer yet. Returns when all are answered.

        Raises `MeguError` when one cannot be, or when the model behind the tag changed; what was answered till then stays.
        """
        waiting: queue.SimpleQueue[Asked] = queue.SimpleQueue()
        new = list(dict.fromkeys(entry for entry in asked if entry.key not in self.answers))
        for entry in new:
            waiting.put(entry)
        done: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        stop, failures = threading.Event(), list[BaseException]()
        with self.server.client(self.server.connection.call_timeout) as client:

            def work() -> None:
                try:
                    while not stop.is_set():
                        entry = waiting.get_nowait()
                        self.answers.put(entry.key, self._answer(client, entry, stop))
                        done.put(entry.key)
                except (queue.Empty, Stopped):
                    pass
                except BaseException as error:
                    failures.append(error)
                    stop.set()
                finally:
                    done.put(None)

            workers = [
                threading.Thread(target=work, name=f"ollama-{number}", daemon=True)
                for number in range(min(self.server.connection.concurrency, len(new)))
            ]
            with _stopping(stop):
                for worker in workers:
                    worker.start()
                self._watch(done, len(workers), advance)
        if failures:
            raise self._in_words(failures[0]) from failures[0]

    def _watch(self, done: queue.SimpleQueue[str | None], workers: int, advance: Advance) -> None:
        """Count the answers as they come, and look now and then whether the model is still the same."""
        unsure: list[str] = []
        checked = time.monotonic()
        while workers:
            key = done.get()
            if key is None:
                workers -= 1
            else:
                unsure.append(key)
                advance(1)
            if unsure and (not workers or time.monotonic() - checked > CHECK_S):
                self._same_model(unsure, last=not workers)
                unsure, checked = [], time.monotonic()

    def _same_model(self, unsure: Sequence[str], *, last: bool) -> None:
        """Raises `MeguError`, taking back the answers since the last look, when the tag points elsewhere now."""
        try:
            now = self.server.find()
        except MeguError:
            if last:
                raise
            return  # whether the server is gone is for the questions to find out; the next look will tell
        if now is None or now.digest != self.model.digest:
            self.answers.void(unsure)
            found = f"{now.digest[:12]}…" if now else "gone"
            raise MeguError(
                f"{self.model.name} changed while it was asked: its digest was {self.model.digest[:12]}…, is {found}; "
                f"the last {len(unsure)} answers were dropped, {len(self.answers)} of the former model are kept",
                "run again with the model that you want",
            )

    def _answer(self, client: ollama.Client, asked: Asked, stop: threading.Event) -> Answer:
        """The answer to one question: a first try, a second after an unusable answer, then an abstention."""
        started, retried, reason = time.perf_counter(), 0, ""
        prompt_tokens = tokens = 0
        for again in (0, 1):
            reply, failed = self._reply(client, asked, second=bool(again), stop=stop)
            retried += failed
            prompt_tokens += reply.prompt_tokens or 0
            tokens += reply.tokens
            cost: dict[str, Any] = {"again": again, "retried": retried, "prompt_tokens": prompt_tokens, "tokens": tokens}
            try:
                value, how, first = self._read(asked, reply)
            except Unusable as unusable:
                reason = str(unusable)
                continue
            return Answer(value, how, "", seconds=round(time.perf_counter() - started, 4), first=first, **cost)
        return Answer(None, "", reason, seconds=round(time.perf_counter() - started, 4), **cost)

    def _read(self, asked: Asked, reply: Reply) -> tuple[float | list[int], str, int]:
        value = reading.checked(reply, self._characters(asked))
        if asked.concept is not None:
            score, how = reading.read_pair(value, reply.logprobs)
            return score, how, -1
        choices = self.questions.choices(asked)
        order = reading.read_ranked(value, self.questions.places, self.questions.own(asked.exemplar))
        return order, "ranked", choices.index(self.questions.names[order[0]])

    def _characters(self, asked: Asked) -> int:
        return sum(len(message["content"]) for message in self.questions.messages(asked))

    def _reply(self, client: ollama.Client, asked: Asked, *, second: bool, stop: threading.Event) -> tuple[Reply, int]:
        """One usable HTTP exchange, and how many failed before it."""
        failed = 0
        while True:
            if stop.is_set():
                raise Stopped
            try:
                return _taken(self._chat(client, asked, second)), failed
            except Exception as error:
                allowed = tries(error, self.server.connection.retries)
                if failed >= allowed:
                    raise
                wait = min(self.server.connection.backoff * 2**failed, LONGEST_WAIT_S) * random.uniform(0.5, 1)
                failed += 1
                if stop.wait(wait):
                    raise Stopped from None

    def _chat(self, client: ollama.Client, asked: Asked, second: bool) -> ollama.ChatResponse:
        scored = {"logprobs": True, "top_logprobs": TOP_LOGPROBS} if asked.concept is not None else {}
        return client.chat(  # type: ignore[no-any-return, call-overload]
            self.model.name,
            messages=self.questions.messages(asked),
            stream=False,
            # A model that can think does unless told not to; telling one that cannot is allowed, but why.
            think=False if "thinking" in self.model.capabilities else None,
            format=self.questions.schema(asked),
            options=self.questions.options(asked, second=second),
            keep_alive=self.server.connection.keep_alive,
            **scored,
        )

    def _in_words(self, error: BaseException) -> MeguError | BaseException:
        if not isinstance(error, Exception) or (isinstance(error, OSError) and not isinstance(error, ConnectionError)):
            return error  # a full disk has its own words
        found = explained(error, self.server.url, self.model.name)
        return MeguError(
            f"{found.what}; {len(self.answers)} answers are kept", f"{found.fix}; then run again, it goes on from there"
        )


@contextmanager
def _stopping(stop: threading.Event) -> Iterator[None]:
    """Whatever ends the block, Ctrl-C too, tells the workers to ask no more."""
    try:
        yield
    except BaseException:
        stop.set()
        raise


def tries(error: BaseException, most: int) -> int:
    """How often a call that failed like this may be tried again: never what will fail again, a server's own error once."""
    if isinstance(error, ollama.ResponseError):
        if error.status_code in (-1, 429, 502, 503, 504):
            return most
        return min(1, most) if error.status_code == 500 else 0
    # ValueError: an answer that is no JSON, or not one of Ollama's (a proxy's page, half an answer).
    return most if isinstance(error, (ConnectionError, httpx.TransportError, ValueError)) else 0


def _taken(response: ollama.ChatResponse) -> Reply:
    positions = [
        [(entry.token, entry.logprob) for entry in (position.top_logprobs or [position])]
        for position in response.logprobs or ()
    ]
    return Reply(
        content=response.message.content or "",
        thinking=bool(response.message.thinking),
        done_reason=response.done_reason or "",
        logprobs=positions,
        prompt_tokens=response.prompt_eval_count,
        tokens=response.eval_count or 0,
    )
