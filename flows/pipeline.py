"""The pipeline of MeGU (arXiv 2602.17088) as a table, read from top to bottom: a result, the stage that makes it, and its inputs.

The original's predictions show how entangled the classes are; a labeler scores how similar they look; its scores become a transition
matrix, the matrix yields the perturbing labels, and these yield the noise; the original is optimised again with both; and the result is
compared with a true retrain. `tasks.run.pipeline` explains the columns, `tasks.run.wanted` has the conditions.
"""

from __future__ import annotations

from tasks import labeler
from tasks.dataset import DATASET, DUPLICATES
from tasks.entanglement import ENTANGLEMENT
from tasks.evaluation.condensed import CONDENSED
from tasks.evaluation.deep import DEEP
from tasks.evaluation.figures import FIGURES
from tasks.evaluation.metrics import EVALUATION
from tasks.evaluation.predictions import PREDICTIONS
from tasks.evaluation.relearn import RELEARN
from tasks.evaluation.shadow import SHADOW
from tasks.labeling import APART, LABELING
from tasks.noise import NOISE
from tasks.ollama import OLLAMA, OLLAMA_APART
from tasks.original import GIVEN, TRAINED
from tasks.perturbing import PERTURBING
from tasks.reference import GIVEN_REFERENCE, REFERENCE
from tasks.run import inputs, wanted
from tasks.run.pipeline import row
from tasks.split import SPLIT
from tasks.transition import TRANSITION
from tasks.unlearn import EXACT, UNLEARN

# fmt: off
DATA = row("data", DATASET, arguments=inputs.dataset)
COPIES = row("duplicates", DUPLICATES, "data")

#: What is forgotten, and from which data set.
REQUEST = (
    DATA,
    COPIES.only(wanted.copies),
    row("split",      SPLIT,           "data duplicates seed", forget="forget", through_dvc=inputs.through_dvc),
)
#: The model that is to forget, and its predictions.
ORIGINAL = (
    row("original",   TRAINED,         "data seed device", params="train", when=wanted.original_trained),
    row("original",   GIVEN,           "data", weights=inputs.original, params="train", label="original", when=wanted.original_provided),
    row("before",     PREDICTIONS,     "data model=original device", label="predict original"),
)
#: How similar the concepts look, to the configured labeler and never to another.
JUDGEMENT = (
    row("labeling",   OLLAMA,          "data", arguments=labeler.query, label="labeling", when=wanted.ollama),
    row("labeling",   LABELING,        "data device", kind="labeling.kind", params="labeling.params", code=inputs.labeler_code,
        when=wanted.local_labeler),
)
#: What the same labeler says about sub-classes that are to be forgotten while their classes stay.
JUDGEMENT_APART = (
    row("apart",      OLLAMA_APART,    "data", arguments=labeler.query_subclasses, label="labeling apart", when=wanted.ollama_subclasses),
    row("apart",      APART,           "data device", kind="labeling.kind", params="labeling.params", code=inputs.labeler_code,
        apart=inputs.subclass_names, label="labeling apart", when=wanted.local_subclasses),
)
#: All that follows from a request.
PIPELINE = (
    *ORIGINAL,
    row("given",      GIVEN_REFERENCE, "data split original", weights=inputs.reference, params="train", label="reference",
        when=wanted.reference_provided),
    row("entanglement", ENTANGLEMENT,  "data split predictions=before"),
    *(entry.only(wanted.labels) for entry in (*JUDGEMENT, *JUDGEMENT_APART)),
    row("transition", TRANSITION,      "labeling", when=wanted.labels),
    row("perturbing", PERTURBING,      "data split predictions=before transition labeling_apart=apart entanglement seed",
        params="perturbing", calibration="calibration", when=wanted.labels),
    row("noise",      NOISE,           "data split original perturbing seed device", params="noise", when=wanted.noise),
    row("exact",      REFERENCE,       "data split seed device", params="train", label=wanted.retrain, when=wanted.exact),
    row("unlearned",  EXACT,           "retrained=exact", method="unlearn.method", params="unlearn.params", when=wanted.exact),
    row("unlearned",  UNLEARN,         "data split original perturbing noise seed device", recipe=inputs.recipe, method="unlearn.method",
        params="unlearn.params", code=inputs.method_code, when=wanted.approximate),
    row("after",      CONDENSED,       "data split model=unlearned device", label="predict unlearned"),
    row("retrains",   REFERENCE,       "data split device", params="train", repeated=wanted.retrains),
    row("retrained",  CONDENSED,       "data split device", label="predict", each="given exact retrains"),
    row("relearned",  RELEARN,         "data split original device", params="evaluation.relearning", seed="evaluation.seed",
        label="relearn", each="unlearned given exact retrains", when=wanted.relearning),
    row("deeper",     DEEP,            "data split device", params="evaluation.checks", calibration="calibration", seed="evaluation.seed",
        label="deep", each="unlearned given exact retrains", when=wanted.deep_checks),
    row("shadows",    SHADOW,          "data device", params="train", seed="evaluation.seed", repeated=wanted.shadows),
    row("evaluation", EVALUATION,      "data split before after retrained shadows relearned deeper given", calibration="calibration",
        code=inputs.metrics_code),
)
#: What a person reads.
REPORT = (
    COPIES.only(wanted.no_copies),
    row("figures",    FIGURES,         "data split duplicates before entanglement transition perturbing noise evaluation",
        method="unlearn.method", params="unlearn.params"),
)
