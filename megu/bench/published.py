"""The paper's own numbers, to set beside ours where data set, scenario, architecture, target and method are the same.

``published.csv`` holds tables 1-4, 7 and 8 of arXiv 2602.17088 as printed. Some of its numbers look like misprints ("sea" has an original
MIA of 9.42); they are left unchanged.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

from megu.config.tree import Config

SOURCE = "arXiv 2602.17088 (2026), tables 1-4, 7 and 8"

#: (data.name, forget.scenario) -> the table's data set.
_SETTINGS = {
    ("cifar100", "class"): "cifar100-class",
    ("cifar20", "class"): "cifar20-class",
    ("cifar20", "subclass"): "cifar20-sub",
    ("cifar10", "random"): "cifar10-random",
}
_ARCHITECTURES = {"resnet18": "RN18", "vit-b-16": "ViT"}
_TARGETS = {"vehicles_2": "veh2", "fruit_and_vegetables": "veg"}
_METHODS = {"finetune": "FT", "unsir": "UNSIR", "random_labels": "AMNC", "ssd": "SSD", "megu": "MeGU", "megu_published": "MeGU"}
#: For a random request the paper has Bad Teacher where the other tables have UNSIR.
_RANDOM = {**{name: column for name, column in _METHODS.items() if name != "unsir"}, "bad_teacher": "UNSIR"}
HEADLINE = ("Ar", "Af", "MIA")


@cache
def _rows() -> dict[tuple[str, str, str, str], dict[str, str]]:
    text = files("megu.bench").joinpath("published.csv").read_text(encoding="utf-8")
    return {(row["dataset"], row["model"], row["target"], row["metric"]): row for row in csv.DictReader(text.splitlines())}


def published(config: Config, algorithm: str) -> dict[str, float]:
    """Return Ar, Af, MIA in percent and their gap to the published retrain; empty where nothing was published.

    algorithm: one of our methods, "original" or "retrain".
    """
    forget = config.forget
    dataset = _SETTINGS.get((config.data.name, forget.scenario))
    architecture = _ARCHITECTURES.get(config.train.arch)
    column = {"original": "baseline", "retrain": "retrain"}.get(algorithm)
    column = column or (_RANDOM if forget.scenario == "random" else _METHODS).get(algorithm)
    if dataset is None or architecture is None or column is None or config.data.per_class is not None:
        return {}
    if forget.scenario == "random":
        target = str(forget.count)
    elif len(forget.classes) == 1:
        target = _TARGETS.get(forget.classes[0], forget.classes[0])
    else:
        return {}
    rows = {name: _rows().get((dataset, architecture, target, name)) for name in HEADLINE}
    found = {name: (float(row[column]), float(row["retrain"])) for name, row in rows.items() if row}
    if len(found) < len(HEADLINE):
        return {}
    gap = sum(abs(ours - reference) for ours, reference in found.values()) / len(HEADLINE)
    return {**{name: ours for name, (ours, _) in found.items()}, "gap": gap}
