"""The page of one request: its facts in a given language, as one HTML file that a browser prints on A4."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from markupsafe import Markup

from megu.evaluation.gate import RuleResult, on_training, provided_retrain, without_retrain
from megu.lineage.dossier import MAIN
from megu.report.certificate.figure import bars
from megu.report.certificate.language import Language
from megu.report.certificate.request import Facts
from megu.report.templates import template


def render_request(facts: Facts, language: Language) -> str:
    """Render the page; the same facts in the same language give the same bytes."""
    page = RequestPage(facts, language)
    return template("megu.report.certificate", "request.html").render(page=page, say=language.say, lang=language.code)


@dataclass(frozen=True)
class _Bars:
    """A share in percent for each model, as `megu.report.certificate.figure.bars` draws it."""

    values: Sequence[float | None]
    written: Sequence[str]


@dataclass(frozen=True)
class RequestPage:
    """What the template uses; every text is a sentence of the language, a name or a number."""

    facts: Facts
    language: Language

    @property
    def badge(self) -> str:
        return self._say(f"badge.{self.facts.state}")

    @property
    def lead(self) -> Iterator[str]:
        facts = self.facts
        yield self._say(
            "lead",
            received=self._day(facts.events[0][1]),
            controller=facts.controller,
            what=self.what,
            finished=self._day(self._finished),
        )
        if facts.seen is not None:
            yield self._say("lead.closed", seen=self._day(datetime.fromisoformat(facts.seen.time)))

    @property
    def what(self) -> str:
        """What was asked for: classes by name while the names are kept, images by number."""
        facts, target = self.facts.entry.facts, self.facts.entry.target
        if facts["kind"] == "ids":
            count = int(facts.get("ids", 0)) + int(facts.get("files", 0))
            return self._say("what.image") if count == 1 else self._say("what.images", count=self.language.count(count))
        kind, key = ("class", "classes") if facts["kind"] == "class" else ("subclass", "subclasses")
        names, count = (target or {}).get(key, []), int(facts[key])
        which = f"what.{kind if count == 1 else key}"
        if names:
            return self._say(which, names=", ".join(names))
        return self._say(f"{which}.unnamed", count=self.language.count(count))

    @property
    def asked(self) -> dict[str, str]:
        """The facts at the top, by title."""
        entry, samples = self.facts.entry, self.facts.entry.fact("samples")
        due, finished = date.fromisoformat(entry.due), self._day(self._finished)
        late = self._finished.date() > due
        return {
            self._say(f"fact.{name}"): value
            for name, value in {
                "controller": self.facts.controller,
                "request": entry.id,
                "reference": str(entry.facts["reference"]) or self._say("reference.none"),
                "received": self._day(self.facts.events[0][1]),
                "due": self.language.day(due),
                "finished": self._say("finished.late" if late else "finished.on_time", finished=finished),
                "asked": self.what,
                "images": self._say("images", count=self.language.count(int(samples)))
                if samples
                else self._say("images.unknown"),
                "data": entry.data or "—",
                "basis": self._say(f"basis.{entry.facts['basis']}"),
                "requester": self._say(f"requester.{entry.facts['requester']}"),
                "reason": self._say(f"reason.{entry.facts['reason']}"),
            }.items()
        }

    @property
    def when(self) -> list[tuple[str, str]]:
        return [(self.language.moment(time), self._say(f"state.{state}")) for state, time in self.facts.events]

    @property
    def versions(self) -> Iterator[str]:
        facts, move = self.facts, self.facts.move
        version = f"{move.subject}/{move.facts['version']}"
        if facts.own[0]:
            yield self._say("versions.own", version=facts.own[0], time=self._moment(facts.own[1]))
        if move.facts.get("automatic"):
            yield self._say("versions.policy", version=version, time=self._moment(move.time))
        else:
            rationale = self._say(f"rationale.{move.facts['rationale']}")
            said = {"version": version, "time": self._moment(move.time), "rationale": rationale}
            yield self._say("versions.production", approver=str(move.facts["approver"]), **said)
        if before := move.facts.get("from"):
            yield self._say("versions.before", version=f"{move.subject}/{before}")
        else:
            yield self._say("versions.original")
        yield self._say("versions.now", version=facts.champion)

    @property
    def how(self) -> Iterator[str]:
        dossier, evaluation = self.facts.dossier, self.facts.dossier.evidence.evaluation
        pretrained = dossier.parameters.get("train", {}).get("pretrained", False)
        start = self._say("start.pretrained" if pretrained else "start.fresh")
        level = "exact" if dossier.claim.level == "exact" else "empirical"
        method = f"{dossier.method['name']}, {dossier.method['paper']}"
        yield self._say(f"how.{level}", start=start, method=method)
        yield self._say("how.together")
        if without_retrain(evaluation) or not evaluation.get("reference"):
            yield self._say("compare.none")
        else:
            yield self._say("compare.given" if provided_retrain(evaluation) else "compare.trained")

    @property
    def measures(self) -> Iterator[tuple[str, Markup, str]]:
        """The title, the drawing and how to read it."""
        on = "train" if on_training(self.facts.dossier.evidence.evaluation) else "test"
        shown = {"Af": f"forgotten.{on}", "Af_single": "single", "Ar": "rest", "MIA": "attack"}
        models = [self._say(f"model.{name}") for name in ("before", "now", "never")]
        for metric, sentence in shown.items():
            values = self.facts.measured(metric)
            if not values:
                continue
            read = "measure.read.rest" if metric == "Ar" else "measure.read" if len(values) > 2 else "measure.read.alone"
            drawn = bars(_Bars(values, [self.language.number(value, "%") for value in values]), models)
            yield self._say(f"measure.{sentence}"), drawn, self._say(read)

    @property
    def decision(self) -> str:
        gate = self.facts.dossier.evidence.gate
        return self._say(f"gate.{gate.decision}" if gate else "gate.none")

    @property
    def rules(self) -> list[tuple[str, str, str, str, str]]:
        """For each rule its mark, title, result, the value found and the range allowed."""
        return [self._rule(rule) for rule in self.facts.rules]

    def _rule(self, rule: RuleResult) -> tuple[str, str, str, str, str]:
        result = "not_judged" if rule.not_judged else {True: "holds", False: "fails", None: "not_asked"}[rule.holds]
        title = self._say(f"rule.{rule.rule}") if self.language.has(f"rule.{rule.rule}") else rule.rule
        low, high = (None if value is None else self.language.number(value) for value in (rule.low, rule.high))
        if low and high:
            allowed = self._say("allowed.between", low=low, high=high)
        elif low or high:
            allowed = self._say("allowed.least", low=low) if low else self._say("allowed.most", high=str(high))
        else:
            allowed = "—"
        mark = {"holds": "holds", "fails": "differs"}.get(result, "not")
        return mark, title, self._say(f"result.{result}"), self.language.number(rule.value), allowed

    @property
    def served(self) -> str:
        facts = self.facts
        if facts.seen is not None:
            return self._say("served.seen", time=self._moment(facts.seen.time), version=facts.champion)
        return self._say("served.unseen" if facts.configured else "served.none", version=facts.champion)

    @property
    def erased(self) -> Iterator[str]:
        erased = self.facts.erased
        if erased is None or not erased.seal:
            yield self._say("erased.not_yet" if erased is None else "erased.not_believed")
            return
        yield self._say("erased.done", time=self._moment(erased.time), document=f"{erased.seal[:16]}…")
        if erased.test_images:
            yield self._say("erased.test_images")

    @property
    def places(self) -> list[tuple[str, str, str]]:
        """For each place its mark, name and verdict."""
        marks = {"ERASED": "holds", "RESIDUAL": "differs"}
        return [
            (
                marks.get(verdict, "not"),
                self._say(f"place.{name}") if self.language.has(f"place.{name}") else name,
                self._say(f"verdict.{verdict}"),
            )
            for name, verdict in (self.facts.erased.places if self.facts.erased else ())
        ]

    @property
    def kept(self) -> Iterator[tuple[str, str, str]]:
        """What is kept, until when, and why."""
        facts, ever = self.facts, self._say("kept.for_ever")
        if facts.entry.target is not None:
            erased = facts.erased is not None and bool(facts.erased.seal)
            yield self._say("kept.target"), ever if erased else self._say("kept.target.until"), self._say("kept.target.why")
        for name in ("ledger", "evidence", "model"):
            yield self._say(f"kept.{name}"), ever, self._say(f"kept.{name}.why")
        for day in self._versions():
            yield self._say("kept.versions"), day, self._say("kept.versions.why")
        for header in facts.suppressed:
            day = self.language.day(date.fromisoformat(header.until)) if header.until else ever
            yield self._say("kept.suppression", record=header.id), day, self._say("kept.suppression.why")
        if not facts.suppressed:
            yield self._say("kept.suppression.none"), "—", self._say("kept.suppression.none.why")
        backups = self._say("kept.backups.unstated")
        if facts.backups is not None:
            backups = self._say("kept.backups.stated", date=self.language.day(facts.backups))
        yield self._say("kept.backups"), backups, self._say("kept.backups.why")

    def _versions(self) -> list[str]:
        """Return until when the versions that knew the data are kept."""
        facts, ever = self.facts, self._say("kept.for_ever")
        if facts.erased is not None and facts.erased.seal:
            return sorted({self.language.day(date.fromisoformat(day)) if day else ever for day in facts.erased.versions})
        if facts.versions_until is None:
            return [ever]
        return [self._say("kept.versions.not_yet", date=self.language.day(date.fromisoformat(facts.versions_until)))]

    @property
    def limits(self) -> list[str]:
        said = [self._say(f"limit.{name}") if name else text for name, text in self.facts.limits]
        erased = self.facts.erased is not None and bool(self.facts.erased.seal)
        return [*said, *([self._say("limit.medium")] if erased else []), self._say("limit.identity")]

    @property
    def commands(self) -> list[tuple[str, str]]:
        run, key = self.facts.dossier.run.mlflow_run_id, " --key signing.pub" if self.facts.found.seal.public else ""
        return [
            (self._say("check.where"), f"megu verify {run}{' --sealed' if self.facts.found.purges else ''}"),
            (self._say("check.anywhere"), f"megu verify FOLDER{key}; sha256sum FOLDER/{MAIN}"),
            (self._say("check.ledger"), f"megu request show {self.facts.entry.id}"),
        ]

    @property
    def checked(self) -> str:
        states = [check.holds for check in self.facts.report.checks]
        counts = {"holds": states.count(True), "differs": states.count(False), "unchecked": states.count(None)}
        written = {name: self.language.count(value) for name, value in counts.items()}
        time, total = self.language.moment(self.facts.now), self.language.count(len(states))
        if counts["differs"]:
            return self._say("check.differs", time=time, differs=written["differs"], all=total)
        return self._say("check.holds", time=time, holds=written["holds"], all=total, unchecked=written["unchecked"])

    @property
    def signed(self) -> str:
        return self._say("check.signed" if self.facts.found.seal.public else "check.unsigned")

    @property
    def prints(self) -> dict[str, str]:
        """Fingerprints, by title."""
        found, dossier, erased = self.facts.found, self.facts.dossier, self.facts.erased
        values = {
            "evidence": found.seal.seal,
            "root": dossier.root,
            "key": found.seal.public or "",
            "purge": erased.seal if erased else "",
            "before": dossier.models.original,
            "now": dossier.models.unlearned,
            "data": dossier.data.dvc_hash,
            "run": dossier.run.mlflow_run_id,
            "ledger": self.facts.entry.events[-1].digest,
            "code": dossier.environment["git.commit"],
        }
        return {self._say(f"print.{name}"): value for name, value in values.items() if value}

    @property
    def footer(self) -> str:
        return self._say("footer", time=self.language.moment(self.facts.now))

    @property
    def _finished(self) -> datetime:
        time = self.facts.time_of("promoted")
        assert time is not None, "only fulfilled requests have a page"
        return time

    def _say(self, sentence: str, **values: str) -> str:
        return self.language.say(sentence, **values)

    def _day(self, time: datetime) -> str:
        return self.language.day(time.date())

    def _moment(self, time: str) -> str:
        return self.language.moment(datetime.fromisoformat(time))
