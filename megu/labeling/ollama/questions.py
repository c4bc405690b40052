"""The questions as they are sent, and the key under which each answer is cached."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from megu.core.errors import MeguError
from megu.core.files.store import canonical_json
from megu.labeling.ollama.params import Judging
from megu.labeling.ollama.prompts import Prompts
from megu.labeling.ollama.strategies import GROUP
from megu.labeling.protocol import Question

if TYPE_CHECKING:
    from PIL import Image

#: Increased when the way of putting questions or reading answers changes without a change in the text of the questions.
PROTOCOL = 3
TOP_LOGPROBS = 20
#: The most characters of a reason, and the sentence that asks for one.
REASON_LENGTH = 120
_REASONS = ' Say in a few words what it shares with them, as "because".'
_TRUE_FALSE = {"type": "string", "enum": ["True", "False"]}


@dataclass(frozen=True)
class Prompt:
    """One question. concept: None in a ranked one. again: asked a second time, in another form, to see whether the answer stays the same.

    choices: the concepts that a ranked answer may name, in the order in which they are listed; empty in a True-or-False question.
    """

    exemplar: int
    concept: int | None
    again: bool
    key: str
    choices: tuple[int, ...] = ()


class Shown:
    """An image as it is sent: RGB, upscaled bicubically so that its shorter side has ``side`` pixels. image: uint8 (H, W, 1 or 3).

    Its identity is the hash of its pixels, not of the PNG, whose bytes depend on the zlib version; the PNG is encoded once, only to be
    sent. Only the small image is held: those of a thousand classes, upscaled, would take gigabytes. size: width and height in pixels.
    """

    def __init__(self, image: NDArray[np.uint8], side: int) -> None:
        self._image = image
        height, width = image.shape[:2]
        scale = side / min(width, height)
        self.size = (max(side, round(scale * width)), max(side, round(scale * height)))

    def _picture(self) -> Image.Image:
        from PIL import Image

        picture = Image.fromarray(self._image.squeeze(-1) if self._image.shape[-1] == 1 else self._image)
        return picture.resize(self.size, Image.Resampling.BICUBIC).convert("RGB")

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(f"{self.size[0]}x{self.size[1]} ".encode() + self._picture().tobytes()).hexdigest()

    @cached_property
    def png(self) -> bytes:
        content = io.BytesIO()
        self._picture().save(content, "PNG", compress_level=4)
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
        """The concepts as the prompts write them: underscores become spaces, unless two names would become the same."""
        spoken = tuple(name.replace("_", " ") for name in self.about.concepts)
        return spoken if len(set(spoken)) == len(spoken) else self.about.concepts

    @cached_property
    def exemplars(self) -> list[Shown]:
        return [Shown(image, self.judging.image_size) for image in self.about.exemplars]

    @cached_property
    def references(self) -> list[list[Shown]]:
        return [[Shown(image, self.judging.image_size) for image in images] for images in self.about.references]

    def system(self, concepts: tuple[int, ...]) -> dict[str, Any]:
        """Return the first message of a question; the same for all, so that the server caches it, unless there are too many concepts."""
        if len(self.names) <= GROUP:
            return self._every_concept
        return self._system(sorted(concepts))

    @cached_property
    def _every_concept(self) -> dict[str, Any]:
        return self._system(range(len(self.names)))

    def _system(self, concepts: Iterable[int]) -> dict[str, Any]:
        unknown = set(self.judging.descriptions) - set(self.about.concepts)
        if unknown:
            raise MeguError(
                f"labeling.descriptions: there is no class {sorted(unknown)[0]!r}",
                f"the classes are {', '.join(self.about.concepts[:12])}",
            )
        lines = [self.line(concept) for concept in concepts]
        return {"role": "system", "content": self.prompts.say("system", concepts="\n".join(lines))}

    def line(self, concept: int) -> str:
        """Return a concept's line in the first message."""
        name, described = self.names[concept], self.judging.descriptions.get(self.about.concepts[concept])
        return f"- {name}: {described}" if described else f"- {name}"

    def pair(self, exemplar: int, concept: int) -> Prompt:
        """Return the paper's 3-shot question: is this a photo of the concept?"""
        return self._keyed(Prompt(exemplar, concept, False, ""))

    def ranked(self, exemplar: int, among: Iterable[int] | None = None) -> list[Prompt]:
        """Ask which of the other classes it looks most like, in as many questions as the choices need. among: the classes to choose from;
        all others when omitted."""
        choices = self._others(exemplar) if among is None else self._in_order(exemplar, among)
        count = -(-len(choices) // GROUP)
        return [self._keyed(Prompt(exemplar, None, False, "", choices[number::count])) for number in range(count)]

    def repeated(self, asked: Prompt) -> Prompt:
        """Return the same question in another form: the choices in another order, or other examples in the other order."""
        choices = self._in_order(asked.exemplar, asked.choices, again=True)
        return self._keyed(Prompt(asked.exemplar, asked.concept, True, "", choices))

    def longest(self) -> Iterator[Prompt]:
        """Yield questions, without keys, one of which is at least as long as any other about this data set."""
        yield from (Prompt(0, concept, False, "") for concept in range(len(self.names)))
        # A choice is named once among the concepts, with its description, and once in the question.
        said = [len(f"{self.line(concept)}{name}".encode()) for concept, name in enumerate(self.names)]
        longest = sorted(range(len(self.names)), key=said.__getitem__, reverse=True)
        yield Prompt(0, None, False, "", tuple(longest[:GROUP]))

    def own(self, exemplar: int) -> str:
        return self.names[int(self.about.exemplar_class[exemplar])]

    def messages(self, asked: Prompt) -> list[dict[str, Any]]:
        """Return the messages for the client: images as bytes, the constant part first, the image and the question about it last."""
        return [
            {**message, "images": [image.png for image in message["images"]]} if "images" in message else message
            for message in self.parts(asked)
        ]

    def schema(self, asked: Prompt) -> dict[str, Any]:
        if asked.concept is not None:
            return _TRUE_FALSE
        count = min(self.judging.depth, len(asked.choices))
        label = {"type": "string", "enum": [self.names[concept] for concept in asked.choices]}
        properties = {"labels": {"type": "array", "items": label, "minItems": count, "maxItems": count}}
        if self.judging.reasons:
            properties["because"] = {"type": "string", "maxLength": REASON_LENGTH}
        return {"type": "object", "properties": properties, "required": list(properties)}

    def options(self, asked: Prompt, *, second: bool = False) -> dict[str, Any]:
        """Return the model's options. second: after an unusable answer, with another seed and room for more tokens."""
        tokens = 8 if asked.concept is not None else 24 * self.judging.depth + 16 + REASON_LENGTH * self.judging.reasons
        return {
            "temperature": 0,
            "seed": self.judging.seed + asked.again + 1000 * second,
            "num_ctx": self.judging.num_ctx,
            "num_predict": tokens * (4 if second else 1),
        }

    def _others(self, exemplar: int, *, again: bool = False) -> tuple[int, ...]:
        """Return all concepts but the exemplar's own, in an order specific to the exemplar: small models choose the first."""
        own = int(self.about.exemplar_class[exemplar])
        others = [concept for concept in range(len(self.names)) if concept != own]
        random.Random(f"{self.judging.seed} {self.about.exemplar_ids[exemplar].decode()} {again}").shuffle(others)
        return tuple(others)

    def _in_order(self, exemplar: int, among: Iterable[int], *, again: bool = False) -> tuple[int, ...]:
        chosen = set(among)
        return tuple(concept for concept in self._others(exemplar, again=again) if concept in chosen)

    def parts(self, asked: Prompt) -> list[dict[str, Any]]:
        """Return the messages, with images as `Shown`."""
        image = self.exemplars[asked.exemplar]
        if asked.concept is None:
            choices = ", ".join(self.names[concept] for concept in asked.choices)
            words = self.prompts.say("ranked", choices=choices, depth=min(self.judging.depth, len(asked.choices)))
            words += _REASONS if self.judging.reasons else ""
            return [self.system(asked.choices), {"role": "user", "content": words, "images": [image]}]
        words = self.prompts.say("pairwise", concept=self.names[asked.concept])
        number = int(asked.again)
        shows = self.references[asked.concept][number]
        own = int(self.about.exemplar_class[asked.exemplar])
        other = self.references[self._counterexample(asked.concept, own, number)][number]
        shots = [
            ({"role": "user", "content": words, "images": [example]}, {"role": "assistant", "content": f'"{answer}"'})
            for example, answer in ((shows, "True"), (other, "False"))
        ]
        question = {"role": "user", "content": words, "images": [image]}
        ordered = shots[::-1] if asked.again else shots
        return [self.system((asked.concept,)), *(message for shot in ordered for message in shot), question]

    def _counterexample(self, concept: int, own: int, number: int) -> int:
        """Return a class to show as not the concept: the same for all exemplars where possible, and the exemplar's own only when there is
        no third, since that tells the model that its class is "not the concept"."""
        count = len(self.names)
        drawn = random.Random(f"{self.judging.seed} {concept} {number}").sample(range(count), min(count, 3))
        others = [other for other in drawn if other != concept]
        return next((other for other in others if other != own), others[0])

    def _keyed(self, asked: Prompt) -> Prompt:
        content = [
            {**message, "images": [image.sha256 for image in message["images"]]} if "images" in message else message
            for message in self.parts(asked)
        ]
        request = [PROTOCOL, self.digest, content, self.schema(asked), self.options(asked)]
        return replace(asked, key=hashlib.sha256(canonical_json(request)).hexdigest())
