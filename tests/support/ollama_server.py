"""A stand-in for an Ollama server, for tests: real HTTP on a real socket, bodies after those recorded from a real server.

It sees: each answer is computed from the image it was sent, by the prototypes that the embedded labeler uses. By hand::

    python -m tests.support.ollama_server --port 11500 --data fashion-mnist
    megu run --set labeling.kind=ollama --set labeling.host=127.0.0.1:11500
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

RECORDED: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("ollama_responses.json").read_text())
#: Exchanges of a server with a model that takes images; its projector was random, so what it answered means nothing.
VISION: list[dict[str, Any]] = json.loads(Path(__file__).with_name("ollama_vision_exchanges.json").read_text())
#: Tokens that the rule which drops early messages counts for an image.
COUNTED = 768
DIGEST = "a2af6cc3eb7fa8be8504abaf9b04e88f17a119ec3f04a3addf55f92841195f5a"
JSON, STREAM = "application/json; charset=utf-8", "application/x-ndjson"


def recorded(name: str) -> Any:
    """The body of a recorded exchange."""
    return json.loads(RECORDED[name]["body"])


def vision(note: str) -> Any:
    """The body of a recorded exchange with a model that takes images."""
    return next(exchange["body"] for exchange in VISION if exchange["note"].startswith(note))


@dataclass(frozen=True)
class Reply:
    """What goes over the wire. wait: seconds before the headers. cut: bytes of the body after which the connection breaks."""

    body: Any
    status: int = 200
    content_type: str = JSON
    wait: float = 0.0
    cut: int | None = None

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def busy() -> Reply:
    return Reply({"error": "server busy, please try again.  maximum pending requests exceeded"}, 503)


#: A request's number (from 0), and its JSON -> what to answer instead, or None.
Fault = Callable[[int, Mapping[str, Any]], Reply | None]
#: An image -> how much it looks like each concept, (K,), summing to 1.
Sight = Callable[[bytes], np.ndarray[Any, Any]]


@dataclass
class FakeOllama:
    """A server with one model.

    concepts: the names that its sight tells apart, spoken as the labeler speaks them. delay: seconds an answer takes.
    chats: bodies of all questions; loads: of chats without messages; counts: of those that only ask how many tokens a prompt has.
    fault: looks at every question first. logprobs: False gives none. image_tokens: what an image really takes; `COUNTED` is what the rule
    that drops early messages takes it for. context: the most that the model reads, whatever ``num_ctx`` says. cuts_words: whether what does
    not fit then is cut in silence, as recorded of one runner, and not refused, as recorded of the other.
    """

    concepts: Sequence[str]
    sight: Sight
    model: str = "gemma3:4b"
    digest: str = DIGEST
    capabilities: Sequence[str] = ("completion", "vision")
    remote_host: str = ""
    delay: float = 0.0
    load: float = 0.0
    logprobs: bool = True
    fault: Fault | None = None
    image_tokens: int = 256
    context: int = 131072
    cuts_words: bool = False
    bytes_a_token: int = 4
    keep: bool = True
    port: int = 0
    chats: list[dict[str, Any]] = field(default_factory=list)
    loads: list[dict[str, Any]] = field(default_factory=list)
    counts: list[dict[str, Any]] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def count(self) -> int:
        """How many questions were put."""
        return self.asked["/api/chat"] - len(self.loads) - len(self.counts)

    @contextmanager
    def serving(self) -> Iterator[FakeOllama]:
        server = _Http(("127.0.0.1", self.port), _handler(self))
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    # --- what it answers -------------------------------------------------------------------------------------------------------

    def answer(self, path: str, body: dict[str, Any]) -> Reply:
        with self._lock:
            number = self.count
            self.asked[path] += 1
        if path == "/api/version":
            return Reply(recorded("version"))
        if path == "/api/tags":
            return Reply({"models": [self._listed(), *recorded("tags")["models"]]})
        if path == "/api/show":
            return self._show(body)
        if path == "/api/chat":
            return self._chat(number, body)
        return Reply(b"404 page not found", 404, "text/plain")

    def _listed(self) -> dict[str, Any]:
        entry = {**recorded("tags")["models"][0], "name": self.model, "model": self.model, "digest": self.digest}
        return (
            entry | {"capabilities": list(self.capabilities)} | ({"remote_host": self.remote_host} if self.remote_host else {})
        )

    def _missing(self, name: str) -> Reply | None:
        return Reply({"error": f"model '{name}' not found"}, 404) if name != self.model else None

    def _show(self, body: dict[str, Any]) -> Reply:
        told = recorded("show") | {"capabilities": list(self.capabilities)}
        return self._missing(body["model"]) or Reply(told | ({"remote_host": self.remote_host} if self.remote_host else {}))

    def _chat(self, number: int, body: dict[str, Any]) -> Reply:
        wrong = invalid_duration(body.get("keep_alive"))
        missing = Reply({"error": wrong}, 400) if wrong else self._missing(body["model"])
        if missing:
            return missing
        if not body["messages"]:
            with self._lock:
                self.loads.append(body)
            return Reply(recorded("load") | {"model": self.model}, wait=self.load)
        if "format" not in body:
            with self._lock:
                self.counts.append(body)
            return self._refused(body) or self._over_context(body) or Reply(self.reply(body, "I"))
        if self.keep:
            with self._lock:
                self.chats.append(body)
        failed = (self.fault and self.fault(number, body)) or self._refused(body) or self._over_context(body)
        if failed:
            return failed
        images = [base64.b64decode(image) for image in body["messages"][-1]["images"]]
        return Reply(self._said(body, self.sight(images[-1])), wait=self.delay)

    def _refused(self, body: dict[str, Any]) -> Reply | None:
        """What a real server does not take."""
        if not 0 <= body.get("top_logprobs", 0) <= 20:
            return Reply(recorded("chat_toplogprobs_bad"), 400)
        images = [image for message in body["messages"] for image in message.get("images", [])]
        if any(image.startswith("data:") for image in images):
            return Reply(recorded("chat_image_badb64"), 400)
        if images and "vision" not in self.capabilities:
            return Reply(recorded("chat_image_novision"), 400)
        if body.get("think") and "thinking" not in self.capabilities:
            return Reply({"error": f'"{self.model}" does not support thinking'}, 400)
        return None

    def _over_context(self, body: dict[str, Any]) -> Reply | None:
        """Drop early messages that do not fit, as a real server does without a word; what still does not fit is refused."""
        size = min(body.get("options", {}).get("num_ctx", 4096), self.context)
        messages = body["messages"]
        system = [message for message in messages if message["role"] == "system"]
        others = [message for message in messages if message["role"] != "system"]
        while len(others) > 1 and self._tokens([*system, *others], COUNTED) > size:
            others = others[1:]
        body["messages"] = [*system, *others]
        taken = self._tokens(body["messages"], self.image_tokens)
        if taken <= size or self.cuts_words:
            body["read"] = taken if taken <= size else size // 2 + 2
            return None
        told = json.loads(recorded("chat_ctxoverflow_notrunc")["error"])["error"]
        words = f"request ({taken} tokens) exceeds the available context size ({size} tokens), try increasing it"
        return Reply({"error": json.dumps({"error": told | {"message": words, "n_prompt_tokens": taken, "n_ctx": size}})}, 400)

    def _tokens(self, messages: Sequence[Mapping[str, Any]], an_image: int) -> int:
        """Words at four bytes a token, as recorded of English names, and five for what stands around a message."""
        words = sum(len(entry["content"].encode()) // self.bytes_a_token + 5 for entry in messages)
        return words + an_image * sum(len(entry.get("images", ())) for entry in messages)

    def _said(self, body: dict[str, Any], scores: np.ndarray[Any, Any]) -> dict[str, Any]:
        schema = body["format"]
        cut = body.get("read", math.inf) < self._tokens(body["messages"], self.image_tokens)
        if "properties" in schema:
            labels = schema["properties"]["labels"]
            at = {name: scores[self.concepts.index(name)] for name in labels["items"]["enum"]}
            best = sorted(at, key=lambda name: at[name] if cut else -at[name])[: labels["maxItems"]]
            because = {"because": "both are of one shade"} if "because" in schema["properties"] else {}
            return self.reply(body, json.dumps({"labels": best} | because))
        words = body["messages"][-1]["content"]
        concept = words.partition("photo of ")[2].rpartition(", True or False")[0]
        true = float(sureness(scores)[self.concepts.index(concept)])
        if len(body["messages"]) < 6 or cut:  # as seen: without its examples the answer turned
            true = 1 - true
        return self.reply(body, '"True"' if true >= 0.5 else '"False"', true)

    def reply(self, body: Mapping[str, Any], content: str, true: float | None = None, **more: Any) -> dict[str, Any]:
        """A chat answer after the recorded one; with log-probabilities when it is about True and False."""
        answer = recorded("chat_schema") | {"model": self.model, "message": {"role": "assistant", "content": content}}
        answer |= {
            "prompt_eval_count": body.get("read") or self._tokens(body["messages"], self.image_tokens),
            "eval_count": max(len(content) // 3, 1),
        }
        if true is not None and self.logprobs and body.get("logprobs"):
            answer["logprobs"] = scored(true, content)
        return answer | more


def invalid_duration(keep_alive: Any) -> str:
    """What the server says of a ``keep_alive`` that it cannot read, in the words of Go's ``time.ParseDuration``; empty for one that it can.

    A number is seconds; text needs a unit, so a number in quotes is none.
    """
    if not isinstance(keep_alive, str) or keep_alive == "0":
        return ""
    sign, number, unit = r"[-+]?", r"(\d+\.?\d*|\.\d+)", "(ns|us|µs|μs|ms|s|m|h)"
    if re.fullmatch(f"{sign}({number}{unit})+", keep_alive, re.ASCII):
        return ""
    without = re.fullmatch(f"{sign}({number}{unit})*{number}(?P<unit>[^0-9.]*).*", keep_alive, re.ASCII)
    kind = "invalid" if not without else f'unknown unit "{without["unit"]}" in' if without["unit"] else "missing unit in"
    return f'time: {kind} duration "{keep_alive}"'


def sureness(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What a model that sees these shares would answer to "is this a photo of l?": sure where l stands out, not where it is one of many."""
    square = np.square(scores * len(scores) / 1.5)
    return np.clip(square / (square + 1), 1e-4, 1 - 1e-4)


def scored(true: float, content: str) -> list[dict[str, Any]]:
    """Log-probabilities as recorded, of ``"True"`` or ``"False"`` after a quote that the grammar forced."""

    def token(text: str, probability: float) -> dict[str, Any]:
        return {"token": text, "logprob": math.log(max(probability, 1e-12)), "bytes": list(text.encode())}

    # As recorded: the quote first, where one of the words may stand far down the list, then the word, then the quote again.
    first = {**token('"', 0.92), "top_logprobs": [token('"', 0.92), token("This", 0.002), token("False", 0.001)]}
    both = [token("True", 0.99 * true), token("False", 0.99 * (1 - true))]
    both.sort(key=lambda entry: -entry["logprob"])
    word = content.strip('"')
    second = {**token(word, 0.99 * (true if word == "True" else 1 - true)), "top_logprobs": [*both, token("T", 1e-6)]}
    return [first, second, {**token('"', 0.99), "top_logprobs": [token('"', 0.99)]}]


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing to print about."""


def _handler(fake: FakeOllama) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: Any) -> None: ...

        def do_GET(self) -> None:
            self._send(fake.answer(self.path, {}))

        def do_POST(self) -> None:
            began = time.perf_counter()
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with fake._lock:
                fake._at_once += 1
                fake.most_at_once = max(fake.most_at_once, fake._at_once)
                if fake.keep:
                    fake.headers.append(dict(self.headers))
            try:
                reply = fake.answer(self.path, json.loads(raw))
                time.sleep(max(reply.wait - (time.perf_counter() - began), 0))
            finally:
                with fake._lock:
                    fake._at_once -= 1
            self._send(reply)

        def _send(self, reply: Reply) -> None:
            content = reply.content
            head = f"HTTP/1.1 {reply.status} X\r\nContent-Type: {reply.content_type}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            self.wfile.write(head + (content if reply.cut is None else content[: reply.cut]))
            if reply.cut is not None:
                self.close_connection = True

    return Handler


# --- sight -----------------------------------------------------------------------------------------------------------------------


def prototypes(images: np.ndarray[Any, Any], image_size: int = 160) -> Sight:
    """Sight by nearest prototypes, as the embedded labeler has it. images: uint8 (K, P, H, W, C), some known of each concept."""
    import torch
    import torch.nn.functional as F

    from megu.labeling.ollama.questions import Shown
    from megu.labeling.prototype import PrototypeLabeler

    labeler = PrototypeLabeler(image_size=image_size)
    network = labeler._network()
    labeler._network = lambda: network  # type: ignore[method-assign]

    def features(contents: Sequence[bytes]) -> Any:
        return labeler._features(np.stack([_pixels(content) for content in contents]), lambda amount: None)

    classes, count = images.shape[:2]
    known = features([Shown(image, 224).png for image in images.reshape(classes * count, *images.shape[2:])])
    centre = known.mean(dim=0)
    unit = F.normalize(F.normalize(known - centre, dim=1).reshape(classes, count, -1).mean(dim=1), dim=1)
    seen: dict[str, np.ndarray[Any, Any]] = {}
    lock = threading.Lock()

    def look(content: bytes) -> np.ndarray[Any, Any]:
        name = hashlib.sha256(content).hexdigest()
        with lock:
            if name not in seen:
                cosines = F.normalize(features([content]) - centre, dim=1) @ unit.T
                seen[name] = torch.softmax(cosines[0] / labeler.temperature, dim=0).numpy()
        return seen[name]

    return look


def _pixels(content: bytes) -> np.ndarray[Any, Any]:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def brightness(concepts: int) -> Sight:
    """Sight of made-up images that need no network: concept k is the mean brightness 20 + 200·k / K."""

    def look(content: bytes) -> np.ndarray[Any, Any]:
        found = (_pixels(content).mean() - 20) / 200 * concepts
        closeness = np.exp(-np.abs(np.arange(concepts) - found) * 1.2)
        shares: np.ndarray[Any, Any] = closeness / closeness.sum()
        return shares

    return look


def blind(concepts: int) -> Sight:
    """The same for every image: for measuring what the asking costs."""
    shares = np.full(concepts, 1 / concepts)
    return lambda content: shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=11500)
    parser.add_argument("--data", default="fashion-mnist", help="a data set under data/")
    parser.add_argument("--model", default="gemma3:4b")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds an answer takes")
    parser.add_argument("--references", type=int, default=40, help="images a class it knows")
    parser.add_argument("--made-up", type=int, metavar="K", help="instead of a data set: K classes that all look alike")
    chosen = parser.parse_args()
    if chosen.made_up:
        return serve(chosen, [f"class {k}" for k in range(chosen.made_up)], blind(chosen.made_up))

    from megu.core.project import find
    from megu.data import arrays
    from megu.labeling import ask_about

    dataset = arrays.load(find().data(chosen.data))
    names = [name.replace("_", " ") for name in dataset.classes]
    # Other images than the labeler's own exemplars: another seed.
    return serve(chosen, names, prototypes(ask_about(dataset, 1, chosen.references, seed=97).references))


def serve(chosen: argparse.Namespace, names: Sequence[str], sight: Sight) -> None:
    """Until Ctrl-C."""
    with FakeOllama(names, sight, model=chosen.model, delay=chosen.delay, port=chosen.port, keep=False).serving() as fake:
        print(f"serving {fake.model} at {fake.host}; Ctrl-C ends it", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print(f"{fake.count} questions were asked")


if __name__ == "__main__":
    main()
