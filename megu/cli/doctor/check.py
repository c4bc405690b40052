"""One finding of the doctor, and how an error inside a check becomes one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Thread

from megu.core.errors import MeguError

INSTALL = "make env"


@dataclass(frozen=True)
class Check:
    """One finding. ok: None when something optional is missing. fix: a command, empty when there is nothing to do."""

    name: str
    ok: bool | None
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Question:
    """names: of its findings. limit: seconds after which it counts as failed. optional: whether failing is not a fault."""

    names: tuple[str, ...]
    ask: Callable[[], Iterable[Check]]
    limit: float = 20.0
    optional: bool = False


def answers(questions: Iterable[Question]) -> dict[str, Check]:
    """Return the findings of all questions by name; they run side by side, so the whole takes as long as the slowest. Raises nothing.

    A question that exceeds its limit is abandoned; its thread does not keep the process alive.
    """
    found: dict[str, Check] = {}
    begun = []
    for question in questions:

        def ask(question: Question = question) -> None:
            answered = _safely(question)
            found.update({check.name: check for check in answered if check.name not in found})

        thread = Thread(target=ask, daemon=True)
        thread.start()
        begun.append((question, thread))
    for question, thread in begun:
        thread.join(question.limit)
        for name in question.names:
            detail = f"it did not answer within {question.limit:.0f} s"
            found.setdefault(name, Check(name, None if question.optional else False, detail, "megu doctor"))
    return found


def _safely(question: Question) -> list[Check]:
    bad = None if question.optional else False
    try:
        return list(question.ask())
    except MeguError as error:
        return [Check(name, bad, error.what, error.fix) for name in question.names]
    except Exception as error:
        return [Check(name, bad, f"could not be checked: {describe(error)}", INSTALL) for name in question.names]


def describe(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
