"""One self-contained HTML page: nothing on it needs the network."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from megu.evaluation.text import conclusions, gate_rows, guided_rows, ladder_rows, number, summary_rows
from megu.report.data import ReportData
from megu.report.templates import template

#: Figure -> what it shows, and how to read it. In the order of the page.
CAPTIONS = {
    "per-class-accuracy": (
        "Accuracy by class, before and after",
        "Test accuracy. The forgotten class should fall to the retrain's level; every other class should stay where it is.",
    ),
    "samples": (
        "What the forget samples were taught",
        "Forgotten training images, the original's answers, and the perturbing labels that replaced them.",
    ),
    "near-duplicates": (
        "Images that are almost the same",
        "Copies that differ at most in size, quality or contrast; orange: forgotten. A copy that stays keeps teaching what should be "
        "forgotten; forget.near_duplicates: include forgets it too. A copy in both train and test makes the test easier; one in two "
        "classes means that a label is wrong.",
    ),
    "entanglement": (
        "Feature entanglement in the original",
        "Soft: cosine of centred class-mean features. Hard: share of active channels that two classes have in common; "
        "beside each name, the share of its active channels that no other class uses. "
        "A forgotten class that is bright beside another is hard to forget without harm to it.",
    ),
    "transition": (
        "Transition matrix",
        "Column k: what exemplars of class k look like to the labeler, summing to 1.",
    ),
    "noise": (
        "Feature noise",
        "Positive noise pulls towards a label, negative noise pushes away from the forgotten class; forget samples carry a mixture.",
    ),
    "confidence": (
        "How sure the models are",
        "The largest probability of each answer. A model that is much less sure of forgotten images than the retrain also gives them away.",
    ),
    "entropy": (
        "What the membership attack sees",
        "Entropy of each answer: the attack's only feature. Forgotten images should lie where the retrain has them.",
    ),
}


def render(data: ReportData, figures: Mapping[str, bytes]) -> str:
    """Render the page. figures: PNG bytes by name, those of `CAPTIONS` in its order; a missing one is left out."""
    shown = [
        {"name": name, "title": title, "caption": caption, "png": base64.b64encode(figures[name]).decode()}
        for name, (title, caption) in CAPTIONS.items()
        if name in figures
    ]
    return template("megu.report", "report.html").render(
        data=data,
        summary=data.summary,
        rows=summary_rows(data.summary),
        guided=guided_rows(data.summary),
        gate=gate_rows(data.summary.gate.rules) if data.summary.gate else [],
        ladder=ladder_rows(data.summary.ladder),
        conclusions=conclusions(data.summary),
        figures=shown,
        number=number,
    )
