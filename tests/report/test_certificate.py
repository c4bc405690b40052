"""The page for a regulator or a data subject."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from dataclasses import asdict, replace
from datetime import UTC, datetime
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

import dossier_fixtures as made
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from megu.data.splits import Scenario
from megu.evaluation.gate import GateParams, decide
from megu.evaluation.summary import Rung
from megu.lineage.dossier import claim
from megu.lineage.export.card import card
from megu.lineage.reading import Found
from megu.lineage.verify.context import Check
from megu.lineage.verify.run import Report
from megu.report.certificate import Certificate, certificate, render
from megu.report.certificate.figure import bars
from megu.report.certificate.text import Measure

NOW = datetime(2026, 11, 24, 13, 5, tzinfo=UTC)
HELD = [Check("dossier", True, "4 files, whole and as sealed"), Check("files", None, "they are not here")]


def said(found: Found, checks: list[Check] | None = None) -> Certificate:
    return certificate(found, Report("x", made.RUN, found.dossier.root, found.seal.seal, checks or HELD), NOW)


def plain(page: str) -> str:
    """What a reader sees: the text without markup, styles and white space."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL))).split())


def test_it_says_what_was_asked_done_measured_claimed_and_how_to_check_it() -> None:
    found = made.found()
    text = plain(render(said(found)))
    for needed in (
        "A model was made to forget all 2 images of “Sneaker” that it had been trained on.",
        "24 November 2026, 12:00 UTC",
        "2 of 10 training images",
        "97.0%", "0.0%", "91.3%", "91.4%",
        "15.8% of the forgotten images for training images before, 57.2% now, and 58.6% with the model that never saw them",
        "No certificate in the sense of differential privacy or certified removal is claimed.",
        f"megu verify {made.RUN}",
        "megu verify FOLDER --key signing.pub",
        "On 24 November 2026, 13:05 UTC 1 of 2 points were recomputed and hold; none differs; 1 could not be checked",
        found.seal.seal, found.dossier.root, str(found.seal.public),
        "no erasure of the images themselves has been recorded",
    ):  # fmt: skip
        assert needed in text, needed


@pytest.mark.parametrize(
    ("changes", "checks", "state", "badge"),
    [
        ({}, HELD, "good", "Forgotten, as measured"),
        ({"evidence": {"failures": ["NOT forgotten"]}}, HELD, "bad", "Short of what was asked"),
        ({"evidence": {"evaluation": made.evaluation(reference=False)}}, HELD, "open", "Done, not compared"),
        ({}, [Check("files", False, "weights has changed")], "bad", "NOT as recorded"),
    ],
)
def test_the_badge_is_what_was_measured_and_whether_it_holds(
    changes: dict[str, Any], checks: list[Check], state: str, badge: str
) -> None:
    found = said(made.found(**changes), checks)
    assert (found.state, found.badge) == (state, badge)


def test_a_difference_is_said_in_the_first_place() -> None:
    text = plain(render(said(made.found(), [Check("files", False, "weights has changed")])))
    assert "1 differs from what is recorded. Do not rely on this page." in text


def test_single_images_are_counted_and_not_named() -> None:
    scope = {"scenario": "ids", "test_forget": 0}
    found = made.found(request={"words": "2 images", "scenario": "ids", "ids": ["f" * 64, "e" * 64]}, scope=scope)
    page = render(said(found))
    assert "2 single images that it had been trained on" in plain(page)
    assert "gets many of them right all the same" in plain(page)
    assert "f" * 64 not in page


MIXED = {
    "words": "Sneaker, 2 images",
    "scenario": "mixed",
    "classes": ["Sneaker"],
    "subclasses": [],
    "ids": ["f" * 64, "e" * 64],
}


def test_classes_and_single_images_together_are_both_said_and_read_apart() -> None:
    judged = made.evaluation()
    for name, value in (("original", 100.0), ("unlearned", 50.0), ("reference", 0.0)):
        judged[name] = {**judged[name], "metrics": {**judged[name]["metrics"], "Af_single": value}}
    found = made.found(request=MIXED, scope={"scenario": "mixed", "forget": 8}, evidence={"evaluation": judged})
    text = plain(render(said(found)))
    assert "8 images that it had been trained on, all of “Sneaker” and 2 single images" in text
    assert "a whole class: Sneaker; single images: 2" in text
    assert "New images of “Sneaker”. The second bar should be where the third is." in text
    assert "The single images themselves, apart from the classes." in text
    assert "50.0%" in text
    assert "gets many of them right all the same" not in text


@pytest.mark.parametrize(
    ("request_", "shown"),
    [
        (
            {"scenario": "class"},
            "The forgotten images themselves: there are no new images of what was forgotten. The second bar",
        ),
        ({"scenario": "ids", "ids": ["f" * 64]}, "The forgotten images themselves. The second bar"),
        (MIXED, "The forgotten images themselves. The second bar"),
    ],
)
def test_without_new_images_of_it_the_bars_are_said_to_be_of_the_forgotten_ones(request_: dict[str, Any], shown: str) -> None:
    found = made.found(request=request_, scope={"scenario": request_["scenario"], "test_forget": 0})
    assert shown in plain(render(said(found)))


def test_every_kind_of_request_has_its_words() -> None:
    kinds = {
        "class": ({"classes": ["A", "B"]}, "whole classes: A, B"),
        "subclass": ({"classes": ["x"]}, "a part of a class: x"),
        "random": ({"count": 2, "words": "2 random images"}, "2 random images"),
        "ids": ({"ids": ["f" * 64], "words": "1 image"}, "1 image"),
        "mixed": ({"classes": ["A"], "subclasses": ["x", "y"]}, "a whole class: A; parts of classes: x, y"),
    }
    assert set(kinds) == set(get_args(Scenario))
    for scenario, (asked, words) in kinds.items():
        found = made.found(request={"scenario": scenario, "subclasses": [], **asked}, scope={"scenario": scenario})
        assert said(found).asked["Asked to forget"] == words


def test_a_retrain_is_said_to_be_exact() -> None:
    limits = [
        "exact: the model was trained from fresh weights on the retain set alone, so the forgotten images had no part in it"
    ]
    text = plain(render(said(made.found(claim={"level": "exact", "limits": limits}))))
    assert "A new model was trained from scratch on the remaining images alone." in text


TURNED_DOWN = Rung(number=1, method="megu", params={}, outcome="fail", says=["11 points LOST"], mlflow_run_id="1" * 32)
SKIPPED = Rung(number=2, method="scrub", params={}, outcome="skipped", says=["no time"])
OWN = Rung(number=3, method="megu", params={}, outcome="pass", says=[], mlflow_run_id="2" * 32)
CHANCE = "Of several tries one can meet the rules by chance"


@pytest.mark.parametrize(
    ("ladder", "level", "shown", "chance"),
    [
        ([], "empirical", "", False),
        ([OWN], "empirical", "", False),
        ([SKIPPED, OWN], "empirical", "", False),
        ([TURNED_DOWN, SKIPPED, OWN], "empirical", "another one was made for the same request; it fell short", True),
        ([TURNED_DOWN, TURNED_DOWN, OWN], "empirical", "2 others were made for the same request; they fell short", True),
        ([TURNED_DOWN, OWN], "exact", "another one was made for the same request", False),
        ([TURNED_DOWN, replace(OWN, outcome="fail")], "empirical", "another one was made for the same request", False),
    ],
)
def test_models_that_were_turned_down_before_are_said_in_certificate_and_card(
    ladder: list[Rung], level: str, shown: str, chance: bool
) -> None:
    found = made.found(ladder=[asdict(rung) for rung in ladder], claim={"level": level})
    for text in (plain(render(said(found))), card(found)):
        assert ("for the same request" in text) == bool(shown)
        assert shown in text
        assert (CHANCE in text) == chance


def test_a_given_retrain_is_said_to_be_its_givers_word() -> None:
    """In every sentence that the comparison is in; nothing says that it was trained here."""
    judged = copy.deepcopy(made.evaluation())
    judged["reference"]["given"] = "a" * 64
    limits = list(claim("megu", False, retrain="a" * 64).limits)
    shown = said(made.found(evidence={"evaluation": judged}, claim={"limits": limits}))
    text = plain(render(shown))
    assert shown.lead.endswith(
        "It was compared with a model that according to its provider never saw them, and behaves like it within the limits stated below."
    )
    assert "For comparison another model was brought in from outside, not trained here" in text
    assert "with the model that according to its provider never saw them" in shown.attack
    assert "another model was trained" not in text
    assert "“never saw it” is the one brought in for comparison, which according to its provider never saw it" in text
    assert shown.identifiers["Weights of the given retrain (SHA-256)"] == "a" * 64
    assert f"The retrain was given (weights SHA-256 {'a' * 64}), not trained here" in text
    assert "given retrain" in card(made.found(evidence={"evaluation": judged}))


@pytest.mark.parametrize(
    ("ar", "state", "badge"), [(91.0, "open", "Judged without a retrain"), (80.0, "bad", "Short of what was asked")]
)
def test_what_is_judged_without_a_retrain_is_called_that_and_never_good(ar: float, state: str, badge: str) -> None:
    judged = copy.deepcopy(made.evaluation(reference=False))
    judged["held_out"] = {"forgotten": 6000, "images": 1000, "chance": 10.0}
    for name in ("original", "unlearned"):
        judged[name]["per_class_retained"] = [90.0, None]
        judged[name]["metrics"] |= {"Af_held_out": 0.0, "MIA_held_out": 57.0}
    judged["unlearned"]["metrics"]["Ar"] = ar
    verdict = decide(judged, GateParams(), champion="1")
    evidence = {
        "evaluation": judged,
        "failures": verdict.failures,
        "gate": {"champion": "1", "decision": verdict.decision, "rules": [asdict(rule) for rule in verdict.rules]},
    }
    limits = list(claim("megu", False, alone=True).limits)
    shown = said(made.found(evidence=evidence, claim={"limits": limits}))
    text = plain(render(shown))
    assert (shown.state, shown.badge) == (state, badge)
    assert "No model that never saw them was available for comparison" in shown.lead
    assert "not judged seeds not judged: no retrain" in text
    assert "No model that never saw the forgotten images was there to compare with" in text
    assert ("that is less than a pass" in text) == (state == "open")
    assert ("10.8 points of the rest LOST" in shown.lead) == (state == "bad")


def test_unsigned_is_said() -> None:
    text = plain(render(said(made.found(signed=False))))
    assert "This dossier is not signed." in text
    assert "--key" not in text


def test_a_gates_decision_is_shown_where_a_dossier_has_one() -> None:
    shown = said(made.found())
    assert shown.state == "good"
    text = plain(render(shown))
    assert "a person has to decide whether this model is taken into use" in text
    assert "holds retained, test -0.1 points to the retrain" in text
    lost = {"rule": "retained, test", "holds": False, "value": 80.0, "low": 89.9, "high": None, "reason": "11.4 points LOST"}
    failed = said(made.found(evidence={"gate": {"champion": None, "decision": "fail", "rules": [lost]}}))
    assert failed.badge == "Short of what was asked"
    assert "may NOT take the place" in plain(render(failed))


def test_what_became_of_the_copies_is_shown_where_a_purge_is_recorded() -> None:
    older = made.purge_document(("backups", "RESIDUAL", "1 left"))
    latest = made.purge_document(("data set", "ERASED", "12 erased"), ("old models", "RETAINED", "1 stays until 2027-01-01"))
    text = plain(render(said(made.found(purges=[older, latest]))))
    assert "data set ERASED 12 erased" in text
    assert "old models RETAINED 1 stays until 2027-01-01" in text
    assert "RESIDUAL" not in text


def test_a_purge_document_that_the_dossiers_signer_did_not_sign_is_not_believed() -> None:
    stranger = Ed25519PrivateKey.from_private_bytes(b"x" * 32)
    for content in (b"{", made.purge_document(("data set", "ERASED", "12 erased"), key=stranger)):
        text = plain(render(said(made.found(purges=[content]))))
        assert "not believed" in text
        assert "ERASED" not in text


def test_the_bars_are_as_long_as_their_values() -> None:
    drawn = str(bars(Measure("t", [50.0, 0.0, None], "r")))
    assert re.findall(r'width="([\d.]+)" height="14" rx="2" fill', drawn) == ["260.0", "1.5", "1.5"]
    assert ">50.0%</text>" in drawn
    assert ">—</text>" in drawn


def test_the_page_needs_nothing_from_elsewhere_and_is_well_formed() -> None:
    page = render(said(made.found()))
    assert not re.search(r"(?:src|href)=|url\(|@import", page)
    assert render(said(made.found())) == page
    open_tags: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            if tag not in ("meta", "rect"):
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag != "rect":
                assert open_tags.pop() == tag

    Checker().feed(page)
    assert open_tags == []


def test_what_a_dossier_says_cannot_become_markup() -> None:
    page = render(said(made.found(request={"words": "<script>alert(1)</script>"})))
    assert "<script>" not in page


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="a browser is no dependency")
def test_a_browser_prints_it_on_a4(tmp_path: Path) -> None:
    (tmp_path / "c.html").write_text(render(said(made.found())))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'c.pdf'}", str(tmp_path / "c.html")]
    subprocess.run(command, check=True, capture_output=True, timeout=250)
    content = (tmp_path / "c.pdf").read_bytes()
    boxes = re.findall(rb"/MediaBox ?\[0 0 ([\d.]+) ([\d.]+)\]", content)
    assert 1 <= len(boxes) <= 4
    assert {(round(float(width)), round(float(height))) for width, height in boxes} <= {(595, 842), (596, 842)}
