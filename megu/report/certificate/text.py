"""The contents of a dossier, in plain words for someone who has never trained a model.

Pure: it takes a dossier and the result of verifying it, and adds nothing to them. The page names no sample and no person: a request for a
class is described by the class's name, one for single images by their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from megu.core.errors import MeguError
from megu.data.scope import RequestScope
from megu.evaluation.gate import provided_retrain, without_retrain
from megu.evaluation.text import number
from megu.lineage.dossier import MAIN, Dossier, Gate, sha256
from megu.lineage.export.common import began, ended, model, tries
from megu.lineage.purged import document
from megu.lineage.reading import Found
from megu.lineage.verify.run import Report

JSON = Any

#: State of a check, as the page marks it.
MARKS = {True: "holds", False: "differs", None: "not checked"}


@dataclass(frozen=True)
class Measure:
    """A share in percent for each model: before, now, and, where there is one, the model that never saw the data."""

    title: str
    values: Sequence[float | None]
    reads: str

    @property
    def written(self) -> list[str]:
        return [number(value) for value in self.values]


@dataclass(frozen=True)
class Copies:
    """What happened to the copies of the data, by location. sealed: SHA-256 of the document that says so. rows: place, verdict, why."""

    sealed: str
    rows: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Decision:
    """The gate's decision in words, and for each rule whether it holds ("holds", "differs", "not judged" or "not asked") and why."""

    said: str
    rules: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Certificate:
    """Everything on the page. state: "good", "bad" or "open"; badge: its text. compared: the model that the bars call "never saw it"."""

    number: str
    state: str
    badge: str
    lead: str
    asked: Mapping[str, str]
    done: Sequence[str]
    compared: str
    measures: Sequence[Measure]
    attack: str
    decision: Decision | None
    copies: Copies | None
    limits: Sequence[str]
    signed: str
    commands: Sequence[tuple[str, str]]
    checked: str
    checks: Sequence[tuple[str, str, str]]
    identifiers: Mapping[str, str]


def certificate(found: Found, report: Report, now: datetime) -> Certificate:
    """Return the certificate of a dossier. report: the result of verifying it. now: when it was verified."""
    dossier = found.dossier
    decision = _decision(dossier.evidence.gate)
    state, badge = _state(dossier, decision)
    if report.exit_code == 1:
        state, badge = "bad", "NOT as recorded"
    return Certificate(
        number=_grouped(found.seal.seal[:16].upper()),
        state=state,
        badge=badge,
        lead=_lead(dossier, state),
        asked=_asked(dossier),
        done=list(_done(dossier)),
        compared="the one brought in for comparison, which according to its provider never saw it"
        if provided_retrain(dossier.evidence.evaluation)
        else "the one trained for comparison",
        measures=list(_measures(dossier)),
        attack=_attack(dossier),
        decision=decision,
        copies=_copies(found),
        limits=[_sentence(limit) for limit in dossier.claim.limits],
        signed=_signed(found),
        commands=list(_commands(dossier, found)),
        checked=_checked(report, now),
        checks=[(MARKS[check.holds], check.name, check.says) for check in report.checks],
        identifiers=_identifiers(found),
    )


def _state(dossier: Dossier, decision: Decision | None) -> tuple[str, str]:
    alone = without_retrain(dossier.evidence.evaluation)
    if dossier.evidence.evaluation.get("reference") is None and not alone:
        return "open", "Done, not compared"
    if dossier.evidence.failures or (decision is not None and any(state == "differs" for state, *_ in decision.rules)):
        return "bad", "Short of what was asked"
    if alone:
        return "open", "Judged without a retrain"
    return "good", "Forgotten, as measured"


def _lead(dossier: Dossier, state: str) -> str:
    what = f"A model was made to forget {_what(dossier)}."
    if dossier.claim.level == "exact":
        what = f"A new model was trained without {_what(dossier)}."
    if without_retrain(dossier.evidence.evaluation):
        failures = f" It falls short: {' and '.join(dossier.evidence.failures)}." if state == "bad" else ""
        return (
            f"{what} No model that never saw them was available for comparison, so it was judged against the model before and on images "
            f"that neither had been trained on, as far as that goes.{failures}"
        )
    if dossier.evidence.evaluation.get("reference") is None:
        return f"{what} It was measured, but not compared with a model that never saw them."
    if state == "bad":
        failures = f": {' and '.join(dossier.evidence.failures)}" if dossier.evidence.failures else ""
        return f"{what} Compared with a model that {_never_saw(dossier)}, it falls short{failures}."
    return (
        f"{what} It was compared with a model that {_never_saw(dossier)}, and behaves like it within the limits stated below."
    )


def _never_saw(dossier: Dossier) -> str:
    """Return what is known of the model that it was compared with, to follow "a model that"."""
    given = provided_retrain(dossier.evidence.evaluation) is not None
    return "according to its provider never saw them" if given else "never saw them"


def _what(dossier: Dossier) -> str:
    """Return what was to be forgotten, worded to fit into a sentence."""
    count, asked = dossier.scope.forget, RequestScope.of(dossier.request)
    named, single = ", ".join(asked.names), f"single {'image' if asked.samples == 1 else 'images'}"
    if not asked.samples:
        return f"all {count:,} images of “{named}” that it had been trained on"
    if asked.names:
        return f"{count:,} images that it had been trained on, all of “{named}” and {asked.samples:,} {single}"
    return f"{count:,} single {'image' if count == 1 else 'images'} that it had been trained on"


def _asked(dossier: Dossier) -> dict[str, str]:
    scope, version = dossier.scope, model(dossier)
    return {
        "Asked to forget": _named(RequestScope.of(dossier.request), str(dossier.request["words"])),
        "Images concerned": f"{scope.forget:,} of {scope.forget + scope.retain:,} training images",
        "Data set": dossier.data.name,
        "Begun": _day(began(dossier)),
        "Finished": _day(ended(dossier)),
        "Model": f"{version[0]}, version {version[1]}" if version else "not registered",
    }


def _named(asked: RequestScope, words: str) -> str:
    """Return what was asked for, each kind by its own name."""
    if not asked.names:
        return words
    kinds = [
        f"{one if len(names) == 1 else more}: {', '.join(names)}"
        for one, more, names in (
            ("a whole class", "whole classes", asked.classes),
            ("a part of a class", "parts of classes", asked.subclasses),
        )
        if names
    ]
    return "; ".join([*kinds, *([f"single images: {asked.samples:,}"] if asked.samples else [])])


def _done(dossier: Dossier) -> Iterator[str]:
    if dossier.claim.level == "exact":
        yield f"A new model was trained from {_start(dossier)} on the remaining images alone. The images to be forgotten had no part in that."
    else:
        yield (
            "The model in use was changed, not trained anew: for the images to be forgotten it was taught to answer as a model that never "
            "saw them would, while keeping what it knows of the rest."
        )
    yield f"In technical terms: {_small(str(dossier.method['title']))} ({dossier.method['paper']})."
    if dossier.labeler:
        yield f"What those answers would be was judged by a {dossier.labeler['kind']}."
    if provided_retrain(dossier.evidence.evaluation):
        yield (
            "For comparison another model was brought in from outside, not trained here; that it was trained without those images is its "
            "provider's word. Its answers are the measure of forgetting."
        )
    elif dossier.evidence.evaluation.get("reference") is not None:
        yield (
            f"For comparison another model was trained from {_start(dossier)} without those images. Its answers are the measure of "
            "forgetting."
        )
    if said := tries(dossier):
        yield said
    if dossier.models.given:
        yield "The model in use was brought in from outside; what it had been trained on is its provider's word."


def _measures(dossier: Dossier) -> Iterator[Measure]:
    yield Measure("What was to be forgotten: how much of it is recognised", of_each(dossier, "Af"), _reading(dossier))
    if single := of_each(dossier, "Af_single"):
        alone = "The single images themselves, apart from the classes. The second bar should be where the third is."
        yield Measure("The single images: how many of them are recognised", single, alone)
    kept = "Images of everything else that are new to every model. The second bar should not be shorter than the others."
    yield Measure("Everything else: how much of it is recognised", of_each(dossier, "Ar"), kept)


def _reading(dossier: Dossier) -> str:
    """Explain the bars of what was forgotten: of new images where there are some; single images have none."""
    asked, new = RequestScope.of(dossier.request), dossier.scope.test_forget > 0
    whole = new or not asked.samples
    if new:
        shown = f"New images of “{', '.join(asked.names)}”." if asked.samples else "New images of what was forgotten."
    else:
        shown = "The forgotten images themselves" + (
            "." if asked.samples else ": there are no new images of what was forgotten."
        )
    if dossier.evidence.evaluation.get("reference") is None:
        return f"{shown} Without a model that never saw them, nobody can say where the second bar should be."
    why = "" if whole else "; a model that never saw them gets many of them right all the same, as it does with any new image"
    return f"{shown} The second bar should be where the third is{why}."


def of_each(dossier: Dossier, metric: str) -> list[float | None]:
    """Return a metric of the original, the unlearned model and, where there is one, the retrain; empty where none has it."""
    evaluation = dossier.evidence.evaluation
    models = [evaluation[name]["metrics"] for name in ("original", "unlearned", "reference") if evaluation.get(name)]
    return [metrics.get(metric) for metrics in models] if any(metric in metrics for metrics in models) else []


def _attack(dossier: Dossier) -> str:
    values = [number(value) for value in of_each(dossier, "MIA")]
    said = f"An attack that guesses from a model's answers whether an image was in its training data takes {values[0]} of the forgotten images "
    if len(values) < 3:
        said += f"for training images before, and {values[1]} now. "
        return f"{said}Without a model that never saw them, nobody can say which value is right."
    return (
        f"{said}for training images before, {values[1]} now, and {values[2]} with the model that {_never_saw(dossier)}. "
        "The last is the right value, not zero: far above it, images are still remembered; far below it, the forgetting itself can be detected."
    )


def _decision(gate: Gate | None) -> Decision | None:
    """Return the gate's decision; a dossier of format 1 has none."""
    if gate is None:
        return None
    words = {
        "pass": "By its rules this model may take the place of the one in use.",
        "fail": "By its rules this model may NOT take the place of the one in use.",
        "passes without a retrain": "The rules that can be judged without a model that never saw the images hold; that is less than a pass, "
        "and a person has to decide whether this model is taken into use.",
        "needs a person": "Its rules hold; a person has to decide whether this model is taken into use.",
    }
    states = {True: "holds", False: "differs", None: "not asked"}
    rules = [("not judged" if rule.not_judged else states[rule.holds], rule.rule, rule.reason) for rule in gate.rules]
    return Decision(words[gate.decision], rules)


def _copies(found: Found) -> Copies | None:
    """Return what the latest purge document says of each place, where it is signed with the dossier's key."""
    if not found.purges:
        return None
    content = found.purges[-1]
    try:
        purge = document.parse(content, document.NAME, [found.seal.public] if found.seal.public else []).purge
        rows = [(surface.name, surface.verdict, surface.says) for surface in purge.surfaces]
    except MeguError as error:
        rows = [("every place", "not believed", error.what)]
    return Copies(sha256(content), rows)


def _signed(found: Found) -> str:
    if found.seal.public is None:
        return (
            "This dossier is not signed. Changes made by accident, or in one place, will be found, but nothing proves who made it. "
            "Ask for a signed one if that matters."
        )
    return (
        "Signed with an Ed25519 key. Compare the key below with the one that the sender gave you through another channel: "
        "a signature says that the holder of this key made the dossier, not who that is."
    )


def _commands(dossier: Dossier, found: Found) -> Iterator[tuple[str, str]]:
    yield "Where the model was made:", f"megu verify {dossier.run.mlflow_run_id}"
    key = " --key signing.pub" if found.seal.public else ""
    yield "Anywhere, with the dossier's folder" + (" and the sender's public key:" if key else ":"), f"megu verify FOLDER{key}"
    yield "Recomputing every figure from the weights:", f"megu verify {dossier.run.mlflow_run_id} --replay"
    yield "Without any of our software, this must print the dossier's seal:", f"sha256sum FOLDER/{MAIN}"


def _checked(report: Report, now: datetime) -> str:
    count = {state: sum(check.holds is state for check in report.checks) for state in MARKS}
    said = f"On {_day(now)} {count[True]} of {len(report.checks)} points were recomputed and hold"
    if count[False]:
        return f"{said}; {count[False]} {'differs' if count[False] == 1 else 'differ'} from what is recorded. Do not rely on this page."
    if count[None]:
        return f"{said}; none differs; {count[None]} could not be checked where this page was made."
    return f"{said}; none differs."


def _identifiers(found: Found) -> dict[str, str]:
    dossier = found.dossier
    version, given = model(dossier), provided_retrain(dossier.evidence.evaluation)
    return {
        "Dossier (seal, SHA-256)": found.seal.seal,
        "Lineage (root, SHA-256)": dossier.root,
        **({"Signed by (Ed25519)": found.seal.public} if found.seal.public else {}),
        "Run": dossier.run.mlflow_run_id,
        **({"Model version": f"models:/{version[0]}/{version[1]}"} if version else {}),
        "Weights before (SHA-256)": dossier.models.original,
        "Weights now (SHA-256)": dossier.models.unlearned,
        **({"Weights of the given retrain (SHA-256)": given} if given else {}),
        "Data set (DVC)": f"{dossier.data.dvc_hash}, from {dossier.data.source}"
        if dossier.data.source
        else dossier.data.dvc_hash,
        "Forgotten images": f"{dossier.scope.commitments:,} keyed commitments, SHA-256 {dossier.files['forgotten.hmac']}",
        "Code (git commit)": dossier.environment["git.commit"],
        **({"Dossier before this one": dossier.previous.seal} if dossier.previous else {}),
    }


def _start(dossier: Dossier) -> str:
    """Return what a network is trained from."""
    declared = dossier.parameters.get("train", {}).get("pretrained", False)
    return "weights that are said never to have seen this data set" if declared else "scratch"


def _day(time: datetime) -> str:
    """Write a time for a person, in UTC: 24 November 2026, 13:05 UTC."""
    there = time.astimezone(UTC)
    return f"{there.day} {there:%B %Y, %H:%M} UTC"


def _grouped(text: str) -> str:
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def _sentence(limit: str) -> str:
    """Turn a limit of the claim into a sentence of its own."""
    text = limit.removeprefix("empirical: ").removeprefix("exact: ")
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _small(title: str) -> str:
    return title[:1].lower() + title[1:]
