"""The test server answers as the real one did: every recorded exchange is put to it again, and it must say the same."""

from __future__ import annotations

import base64
import copy
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import pytest
from ollama_server import RECORDED, VISION, FakeOllama, blind, invalid_duration, recorded

from megu.labeling.ollama.server import complaint

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
CAPABILITIES = {entry["model"].partition(":")[0]: entry["capabilities"] for entry in next(
    exchange["body"]["models"] for exchange in VISION if exchange["note"] == "tags"
)}  # fmt: skip


def with_images(body: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded request with something in place of its images, which were not recorded."""
    sent = copy.deepcopy(dict(body))
    for message in sent["messages"]:
        if "images" in message:
            message["images"] = [base64.b64encode(image.encode()).decode() for image in message["images"]]
    return sent


CHATS = {exchange["note"][:40]: exchange for exchange in VISION if exchange["request"]["path"] == "/api/chat"}


@pytest.mark.parametrize("note", CHATS)
def test_a_recorded_question_is_answered_as_recorded(note: str) -> None:
    exchange = CHATS[note]
    body = with_images(exchange["request"]["body"])
    model = body["model"] if body["model"] in CAPABILITIES else "other"
    # The recorded projector makes few tokens of an image.
    fake = FakeOllama(CLASSES, blind(10), model=model, capabilities=CAPABILITIES.get(model, ()), image_tokens=13)
    reply = fake.answer("/api/chat", body)
    assert reply.status == exchange["status"]
    if reply.status != 200:
        assert complaint(reply.body) == complaint(exchange["body"])
        assert reply.body == exchange["body"]
        return
    told, meant = reply.body, exchange["body"]
    assert told["prompt_eval_count"] == pytest.approx(meant["prompt_eval_count"], abs=13), "half of what an example takes"
    assert [at["token"] for at in told["logprobs"]][0::2] == ['"', '"']
    assert {at["token"] for at in told["logprobs"][1]["top_logprobs"]} > {"True", "False"}
    assert len(told["logprobs"]) == len(meant["logprobs"]) == 3
    assert set(told) >= set(meant) - {"total_duration", "load_duration", "prompt_eval_duration", "eval_duration"}


def test_early_messages_are_dropped_one_by_one_and_the_system_message_stays() -> None:
    """Whole, without one example's image, and without both: as many tokens fewer as recorded, an answer left without its question."""
    sent = with_images(next(iter(CHATS.values()))["request"]["body"])
    left = {}
    for size in (8192, 2304, 1024):
        body = copy.deepcopy(sent)
        body["options"]["num_ctx"] = size
        FakeOllama(CLASSES, blind(10), model="blindgemma", image_tokens=13)._over_context(body)
        left[size] = [message["role"] for message in body["messages"]]
    assert left == {
        8192: ["system", "user", "assistant", "user", "assistant", "user"],
        2304: ["system", "assistant", "user", "assistant", "user"],
        1024: ["system", "assistant", "user"],
    }


def test_what_does_not_fit_is_refused_or_cut_as_recorded() -> None:
    long = {"model": "gemma3:4b", "messages": [{"role": "user", "content": "dress coat " * 440}], "options": {"num_ctx": 256}}
    refused = FakeOllama(CLASSES, blind(10)).answer("/api/chat", copy.deepcopy(long))
    assert refused.status == RECORDED["chat_ctxoverflow_notrunc"]["status"] == 400
    assert set(refused.body) == set(recorded("chat_ctxoverflow_notrunc"))
    assert complaint(refused.body).endswith("exceeds the available context size (256 tokens), try increasing it")
    cut = FakeOllama(CLASSES, blind(10), cuts_words=True).answer("/api/chat", copy.deepcopy(long))
    assert (cut.status, cut.body["prompt_eval_count"]) == (200, recorded("chat_ctxoverflow")["prompt_eval_count"])


@pytest.mark.parametrize("name", ["version", "show", "tags", "load"])
def test_what_is_asked_before_a_labeling_has_the_recorded_fields(name: str) -> None:
    fake = FakeOllama(CLASSES, blind(10))
    path = {"load": "/api/chat"}.get(name, f"/api/{name}")
    body = {"model": fake.model, "messages": []} if name in ("show", "load") else {}
    reply = fake.answer(path, body)
    assert reply.status == RECORDED[name]["status"]
    assert set(reply.body) == set(recorded(name))


@pytest.mark.parametrize(
    ("keep_alive", "said"),
    [("30m", ""), ("1h30m", ""), (".5h", ""), ("-1m", ""), ("0", ""), (3600, ""), (-1, ""), ("soon", 'time: invalid duration "soon"'),
     ("-1", 'time: missing unit in duration "-1"'), ("3600", 'time: missing unit in duration "3600"'),
     ("1d", 'time: unknown unit "d" in duration "1d"')],
)  # fmt: skip
def test_a_keep_alive_is_read_as_go_reads_it(keep_alive: str | float, said: str) -> None:
    assert invalid_duration(keep_alive) == said
    with FakeOllama(CLASSES, blind(10)).serving() as fake:
        body = {"model": fake.model, "messages": [], "keep_alive": keep_alive}
        answer = httpx.post(f"http://{fake.host}/api/chat", json=body, trust_env=False)
    assert answer.status_code == (400 if said else 200)
    assert answer.json().get("error", "") == said


def test_it_says_a_reason_where_the_schema_has_one() -> None:
    labels = {"items": {"enum": list(CLASSES[1:])}, "maxItems": 2}
    for more in ({}, {"because": {"type": "string"}}):
        body: dict[str, Any] = {
            "format": {"properties": {"labels": labels, **more}},
            "messages": [{"role": "user", "content": ""}],
        }
        said = FakeOllama(CLASSES, blind(10))._said(body, np.full(10, 0.1))
        assert ("because" in said["message"]["content"]) == bool(more)
