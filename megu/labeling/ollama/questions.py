"""The questions as they are sent, and the key that each answer is kept under."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megu.errors import MeguError
from megu.labeling.ollama.params import Judging
from megu.labeling.ollama.prompts import Prompts
from megu.labeling.protocol import Question
from megu.store import canonical_json

#: Raised when the way questions are put or answers are read changes in a way that their words do not show.
PROTOCOL = 1
TOP_LOGPROBS = 20
_TRUE_FALSE = {"type": "string", "enum": ["True", "False"]}


@dataclass(frozen=True)
class Asked:
    """One question. concept: None in a ranked one. again: asked a second time, otherwise, to see whether the answer holds."""

    exemplar: int
    concept: int | None
    again: bool
    key: str


class Shown:
    """An image as it is sent: RGB, upscaled bicubically so that its shorter side has ``side`` pixels. image: uint8 (H, W, 1 or 3).

    What names it are the pixels, not the PNG, whose bytes another zlib writes otherwise; and it is encoded only to be sent, once.
    """

    def __init__(self, image: NDArray[np.uint8], side: int) -> None:
        from PIL import Image

        picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
        scale = side / min(picture.size)
        width, height = (max(side, round(scale * edge)) for edge in picture.size)
        self._picture = picture.resize((width, height), Image.Resampling.BICUBIC).convert("RGB")
        self.sha256 = hashlib.sha256(f"{width}x{height} ".encode() + self._picture.tobytes()).hexdigest()

    @cached_property
    def png(self) -> bytes:
        content = io.BytesIO()
        self._picture.save(content, "PNG", compress_level=4)
        return content.getvalue()


@dataclass(frozen=True)
class Questions:
    """Makes the questions about one data set for one model (by its digest)."""

    about: Question
    judging: Judging
    prompts: Prompts
    digest: str

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The concepts as they are spoken of: underscores are spaces, unless two would sound alike."""
        spoken = tuple(name.replace("_", " ") for name in self.about.concepts)
        return spoken if len(set(spoken)) == len(spoken) else self.about.concepts

    @cached_property
    def exemplars(self) -> list[Shown]:
        return [Shown(image, self.judging.image_size) for image in self.about.exemplars]

    @cached_property
    def references(self) -> list[list[Shown]]:
        return [[Shown(image, self.judging.image_size) for image in images] for images in self.about.references]

    @cached_property
    def places(self) -> dict[str, int]:
        """Name -> its concept."""
        return {name: concept for concept, name in enumerate(self.names)}

    @cached_property
    def system(self) -> dict[str, Any]:
        """What every question begins with, so that the server keeps it."""
        unknown = set(self.judging.descriptions) - set(self.about.concepts)
        if unknown:
            raise MeguError(
                f"labeling.descriptions: there is no class {sorted(unknown)[0]!r}",
                f"the classes are {', '.join(self.about.concepts[:12])}",
            )
        lines = [
            f"- {name}: {self.judging.descriptions[concept]}" if concept in self.judging.descriptions else f"- {name}"
            for concept, name in zip(self.about.concepts, self.names, strict=True)
        ]
        return {"role": "system", "content": self.prompts.say("system", concepts="\n".join(lines))}

    def pair(self, exemplar: int, concept: int, *, again: bool = False) -> Asked:
        """The paper's 3-shot question: is this a photo of the concept?"""
        return self._keyed(exemplar, concept, again)

    def ranked(self, exemplar: int, *, again: bool = False) -> Asked:
        """Which of the other classes does it look most like?"""
        return self._keyed(exemplar, None, again)

    def choices(self, asked: Asked) -> list[str]:
        """What a ranked answer may name, its own class left out, in an order of the exemplar's own: small models choose the first."""
        return self._choices(asked.exemplar, again=asked.again)

    def own(self, exemplar: int) -> str:
        return self.names[int(self.about.exemplar_class[exemplar])]

    def messages(self, asked: Asked) -> list[dict[str, Any]]:
        """For the client: images as bytes, the constant part first, the image and the question about it last."""
        return [
            {**message, "images": [image.png for image in message["images"]]} if "images" in message else message
            for message in self._messages(asked.exemplar, asked.concept, again=asked.again)
        ]

    def schema(self, asked: Asked) -> dict[str, Any]:
        return self._schema(asked.exemplar, asked.concept, again=asked.again)

    def options(self, asked: Asked, *, second: bool = False) -> dict[str, Any]:
        """second: after an unusable answer, with another seed and room for more."""
        tokens = 8 if asked.concept is not None else 24 * self.judging.depth + 16
        return {
            "temperature": 0,
            "seed": self.judging.seed + asked.again + 1000 * second,
            "num_ctx": self.judging.num_ctx,
            "num_predict": tokens * (4 if second else 1),
        }

    def _choices(self, exemplar: int, *, again: bool) -> list[str]:
        own = int(self.about.exemplar_class[exemplar])
        names = [name for concept, name in enumerate(self.names) if concept != own]
        seed = f"{self.judging.seed} {self.about.exemplar_ids[exemplar].decode()} {again}"
        random.Random(seed).shuffle(names)
        return names

    def _schema(self, exemplar: int, concept: int | None, *, again: bool) -> dict[str, Any]:
        if concept is not None:
            return _TRUE_FALSE
        choices = self._choices(exemplar, again=again)
        count = min(self.judging.depth, len(choices))
        label = {"type": "string", "enum": choices}
        labels = {"type": "array", "items": label, "minItems": count, "maxItems": count}
        return {"type": "object", "properties": {"labels": labels}, "required": ["labels"]}

    def _messages(self, exemplar: int, concept: int | None, *, again: bool) -> list[dict[str, Any]]:
        image = self.exemplars[exemplar]
        if concept is None:
            choices = self._choices(exemplar, again=again)
            depth = min(self.judging.depth, len(choices))
            words = self.prompts.say("ranked", choices=", ".join(choices), depth=depth)
            return [self.system, {"role": "user", "content": words, "images": [image]}]
        words = self.prompts.say("pairwise", concept=self.names[concept])
        number = int(again)
        shows = self.references[concept][number]
        other = self.references[self._counterexample(concept, int(self.about.exemplar_class[exemplar]), number)][number]
        shots = [
            ({"role": "user", "content": words, "images": [example]}, {"role": "assistant", "content": f'"{answer}"'})
            for example, answer in ((shows, "True"), (other, "False"))
        ]
        asked = {"role": "user", "content": words, "images": [image]}
        return [self.system, *(message for shot in (shots[::-1] if again else shots) for message in shot), asked]

    def _counterexample(self, concept: int, own: int, number: int) -> int:
        """A class to show as not the concept: the same for all exemplars where it can be, never the exemplar's own unless there is
        no third, since "not the concept" would then have been said of its class."""
        others = [other for other in range(len(self.names)) if other != concept]
        random.Random(f"{self.judging.seed} {concept} {number}").shuffle(others)
        return next((other for other in others if other != own), others[0])

    def _keyed(self, exemplar: int, concept: int | None, again: bool) -> Asked:
        asked = Asked(exemplar, concept, again, "")
        messages: Sequence[dict[str, Any]] = self._messages(exemplar, concept, again=again)
        content = [
            {**message, "images": [image.sha256 for image in message["images"]]} if "images" in message else message
            for message in messages
        ]
        request = [PROTOCOL, self.digest, content, self._schema(exemplar, concept, again=again), self.options(asked)]
        return Asked(exemplar, concept, again, hashlib.sha256(canonical_json(request)).hexdigest())
