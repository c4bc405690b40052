"""The permanent cache of answers: one line each, appended as it arrives, with everything that determined the answer as its key.

A line is written in one go, so a kill costs at most the calls in flight; a torn line is skipped when reading. The file is flushed to disk
once a second, so a power cut may cost that second.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from megu.core.errors import MeguError

_SYNC_S = 1.0


@dataclass(frozen=True)
class Answer:
    """value: q of a pair, the concepts of a ranked question in order, None for an abstention. how: "soft", "hard" or "unlisted" (see
    `megu.labeling.ollama.answers.read_pair`), or "ranked".

    reason: why it abstained. again: 1 when a first answer was unusable. retried: how many calls failed in transit.
    seconds: of all its calls. prompt_tokens, tokens: read and written. first: the position in the choices of the class named first, or -1.
    because: the model's reason, where one was requested; in its own words, to be escaped wherever they are shown.
    """

    value: float | list[int] | None
    how: str = ""
    reason: str = ""
    again: int = 0
    retried: int = 0
    seconds: float = 0.0
    prompt_tokens: int = 0
    tokens: int = 0
    first: int = -1
    because: str = ""


class Answers:
    """The answers of one model digest. Use it as a context manager; several processes may append to one file."""

    def __init__(self, folder: Path, digest: str) -> None:
        self.path = folder / f"{''.join(sign for sign in digest if sign.isalnum())[:24] or 'unknown'}.jsonl"
        self._known = _read(self.path)
        self._lock = threading.Lock()
        self._handle = -1
        self._synced = time.monotonic()

    def __enter__(self) -> Answers:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        size = os.fstat(self._handle).st_size
        if size and os.pread(self._handle, 1, size - 1) != b"\n":
            os.write(self._handle, b"\n")  # after a line torn by a kill
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            handle, self._handle = self._handle, -1
            os.fsync(handle)
            os.close(handle)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Answer:
        return self._known[key]

    def __len__(self) -> int:
        return len(self._known)

    def keeping(self, error: MeguError) -> MeguError:
        """Return the same error, extended by how many answers it does not lose."""
        if not self._known:
            return error
        return MeguError(
            f"{error.what}; {len(self):,} answers are kept", f"{error.fix}; then run again, none of them is asked twice"
        )

    def put(self, key: str, answer: Answer) -> None:
        """Append an answer, from any thread; nothing is written once the file is closed."""
        self._append({"key": key, **asdict(answer)})
        self._known[key] = answer

    def void(self, keys: Iterable[str]) -> None:
        """Retract answers that were not this model's."""
        gone = list(keys)
        if gone:
            self._append({"void": gone})
            for key in gone:
                self._known.pop(key, None)

    def _append(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            if self._handle < 0:
                return
            while line:
                line = line[os.write(self._handle, line) :]
            if time.monotonic() - self._synced > _SYNC_S:
                os.fsync(self._handle)
                self._synced = time.monotonic()

    def seconds_a_call(self) -> float | None:
        """Return the median time of an answer so far; None without any."""
        times = sorted(answer.seconds for answer in self._known.values())
        return times[len(times) // 2] if times else None


def _read(path: Path) -> dict[str, Answer]:
    known: dict[str, Answer] = {}
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return known
    for line in content.splitlines():
        try:
            entry = json.loads(line)
            gone, key = entry.pop("void", None), entry.pop("key", "")
            answer = None if gone is not None else Answer(**entry)
        except (ValueError, TypeError, AttributeError):
            continue  # torn by a kill; its question is asked again
        if answer is None:
            for voided in gone:
                known.pop(voided, None)
        elif key:
            known[key] = answer
    return known


def last_seen(folder: Path, model: str) -> dict[str, str] | None:
    """Return what a model's tag pointed to when a server was last asked (``digest``, ``seen``); None when it never was."""
    try:
        entry = json.loads((folder / "models.json").read_text(encoding="utf-8"))[model]
        return {"digest": str(entry["digest"]), "seen": str(entry["seen"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(folder: Path, model: str, digest: str, seen: str) -> None:
    """Record what a model's tag points to, for use while the server is off."""
    from megu.core.files.store import canonical_json, writing

    try:
        known = json.loads((folder / "models.json").read_text(encoding="utf-8"))
        known = known if isinstance(known, dict) else {}
    except (OSError, ValueError):
        known = {}
    if isinstance(known.get(model), dict) and known[model].get("digest") == digest:
        return
    with writing(folder / "models.json") as temporary:
        temporary.write_bytes(canonical_json({**known, model: {"digest": digest, "seen": seen}}))
