"""Ask many questions: a few at a time, with retries where they can help, saving each answer as soon as it arrives."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import httpx

from megu.core.errors import MeguError
from megu.core.progress import Advance
from megu.labeling.ollama import answers as reading
from megu.labeling.ollama.answer_store import Answer, Answers
from megu.labeling.ollama.answers import Cut, Reply, Unusable
from megu.labeling.ollama.context import Message, Whole
from megu.labeling.ollama.questions import REASON_LENGTH, TOP_LOGPROBS, Prompt, Questions
from megu.labeling.ollama.server import Model, Server, explained, official

if TYPE_CHECKING:
    import ollama

#: Seconds between two checks of the model's digest, and the longest wait between two tries.
CHECK_S, LONGEST_WAIT_S = 20.0, 30.0


class Stopped(Exception):
    """Another question failed permanently, so this one was not asked."""


@dataclass(frozen=True)
class Asking:
    """One model being asked: everything that the workers need and share. num_ctx: the context to request."""

    server: Server
    model: Model
    questions: Questions
    answers: Answers
    num_ctx: int

    def all(self, asked: Sequence[Prompt], advance: Advance) -> None:
        """Ask every question that has no answer yet. Returns when all are answered.

        Raises `MeguError` when one cannot be answered, or when the model behind the tag changed; earlier answers are kept.
        """
        waiting: queue.SimpleQueue[Prompt] = queue.SimpleQueue()
        new = list(dict.fromkeys(entry for entry in asked if entry.key not in self.answers))
        for entry in new:
            waiting.put(entry)
        done: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        stop, failures = threading.Event(), list[BaseException]()
        with self.server.client(self.server.connection.call_timeout) as client:
            try:
                self._whole.measure(new)
            except Exception as error:
                raise self._in_words(error) from error

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
        """Count the answers as they arrive, and check now and then that the model is still the same."""
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
        """Raise `MeguError` when the tag points elsewhere now, and retract the answers since the last check."""
        try:
            now = self.server.find()
        except MeguError as error:
            if last:
                raise self._in_words(error) from error
            return  # the questions will find out whether the server is gone; the next check tells about the model
        # The questions will also find out that a model is gone; its earlier answers are kept.
        if now is not None and now.digest != self.model.digest:
            self.answers.void(unsure)
            raise MeguError(
                f"{self.model.name} changed while it was asked: its digest was {self.model.digest[:12]}…, is {now.digest[:12]}…; "
                f"the last {len(unsure)} answers were dropped, {len(self.answers)} of the former model are kept",
                "run again with the model that you want",
            )

    def _answer(self, client: ollama.Client, asked: Prompt, stop: threading.Event) -> Answer:
        """Return the answer to one question: after an unusable answer ask once more, then record an abstention."""
        started, retried, reason = time.perf_counter(), 0, ""
        prompt_tokens = tokens = 0
        for again in (0, 1):
            reply, failed = self._reply(client, asked, second=bool(again), stop=stop)
            retried += failed
            prompt_tokens += reply.prompt_tokens or 0
            tokens += reply.tokens
            cost: dict[str, Any] = {"again": again, "retried": retried, "prompt_tokens": prompt_tokens, "tokens": tokens}
            try:
                found = self._read(asked, reply)
            except Unusable as unusable:
                reason = str(unusable)
                continue
            return replace(found, seconds=round(time.perf_counter() - started, 4), **cost)
        return Answer(None, "", reason, seconds=round(time.perf_counter() - started, 4), **cost)

    def _read(self, asked: Prompt, reply: Reply) -> Answer:
        value = reading.checked(reply, self._whole.least(asked))
        if asked.concept is not None:
            score, how = reading.read_pair(value, reply.logprobs)
            return Answer(score, how)
        allowed = {self.questions.names[concept]: concept for concept in asked.choices}
        order = reading.read_ranked(value, allowed, self.questions.own(asked.exemplar))
        because = reading.read_reason(value, REASON_LENGTH) if self.questions.judging.reasons else ""
        return Answer(order, "ranked", first=asked.choices.index(order[0]), because=because)

    @cached_property
    def _whole(self) -> Whole:
        return Whole(self.questions, self._count)

    def _count(self, messages: Sequence[Message]) -> int | None:
        """Return how many tokens the server reads of some messages."""
        with self.server.client(self.server.connection.call_timeout) as client:
            response = self._sent(
                lambda: self._call(client, messages, {"num_predict": 1, "temperature": 0}), threading.Event()
            )[0]
        return response.prompt_eval_count

    def _reply(self, client: ollama.Client, asked: Prompt, *, second: bool, stop: threading.Event) -> tuple[Reply, int]:
        """Return the reply of one usable HTTP exchange, and how many failed before it."""
        response, failed = self._sent(lambda: self._chat(client, asked, second), stop)
        return _taken(response), failed

    def _sent(self, call: Callable[[], ollama.ChatResponse], stop: threading.Event) -> tuple[ollama.ChatResponse, int]:
        """Return what a call returns in the end, and how often it failed before."""
        failed = 0
        while True:
            if stop.is_set():
                raise Stopped
            try:
                return call(), failed
            except Exception as error:
                allowed = tries(error, self.server.connection.retries)
                if failed >= allowed:
                    raise
                wait = min(self.server.connection.backoff * 2**failed, LONGEST_WAIT_S) * random.uniform(0.5, 1)
                failed += 1
                if stop.wait(wait):
                    raise Stopped from None

    def _chat(self, client: ollama.Client, asked: Prompt, second: bool) -> ollama.ChatResponse:
        scored = {"logprobs": True, "top_logprobs": TOP_LOGPROBS} if asked.concept is not None else {}
        options = self.questions.options(asked, second=second)
        return self._call(client, self.questions.messages(asked), options, format=self.questions.schema(asked), **scored)

    def _call(
        self, client: ollama.Client, messages: Sequence[Message], options: Mapping[str, Any], **more: Any
    ) -> ollama.ChatResponse:
        return client.chat(
            self.model.name,
            messages=messages,
            stream=False,
            # A model that can think does so unless told not to; telling one that cannot is allowed, but pointless.
            think=False if "thinking" in self.model.capabilities else None,
            options={**options, "num_ctx": self.num_ctx},
            keep_alive=self.server.connection.keep_loaded,
            **more,
        )

    def _in_words(self, error: BaseException) -> MeguError | BaseException:
        if not isinstance(error, Exception) or (isinstance(error, OSError) and not isinstance(error, ConnectionError)):
            return error  # a full disk has its own message
        found = _cut(error, self.num_ctx) if isinstance(error, Cut) else explained(error, self.server.url, self.model.name)
        return self.answers.keeping(found)


@contextmanager
def _stopping(stop: threading.Event) -> Iterator[None]:
    """Tell the workers to stop asking when the block ends for any reason, Ctrl-C included."""
    try:
        yield
    except BaseException:
        stop.set()
        raise


def _cut(error: Cut, num_ctx: int) -> MeguError:
    return MeguError(
        f"a question was cut: {error} (num_ctx is {num_ctx:,})",
        "raise labeling.num_ctx, and OLLAMA_CONTEXT_LENGTH where the server runs",
    )


def tries(error: BaseException, most: int) -> int:
    """Return how often to retry a call that failed like this: never where it will fail again, once for a server's own error."""
    if isinstance(error, official().ResponseError):
        if error.status_code in (-1, 429, 502, 503, 504):
            return most
        return min(1, most) if error.status_code == 500 else 0
    # ValueError, TypeError: an answer that is not JSON, or not Ollama's (a proxy's page, half an answer).
    return most if isinstance(error, (ConnectionError, httpx.TransportError, ValueError, TypeError)) else 0


def _taken(response: ollama.ChatResponse) -> Reply:
    written = response.logprobs or ()
    # A quote or a blank that the schema forces precedes the answer, and can list a word where the answer's own position lists none.
    answer = [position for position in written if reading.begins(position.token)] or written
    positions = [[(entry.token, entry.logprob) for entry in (position.top_logprobs or [position])] for position in answer]
    return Reply(
        content=response.message.content or "",
        thinking=bool(response.message.thinking),
        done_reason=response.done_reason or "",
        logprobs=positions,
        prompt_tokens=response.prompt_eval_count,
        tokens=response.eval_count or 0,
    )
