"""What each metric is, which value of it is right, and why: for the report, the reference page and anyone who reads a table.

This module needs only the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Group of the metrics that declare none: those of other packages.
OWN = "own"


@dataclass(frozen=True)
class Metric:
    """title, right (the value that is right), why: text, one line each. unit: of the number, "" for a share in [0, 1].

    brief: also in the short table of the terminal. group: of its chart in MLflow (`megu.tracking.charts`), one word.
    """

    title: str
    unit: Literal["%", "nats", "points", "steps", ""]
    right: str
    why: str
    brief: bool = False
    group: str = OWN


#: Every metric that an evaluation can have, in the order of the report.
METRICS = {
    "Af": Metric(
        "Af: forgotten, test",
        "%",
        "the retrain's (0 for a whole class)",
        "A model that never saw the class cannot name it; with a sub-class or single samples it still gets many right.",
        brief=True,
        group="forgotten",
    ),
    "Ar": Metric(
        "Ar: retained, test",
        "%",
        "the retrain's",
        "Forgetting must cost the rest nothing; a retrain often gains a little, with one class fewer to confuse.",
        brief=True,
        group="retained",
    ),
    "MIA": Metric(
        "MIA: called members",
        "%",
        "the retrain's, not zero",
        "A retrain is confident about some forgotten images without having seen them. Far above it: still remembered. Far below it: "
        "over-forgotten, which an attacker can see.",
        brief=True,
        group="attack",
    ),
    "Af_train": Metric(
        "forgotten, train",
        "%",
        "the retrain's",
        "The samples of the request themselves, whether or not the rest of their class is forgotten.",
        brief=True,
        group="forgotten",
    ),
    "Af_single": Metric(
        "forgotten, single images",
        "%",
        "the retrain's",
        "For a request for classes and single images together: the single images alone, which the classes outnumber.",
        group="forgotten",
    ),
    "Ar_train": Metric(
        "retained, train",
        "%",
        "the retrain's",
        "What was learned from the rest must stay learned.",
        brief=True,
        group="retained",
    ),
    "test_accuracy": Metric(
        "whole test set",
        "%",
        "the retrain's",
        "Includes the forgotten class where there is one, so it falls by its share.",
        brief=True,
        group="test",
    ),
    "entropy_forget": Metric(
        "entropy on forgotten",
        "nats",
        "the retrain's",
        "How unsure the answers are, which is what the MIA sees. Too sure: remembered. Too unsure: visibly scrubbed.",
        brief=True,
        group="forgotten",
    ),
    "entropy_retain": Metric(
        "entropy on retained",
        "nats",
        "the retrain's",
        "Unlearning must not blur the rest.",
        group="retained",
    ),
    "entropy_test": Metric(
        "entropy on test",
        "nats",
        "the retrain's",
        "The same, on images that no model was trained on.",
        group="test",
    ),
    "Af_held_out": Metric(
        "held-out, same classes",
        "%",
        "that of forgotten, train",
        "Test images of the classes of the forgotten images, each class weighted by its share. A model that never saw the forgotten images "
        "gets no more of them right than of these.",
        brief=True,
        group="held_out",
    ),
    "MIA_held_out": Metric(
        "MIA on held-out, same classes",
        "%",
        "that of MIA",
        "The share that the same attack takes for members among images that no model was trained on: the forgotten images should not differ.",
        brief=True,
        group="held_out",
    ),
    "entropy_held_out": Metric(
        "entropy on held-out, same classes",
        "nats",
        "that on forgotten",
        "How unsure the answers are about unseen images of the same classes.",
        brief=True,
        group="held_out",
    ),
    "MIA_SVM": Metric(
        "MIA by SVM: called members",
        "%",
        "the retrain's, not zero",
        "The same attack with another threshold. Where the two differ much, the score depends on the threshold and neither means much.",
        group="attack",
    ),
    "RMIA_AUC": Metric(
        "shadow attack (RMIA): AUC",
        "",
        "the retrain's, about 0.5",
        "Forgotten training samples against test samples of the same class, class by class, each compared with shadow models that never saw "
        "it. A retrain saw neither. Above it: still recognised as members. Below it: pushed below the unseen ones, which shows too.",
        group="attack",
    ),
    "RMIA_TPR_1": Metric(
        "shadow attack: found at 1% false alarms",
        "%",
        "the retrain's, about 1",
        "The few samples that an attacker can be certain of; an average hides them.",
        group="attack",
    ),
    "RMIA_TPR_01": Metric(
        "shadow attack: found at 0.1% false alarms",
        "%",
        "the retrain's, about 0.1",
        "The same, but more certain still. With fewer than 1,000 test samples of the class no false alarm at all is allowed, and the value "
        "varies a lot.",
        group="attack",
    ),
    "relearn_steps": Metric(
        "relearn time",
        "steps",
        "the retrain's",
        "Steps of fine-tuning on the forget set until the original's accuracy on it is back. Fewer than the retrain's: it was hidden, not "
        "forgotten. More: the model was damaged. A dash: not back when the count was given up.",
        group="deep",
    ),
    "probe": Metric(
        "linear probe: forgotten, right",
        "%",
        "the retrain's, not zero",
        "The share of the other forgotten images that a linear classifier on the frozen features gets right after seeing a few. Far above the "
        "retrain's: only the last layer forgot. A network that learned the rest can distinguish much of what it never saw.",
        group="deep",
    ),
    "relearn_retain": Metric(
        "back from the retain set alone",
        "%",
        "the retrain's, not zero",
        "Forgotten images that are recognised again after fine-tuning and a new last layer, both from retained images alone. Far above the "
        "retrain's: it was hidden, not forgotten.",
        group="deep",
    ),
    "relearn_few": Metric(
        "back from a few forgotten images",
        "%",
        "the retrain's, not zero",
        "The other forgotten images that are recognised after fine-tuning on a few. A retrain learns a new class from a few images too; far "
        "above it, the class was still there.",
        group="deep",
    ),
    "gap": Metric(
        "mean gap over Ar, Af, MIA",
        "points",
        "0, or another retrain's",
        "Mean absolute difference from the retrain of the run's seed. Two retrains differ too: below their gap, differences are chance.",
        group="comparison",
    ),
    "ToW": Metric(
        "tug of war (ToW)",
        "",
        "1, or another retrain's",
        "Product of 1 - |accuracy - the retrain's| on forgotten, retained and test images: one bad side spoils it (Zhao et al. 2024).",
        group="comparison",
    ),
    "JS_forget": Metric(
        "Jensen-Shannon on forgotten",
        "nats",
        "0, or another retrain's",
        "How far the answers on forgotten images are from the retrain's, between 0 and 0.69. Equal accuracies can hide different answers.",
        group="comparison",
    ),
    "JS_test": Metric(
        "Jensen-Shannon on test",
        "nats",
        "0, or another retrain's",
        "The same on the whole test set: what users of the model see.",
        group="comparison",
    ),
}


def title(name: str, metric: Metric, *, on_training: bool) -> str:
    """Return the title of the metric ``name``. on_training: Af is measured on the forgotten training images, for want of test images
    (`megu.evaluation.gate.on_training`)."""
    return "Af: forgotten, train (no test)" if name == "Af" and on_training else metric.title
