"""The page of one request: every fact that a regulator needs, in each language, and nothing of anybody else's request."""

from __future__ import annotations

import re
import shutil
import string
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import dossier_fixtures as made
import numpy as np
import pytest

from megu.cli import main as cli
from megu.core.errors import MeguError
from megu.core.project import Project
from megu.erasure.params import PurgeParams
from megu.evaluation.gate import ALONE, DEEP, RULES, Decision
from megu.lineage.commitments import commit
from megu.lineage.dossier import claim
from megu.lineage.keys import Keys
from megu.lineage.promoted.champions import MOVED
from megu.lineage.purged.document import Entry as Kept
from megu.lineage.purged.document import parse, sealed
from megu.lineage.purged.locations import SURFACES, VERSIONS
from megu.lineage.verify.context import Check
from megu.lineage.verify.run import Report
from megu.promotion.moves import RATIONALES
from megu.promotion.params import PromotionParams, RegistryParams
from megu.report.certificate import language, request
from megu.report.certificate.language import codes, read
from megu.report.certificate.request import LIMITS, Facts, facts
from megu.report.certificate.request_page import render_request
from megu.requests.inbox import Inbox
from megu.requests.request import BASES, REASONS, REQUESTERS, Request, RequestParams
from megu.requests.states import STATES
from megu.serving.follow import SEEN
from megu.suppression import store as suppressions
from megu.suppression.record import made as suppression_record

HELD = [Check("dossier", True, "4 files, whole and as sealed"), Check("files", None, "they are not here")]
NOW = datetime(2026, 12, 24, 13, 5, tzinfo=UTC)
CONTROLLER = "Beispiel GmbH, Musterstadt"
PARAMS = RequestParams(controller=CONTROLLER, backups_days=60)
#: What the others of the batch asked for, and the counts of all of it together: none of it may be on the page.
OTHERS = ("Zebra", "Yak")
COUNTS = {"forget": 4321, "retain": 55679, "test_forget": 877}


def plain(page: str) -> str:
    """What a reader sees: the text without markup, styles and white space."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL))).split())


def asked(name: str, **more: Any) -> Request:
    fields = {"basis": "gdpr-17-1-b", "requester": "data-subject", "due": "2030-12-24", "data": "photos"}
    return Request(**{"classes": (name,), **fields, **more})


def fulfilled(project: Project, wanted: list[tuple[Request, int]], event: int) -> list[str]:
    """Requests of one batch, each with how many samples it is, up to their promotion with version 2."""
    inbox = Inbox(project)
    ids = [inbox.add(one).id for one, _ in wanted]
    samples = {str(one.target): count for one, count in wanted}
    inbox.review(lambda target: ("", samples[str(target)]))
    for state in ("processing", "unlearned", "verified", "approved", "promoted"):
        facts = {"batch": "b0123456789abcdef", "version": "megu/2", "mlflow_run": made.RUN, "event": event}
        inbox.move(ids, state, facts)  # type: ignore[arg-type]
    return ids


def moved(project: Project, **more: Any) -> int:
    facts = {"why": "promotion", "version": "2", "from": "1", "run_id": made.RUN, "approver": "K. Muster", "automatic": False}
    facts |= {"rationale": "evidence-holds", "seal": "s" * 64, "gate": "pass", "data": "photos", **more}
    return project.ledger.append(MOVED, "megu", facts).number


def dossier(project: Project, *purges: bytes, **changes: Any) -> None:
    """The dossier of the batch's run, which names all that was forgotten together."""
    rule = {"rule": "each class, test", "holds": True, "value": 1.5, "low": None, "high": 5.0, "reason": "Zebra +1.5 points"}
    words = {"words": "Sneaker, Zebra, Yak", "scenario": "class", "classes": ["Sneaker", *OTHERS]}
    given: dict[str, Any] = {"request": words, "scope": COUNTS, "evidence": {"verdict": "Sneaker, Zebra, Yak: 97% → 0%"}}
    gate = made.main_of(made.found())["evidence"]["gate"]
    given["evidence"]["gate"] = {**gate, "decision": "pass", "rules": [*gate["rules"][:-1], rule]}
    given["evidence"] |= changes.pop("evidence", {})
    folder = made.written(project.dossiers / made.RUN, made.found(**given, **changes))
    for number, content in enumerate(purges, start=1):
        (folder / ("purge.json" if number == 1 else f"purge-{number}.json")).write_bytes(content)


def purge(until: str | None = "2027-01-23", **verdicts: str) -> bytes:
    """A signed purge of the run: the images are gone, earlier versions stay until a day. verdicts: of other places."""
    says = "4,321 erased; Zebra and Yak"
    given = {**dict.fromkeys(SURFACES, "ERASED"), VERSIONS: "RETAINED", **verdicts}
    content = made.purge_document(*((name, verdict, says) for name, verdict in given.items()))
    found = parse(content, "purge.json", [_public()]).purge
    entry = Kept(surface=VERSIONS, what="models:/megu/1", sha256=None, why="trained on Zebra", until=until)
    policy = {"models_days": 30, "test_images": True}
    return sealed(replace(found, retained=[entry], policy=policy, created="2026-11-30T09:00:00+00:00"), made.SIGNING).to_bytes()


def _public() -> str:
    from megu.lineage.keys import public_of

    return public_of(made.SIGNING)


@pytest.fixture
def batch(project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Makes a batch of three in the project and returns the id of the first, which is looked at."""
    monkeypatch.setenv("MEGU_PROJECT", str(project.root))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    project.data("photos").mkdir(parents=True)
    # What verifying a dossier finds has tests of its own; one made by hand has no project to be checked against.
    monkeypatch.setattr(request, "verify", lambda run, *_, **__: Report(run, run, "root", "seal", HELD))

    def make(mine: Request | None = None, *purges: bytes, move: dict[str, Any] | None = None, **changes: Any) -> str:
        dossier(project, *purges, **changes)
        others = [
            (asked(OTHERS[0], reason="objection", reference="DSR-2026-0999", basis="gdpr-17-1-c"), 777),
            (asked(OTHERS[1], reason="security-incident", requester="court", basis="court-order"), 3532),
        ]
        mine = mine or asked("Sneaker", reference="DSR-2026-0142", due="2026-12-24")
        return fulfilled(project, [(mine, 12), *others], moved(project, **(move or {})))[0]

    return make


def looked(project: Project, name: str, served: str | None = None, params: RequestParams = PARAMS) -> Facts:
    return facts(project, name, params, RegistryParams(), PromotionParams(served=served), PurgeParams(), NOW)


def said(project: Project, name: str, code: str = "en", **more: Any) -> str:
    return plain(render_request(looked(project, name, **more), read(code)))


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_language_has_every_sentence_with_the_same_placeholders() -> None:
    languages = {code: read(code) for code in codes()}
    assert {"en", "de"} <= set(languages)
    english = languages["en"]
    for code, other in languages.items():
        assert set(other.sentences) == set(english.sentences), code
        assert len(other.months) == 12
        assert placeholders(other.dates) == {"day", "month", "year"}
        assert placeholders(other.times) == {"date", "clock"}
        for name, text in other.sentences.items():
            assert placeholders(text) == placeholders(english.sentences[name]), (code, name)
            assert text == text.strip(), (code, name)
        same = [name for name, text in other.sentences.items() if text == english.sentences[name]]
        assert code == "en" or same == [], f"{code}: not translated"


def test_every_word_of_the_ledger_the_gate_and_the_purge_has_its_sentence() -> None:
    rules = {"evidence", "seeds", "forgotten, test", "forgotten, train", "forgotten, single images", "retained, test"}
    rules |= {"each class, test", "MIA", "shadow attack", *DEEP}
    assert len(rules) == len(RULES) == len(ALONE) + 1, "a new rule needs a sentence"
    wanted = {
        "rule": rules, "gate": get_args(Decision), "reason": REASONS, "basis": BASES, "requester": REQUESTERS, "state": STATES,
        "rationale": (*RATIONALES, "policy", "in words"), "place": SURFACES, "verdict": ("ERASED", "RETAINED", "RESIDUAL"),
        "limit": LIMITS, "badge": ("good", "open", "bad"),
    }  # fmt: skip
    for family, names in wanted.items():
        missing = [name for name in names if not read("en").has(f"{family}.{name}")]
        assert missing == [], family


def test_every_sentence_is_asked_for_somewhere() -> None:
    folder = Path(language.__file__).parent
    code = (folder / "request_page.py").read_text() + (folder / "request.html").read_text()
    certain = set(re.findall(r'say\(\s*"([^"]+)"', code))
    asked_for = certain | set(re.findall(r'"([a-z]+(?:\.[a-z_]+)+)"', code))
    families = set(re.findall(r'say\(f"([a-z]+)\.', code)) | {"what", "kept"}
    unused = [name for name in read("en").sentences if name not in asked_for and name.partition(".")[0] not in families]
    assert unused == []
    assert [name for name in certain if not read("en").has(name)] == []


@pytest.mark.parametrize("method", ["megu", "retrain"])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("rest", [{}, {"pretrained": True}, {"retrain": "a" * 64}, {"alone": True}])
def test_every_limit_of_a_claim_has_its_sentence(method: str, given: bool, rest: dict[str, Any]) -> None:
    for text in claim(method, given, **rest).limits:
        assert [name for name, start in LIMITS.items() if text.startswith(start)], text


NEEDED = {
    "en": (
        "Certificate of a fulfilled request", "Forgotten by the model; not all is done", "Controller Beispiel GmbH, Musterstadt",
        "Reference DSR-2026-0142", "Due 24 December 2026", "on time", "the class “Sneaker”", "12 training images", "Data set photos",
        "Art. 17(1)(b) GDPR: consent withdrawn", "the data subject", "a request for erasure",
        "Version megu/2 went into production on", "It was approved by K. Muster (the evidence holds)", "version megu/1 was in production",
        "Method: the model was changed", "97.0%", "91.3%", "Verdict of the gate: pass",
        "Largest loss in any other class (points) holds 1.5 at most 5.0",
        "No server is configured to be checked", "have not been erased from the stores yet",
        "until an erasure on or after 24 December 2026", "Suppression list: no record", "the controller has not stated it",
        "It is no proof.", "certified removal", "Who asked, and whether they were entitled to",
        f"megu verify {made.RUN}", "Signed with the key below",
        "On 24 December 2026, 13:05 UTC 1 of 2 points were recomputed and hold; none differs; 1 could not be checked",
    ),
    "de": (
        "Bescheinigung über einen erfüllten Antrag", "Vom Modell vergessen; noch nicht alles erledigt",
        "Verantwortlicher Beispiel GmbH, Musterstadt",
        "Aktenzeichen DSR-2026-0142", "Fällig 24. Dezember 2026", "fristgerecht",
        "die Klasse „Sneaker“", "12 Trainingsbilder", "Datensatz photos",
        "Art. 17 Abs. 1 Buchst. b DSGVO", "der betroffenen Person", "ein Antrag auf Löschung",
        "Version megu/2 ging am", "Freigegeben hat sie K. Muster (die Nachweise sind stichhaltig)", "war Version megu/1 im Einsatz",
        "Verfahren: Das Modell wurde so verändert", "97,0%", "91,3%", "Ergebnis der Prüfregeln: bestanden", "eingehalten 1,5 höchstens 5,0",
        "Es ist kein Server eingetragen", "noch nicht aus den Speichern gelöscht",
        "bis zu einer Löschung am oder nach dem 24. Dezember 2026", "Sperrliste: kein Eintrag", "hat es nicht angegeben",
        "Es ist kein Beweis.", "certified removal", "Wer den Antrag gestellt hat",
        f"megu verify {made.RUN}", "Unterschrieben mit dem unten genannten Schlüssel",
        "Am 24. Dezember 2026, 13:05 UTC wurden 1 von 2 Punkten nachgerechnet und stimmen",
    ),
}  # fmt: skip


@pytest.mark.parametrize("code", NEEDED)
def test_a_regulator_finds_every_fact(project: Project, batch: Callable[..., str], code: str) -> None:
    name = batch()
    text, found = said(project, name, code), made.found()
    for needed in (*NEEDED[code], name, _public(), found.dossier.root, found.dossier.models.unlearned):
        assert needed in text, needed
    assert looked(project, name).found.seal.seal in text
    assert Inbox(project).entry(name).events[-1].digest in text


@pytest.mark.parametrize("code", NEEDED)
@pytest.mark.parametrize("purged", [False, True])
def test_nobody_else_of_the_batch_is_on_the_page(project: Project, batch: Callable[..., str], code: str, purged: bool) -> None:
    name = batch(None, *([purge()] if purged else []))
    suppressed(project, [entry.id for entry in Inbox(project).entries()])
    page = render_request(looked(project, name), read(code))
    assert name in page
    words = read(code)
    counts = [*COUNTS.values(), 777, 3532, 60000]
    for hidden in (
        *(entry.id for entry in Inbox(project).entries() if entry.id != name),
        *OTHERS, "DSR-2026-0999", "b0123456789abcdef",
        *(words.say(f"reason.{reason}") for reason in ("objection", "security-incident")),
        *(words.say(f"basis.{basis}") for basis in ("gdpr-17-1-c", "court-order")), words.say("requester.court"),
    ):  # fmt: skip
        assert hidden not in plain(page), hidden
        assert hidden not in page.partition("</style>")[2], hidden
    text = re.sub(r"\b[rs]?[0-9a-f]{16,}\b", "", plain(page))  # a fingerprint may have any digits
    assert not [count for count in counts if str(count) in text or (count > 999 and words.count(count) in text)]


def suppressed(project: Project, requests: list[str], until: str | None = "2036-11-30") -> str:
    key = Keys(project.keys).commitment_key(create=True)
    assert key is not None
    record = suppression_record(
        key,
        [commit(key, b"a" * 32)],
        np.zeros((0, 12), np.uint8),
        erased="2026-11-30T09:00:00+00:00",
        requests=requests,
        runs=[made.RUN],
        data="photos",
        shape=[4, 4, 1],
        samples=4321,
        until=until,
    )
    suppressions.Suppressions(project).add([record])
    return record.header.id


def test_after_an_erasure_it_says_what_is_gone_and_what_stays_until_when(project: Project, batch: Callable[..., str]) -> None:
    name = batch(None, purge())
    record = suppressed(project, [name])
    Inbox(project).path(name).unlink()
    assert looked(project, name).state == "good"
    text = said(project, name)
    for needed in (
        "Fulfilled",
        "a class (its name was erased)",
        "the data themselves were erased on 30 November 2026, 09:00 UTC",
        "The test images of the class were erased with them.",
        "Data set erased",
        "Earlier model versions something stays on purpose",
        "Earlier model versions that had been trained on the data 23 January 2027",
        f"Suppression list, record {record}",
        "30 November 2036",
        "29 January 2027, as the controller states",
        "what a storage medium physically keeps of them was not examined",
        f"megu verify {made.RUN} --sealed",
    ):
        assert needed in text, needed
    assert "What the request names" not in text


def test_an_erasure_that_left_something_is_not_all_that_was_asked_for(project: Project, batch: Callable[..., str]) -> None:
    name = batch(None, purge(reports="RESIDUAL"))
    assert looked(project, name).state == "open"
    assert "Reports something is left that could not be erased" in said(project, name)


def test_a_purge_that_is_not_believed_is_called_that(project: Project, batch: Callable[..., str]) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    stranger = made.purge_document(("data set", "ERASED", "12 erased"), key=Ed25519PrivateKey.from_private_bytes(b"x" * 32))
    name = batch(None, stranger)
    assert "There is a document about an erasure, but it cannot be relied on" in said(project, name)
    assert looked(project, name).state != "good"


def test_what_is_served_is_said_as_it_was_seen(project: Project, batch: Callable[..., str]) -> None:
    name = batch(None, purge())
    url = "http://127.0.0.1:5001"
    assert looked(project, name, served=url).state == "open"
    assert "it has not yet been observed answering as version megu/2" in said(project, name, served=url)
    (move,) = project.ledger.events("megu", MOVED)
    project.ledger.append(SEEN, "megu", {"event": move.number, "version": "2"})
    Inbox(project).move([name], "closed", {"served": "megu/2"})
    text = said(project, name, served=url)
    assert looked(project, name, served=url).state == "good"
    assert "its answers were those of version megu/2" in text
    assert "a server was observed answering with the version in production" in text
    assert "UTC closed" in text
    assert url not in text


@pytest.mark.parametrize(
    ("mine", "shown"),
    [
        (asked("x", classes=(), subclasses=("oak",)), "the part of a class “oak”"),
        (asked("x", classes=("A", "B")), "the classes “A, B”"),
        (asked("x", classes=(), ids=("a" * 32,)), "to forget one image"),
        (asked("x", classes=(), ids=("a" * 32,), files=("train/cat/jane-doe.png",)), "to forget 2 images"),
    ],
)
def test_what_was_asked_for_is_said_and_no_image_is_named(
    project: Project, batch: Callable[..., str], mine: Request, shown: str
) -> None:
    text = said(project, batch(mine))
    assert shown in text
    assert "a" * 32 not in text
    assert "jane-doe" not in text


@pytest.mark.parametrize(
    ("move", "shown"),
    [
        ({"automatic": True, "approver": "policy", "rationale": "policy"}, "It was approved by the configured policy"),
        ({"from": None, "rationale": "in words"}, "Before it, a model was in use that had been trained on these data."),
    ],
)
def test_who_approved_and_what_was_before(
    project: Project, batch: Callable[..., str], move: dict[str, Any], shown: str
) -> None:
    assert shown in said(project, batch(move=move))


def test_a_request_that_was_late_and_one_that_nobody_erases_are_said_to_be(project: Project, batch: Callable[..., str]) -> None:
    name = batch(asked("Sneaker", due="2026-01-01"))
    assert "after the due date" in said(project, name)
    assert "the due date" in said(project, name)
    ever = facts(project, name, RequestParams(), RegistryParams(), PromotionParams(), PurgeParams(models_days=None), NOW)
    assert ever.controller == project.root.name
    assert ever.versions_until is None


def test_without_a_retrain_and_with_a_difference_it_says_so(project: Project, batch: Callable[..., str]) -> None:
    name = batch(
        evidence={"evaluation": made.evaluation(reference=False)}, claim={"limits": claim("megu", False, alone=True).limits}
    )
    text = said(project, name)
    assert "No model that never saw these data was available for comparison." in text
    assert "Without such a model, nobody can say where the bar “now” should be." in text


def test_what_differs_is_said_in_the_first_place_and_a_dossier_that_is_cut_makes_no_page(
    project: Project, batch: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = batch(None, purge())
    differs = [*HELD, Check("chain", False, "of Zebra")]
    monkeypatch.setattr(request, "verify", lambda run, *_, **__: Report(run, run, "root", "seal", differs))
    text = said(project, name)
    assert "NOT as recorded" in text
    assert "1 of 3 points differed from what is recorded. Do not rely on this page." in text
    assert "Zebra" not in text
    (project.dossiers / made.RUN / "forgotten.hmac").write_bytes(b"")
    with pytest.raises(MeguError, match="cannot be used"):
        looked(project, name)


def test_the_page_stands_alone_is_well_formed_and_takes_no_markup(project: Project, batch: Callable[..., str]) -> None:
    name = batch(asked("<script>alert(1)</script>"), purge())
    found = looked(project, name, params=RequestParams(controller="<b>A & B</b>"))
    for code in codes():
        page = render_request(found, read(code))
        assert f'<html lang="{code}">' in page
        assert not re.search(r"(?:src|href)=|url\(|@import", page)
        assert "<script>" not in page
        assert "<b>" not in page
        assert render_request(found, read(code)) == page
        open_tags: list[str] = []

        class Checker(HTMLParser):
            def handle_starttag(self, tag: str, attrs: Any, tags: list[str] = open_tags) -> None:
                if tag not in ("meta", "rect"):
                    tags.append(tag)

            def handle_endtag(self, tag: str, tags: list[str] = open_tags) -> None:
                if tag != "rect":
                    assert tags.pop() == tag

        Checker().feed(page)
        assert open_tags == []


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.chdir(tmp_path)

    def called(*arguments: str) -> tuple[int, str, str]:
        code = cli.guarded(lambda: cli.app(list(arguments), standalone_mode=False))
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return called


def test_the_command_writes_a_page_in_a_language(project: Project, batch: Callable[..., str], call: Call) -> None:
    project.params.write_text(f"requests: {{controller: '{CONTROLLER}'}}\n")
    name = batch()
    code, out, _ = call("certificate", "--request", name, "--language", "de", "--out", "made/antrag.html")
    assert code == 0
    assert out.startswith("made/antrag.html: Vom Modell vergessen; noch nicht alles erledigt. Am ")
    assert CONTROLLER in (project.root / "made" / "antrag.html").read_text()
    assert call("certificate", "--request", name)[0] == 0
    assert '<html lang="en">' in (project.root / "certificate.html").read_text()


def test_what_has_no_page_is_one_line_and_leaves_nothing(project: Project, batch: Callable[..., str], call: Call) -> None:
    name = batch()
    waiting = Inbox(project).add(asked("Bag")).id
    rejected = Inbox(project).add(asked("Hat")).id
    Inbox(project).review(
        lambda target: ("1 of 1 classes are not in the data set", 0) if "Hat" in target["classes"] else ("", 1)
    )
    for arguments, line in (
        (("--request", "r0"), "there is no request r0: `megu request list` names them"),
        (("--request", waiting), f"{waiting} is accepted, not fulfilled: there is a page when"),
        (("--request", rejected), f"{rejected} is rejected, not fulfilled (1 of 1 classes are not in the data set): there is"),
        (("--request", name, "--language", "fr"), "there is no language 'fr': --language is one of de, en"),
        (("--request", name, "--language", "../de"), "there is no language '../de'"),
        ((made.RUN, "--request", name), "a certificate needs a dossier or a request"),
        ((), "a certificate needs a dossier or a request"),
        (("--request", name, "--out", "params.yaml/x.html"), "params.yaml/x.html cannot be written"),
    ):
        code, out, err = call("certificate", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), arguments
        assert err.startswith(f"megu: {line}"), err
    shutil.rmtree(project.dossiers)
    code, _, err = call("certificate", "--request", name)
    assert (code, err.count("\n")) == (2, 1)
    assert not list(project.root.glob("*.html"))


def test_the_facts_need_no_torch() -> None:
    import sys

    program = "import sys; sys.modules['torch'] = None; import megu.report.certificate.request_page, megu.serving.check"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(request.__file__).parents[3])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="a browser is no dependency")
@pytest.mark.parametrize("code", NEEDED)
def test_a_browser_prints_it_on_a4(project: Project, batch: Callable[..., str], tmp_path: Path, code: str) -> None:
    name = batch(None, purge())
    (tmp_path / "c.html").write_text(render_request(looked(project, name), read(code)))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'c.pdf'}", str(tmp_path / "c.html")]
    subprocess.run(command, check=True, capture_output=True, timeout=250)
    content = (tmp_path / "c.pdf").read_bytes()
    boxes = re.findall(rb"/MediaBox ?\[0 0 ([\d.]+) ([\d.]+)\]", content)
    assert 1 <= len(boxes) <= 5
    assert {(round(float(width)), round(float(height))) for width, height in boxes} <= {(595, 842), (596, 842)}
