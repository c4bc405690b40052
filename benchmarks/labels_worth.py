"""What the labels are worth: the same requests by the labeler's matrix and by others, against the same retrains; writes docs/labels.md.

    python benchmarks/labels_worth.py                      # all of it, resumed where it stopped: four to five hours of one core
    python benchmarks/labels_worth.py --seeds 0            # the first seed of each of the three benchmarks
    python benchmarks/labels_worth.py --only-document      # the page from what there is by now

It runs bench/labels-*.yaml by `megu bench`, a seed at a time, the most informative first. Finished cells are read from the project's MLflow
database, those of a run that was stopped too, and stay in docs/labels.json; the page says how many are missing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from machines import described, number
from parts import cells as finished_cells

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flows.unlearn import pipeline, select
from megu.bench import config as files
from megu.bench import paired, plots, table
from megu.bench.config import Bench
from megu.bench.expansion import Cell, expand
from megu.bench.scores import CellScore
from megu.config.tree import parse
from megu.core.files.store import without_nan, writing
from megu.core.project import Project, find
from megu.core.stages import Result
from megu.report.figures import png
from megu.tracking.environment import environment
from megu.unlearning.labels.replacing import JUDGED
from tasks.run.engine import Planner

ROOT = Path(__file__).resolve().parents[1]
#: The most informative first.
FILES = tuple(ROOT / "bench" / f"labels-{name}.yaml" for name in ("memorised", "cifar100", "fashion"))
#: What a row is called in front of the matrix's source, what that is, and its colour.
FORMS = {
    "megu": ("the default: soft targets by R, as sure as a retrain is expected to be", "#d55e00"),
    "matrix alone": (
        "the same with `perturbing.columns=own`: by the forgotten class's own column, nothing of the model's answer",
        "#009e73",
    ),
    "published label": ("the paper's rank label and re-optimisation, without noise", "#0072b2"),
}
KEPT = {"unlearned": ("Ar", "Af", "MIA", "entropy_forget"), "comparison": ("gap", "JS_forget", "moved")}
COLUMNS = (
    ("gap", "gap", 2),
    ("Ar", "Ar %", 1),
    ("Ar_off", "Ar off the retrain's", 2),
    ("MIA", "MIA %", 1),
    ("JS_forget", "JS", 3),
    ("moved", "targets moved %", 1),
)
DIFFERENCES = tuple((name, f"{title}, {unit}", digits) for name, title, unit, digits in paired.MEASURES)

HEAD = """\
# What the labels are worth

The paper's claim is that a labeler's judgement of similar concepts makes better perturbing labels. So the same requests are unlearned with the
labeler's transition matrix (*judged*) and with others in its place, from the same original, each against the same retrain:

- *uniform*: a class looks like itself as much as the labeler says, and like all others alike; *shuffled*: the labeler's matrix with the classes
  under each other's names; *overlap*: the original's own feature overlap in place of a labeler; *nearest*: each class's most similar class.
  [How each is made](method.md#what-the-labels-take-from-the-matrix).
"""
NOTES = """\
Every measure is the smaller the nearer to the retrain of the same seed: *gap* over Ar, Af and MIA in points, how far *Ar* is off, and the
Jensen-Shannon divergence of the answers to the forgotten images (*JS*, nats). *Targets moved*: the share of what is taught that would be taught
otherwise by *judged* (total variation, in percent). ± is half of a 95% t interval; differences are of the same class and seed, and
their intervals are over those pairs. The pairs of one class are alike, so the intervals are somewhat too narrow; and of twenty differences one
stands out by chance where there is nothing. Of the published label *nearest* has another rank as well, the nearest class where the others have
the third of ten or the thirtieth of a hundred: its difference is that of both.

Prototype labeler (EfficientNet-Lite0), not an LLM: of a multi-modal LLM's judgements the page says nothing. Few images a class, few epochs,
megu at a fixed rate (0.001) with half of its steps and half of its batch, so that two cores get through it: the same for all sources."""


@dataclass(frozen=True)
class Part:
    """One of the three benchmarks. marks: its finished cells, with how far Ar is off. wanted: how many there are to be."""

    bench: Bench
    marks: list[CellScore]
    wanted: int


def against(marks: Sequence[CellScore]) -> dict[str, str]:
    """Each method that has another matrix -> the same with the labeler's, form by form."""
    labels = dict.fromkeys(mark.method for mark in marks)
    found = {label: f"{form}, {JUDGED}" for form in FORMS for label in labels if label.rpartition(", ")[0] == form}
    return {label: other for label, other in found.items() if label != other}


def source(method: str) -> str:
    return method.rpartition(", ")[2]


def run(file: Path, seed: int) -> None:
    """One seed of a benchmark, in a process of its own; what is kept is not computed again. A cell that fails stops nothing."""
    out = Path("results") / "bench" / file.stem / f"seed-{seed}"
    command = [sys.executable, "-m", "megu", "bench", str(file), "--set", f"seeds=[{seed}]", "--out", str(out)]
    subprocess.run(command, cwd=find().root, check=False)


def moved(project: Project, cells: Iterable[Cell]) -> dict[tuple[str, str, int], float]:
    """For each cell whose targets are kept, as those by the labeler are: the share of what it teaches that these do not, in percent."""
    targets = {}
    for cell in cells:
        planner = Planner(project)
        perturbing = pipeline(planner, project, select(planner, project, cell.config))["perturbing"]
        if isinstance(perturbing, Result):
            key = (cell.variant.label, cell.target, cell.seed)
            targets[key] = project.store.arrays(perturbing.files["perturbing"])["targets"]
    return {
        (label, target, seed): float(100 * np.abs(own - judged).sum(axis=1).mean() / 2)
        for (label, target, seed), own in targets.items()
        if (judged := targets.get((f"{label.rpartition(', ')[0]}, {JUDGED}", target, seed))) is not None
    }


def collect(project: Project, store: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """docs/labels.json with the cells that the project has finished by now, and how far their targets moved for ``seeds``."""
    content: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {"machines": [], "marks": {}}
    database = project.home / "mlflow.db"
    for file in FILES:
        loaded = files.load(file)
        known = finished(content, loaded.name)
        if database.exists() and (new := {identity(mark): brief(mark) for mark in finished_cells(database, loaded.name)}):
            shares = moved(project, (cell for cell in expand(loaded) if cell.seed in seeds))
            shares = {key: mark.comparison["moved"] for key, (mark, _) in known.items() if "moved" in mark.comparison} | shares
            here = number(content["machines"], environment(project.root))
            for key, mark in new.items():
                full = replace(mark, comparison={**mark.comparison, "moved": shares[key]}) if key in shares else mark
                if key not in known or known[key][0] != full:
                    known[key] = full, here
        content["marks"][loaded.name] = [{"machine": at, **without_nan(mark.to_json())} for mark, at in known.values()]
    with writing(store) as temporary:
        temporary.write_text(json.dumps(content, separators=(",", ":")).replace('{"machine":', '\n{"machine":') + "\n")
        temporary.chmod(0o644)
    return content


def finished(content: Mapping[str, Any], bench: str) -> dict[tuple[str, str, int], tuple[CellScore, int]]:
    """The finished cells of a benchmark in docs/labels.json: by `identity`, each with the number of the machine that it was run on."""
    found = {}
    for entry in content["marks"].get(bench, []):
        mark = CellScore.from_json({name: value for name, value in entry.items() if name != "machine"})
        found[identity(mark)] = mark, entry["machine"]
    return found


def identity(mark: CellScore) -> tuple[str, str, int]:
    return mark.method, mark.target, mark.seed


def brief(mark: CellScore) -> CellScore:
    """The numbers of a cell that the page needs."""
    of = {**KEPT, "reference": KEPT["unlearned"], "original": KEPT["unlearned"]}
    numbers = {
        part: {name: round(value, 5) for name in names if (value := getattr(mark, part).get(name)) is not None}
        for part, names in of.items()
    }
    return CellScore(method=mark.method, algorithm=mark.algorithm, target=mark.target, seed=mark.seed, **numbers)


def parts(content: Mapping[str, Any]) -> list[Part]:
    """The benchmarks with the cells that they still have, in the order of their files."""
    found = []
    for file in FILES:
        loaded = files.load(file)
        wanted = expand(loaded)
        known = {key: mark for key, (mark, _) in finished(content, loaded.name).items()}
        keys = [(cell.variant.label, cell.target, cell.seed) for cell in wanted]
        found.append(Part(loaded, paired.with_distances([known[key] for key in keys if key in known]), len(wanted)))
    return found


def document(content: Mapping[str, Any], path: Path) -> None:
    """The page and its figure. Every number on it is computed here."""
    made = parts(content)
    some = [part for part in made if part.marks]
    done, wanted = sum(len(part.marks) for part in made), sum(part.wanted for part in made)
    missing = ", ".join(
        f"{part.wanted - len(part.marks)} of {part.bench.title}" for part in made if part.wanted > len(part.marks)
    )
    lines = [HEAD]
    if missing:
        lines += [f"**Not finished: {done} of {wanted} runs are in it; there are missing {missing}.**", ""]
    lines += ["Written by `python benchmarks/labels_worth.py`; the numbers are in [labels.json](labels.json).", ""]
    if some:
        lines += ["## What came out", "", *overall(some), ""]
        picture = path.with_name(f"{path.stem}-paired.png")
        groups = {part.bench.title: part.marks for part in some}
        named = against([mark for part in some for mark in part.marks])
        colours = {method: FORMS[method.rpartition(", ")[0]][1] for method in named}
        with writing(picture) as temporary:
            temporary.write_bytes(png(plots.paired(groups, named, colours)))
            temporary.chmod(0o644)
        caption = (
            "Differences to judged of the same class and seed: small dots, their mean with its 95% interval. Right of the line the "
            "other matrix is farther from the retrain than the labeler's."
        )
        lines += [f"![{caption}]({picture.name})", "", f"*{caption}*", "", NOTES, ""]
    lines += ["The rows: " + "; ".join(f"*{form}*, {said}" for form, (said, _) in FORMS.items()) + ".", ""]
    for part in some:
        lines += section(part)
    lines += ["## Machines", "", *machines(content), ""]
    with writing(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
        temporary.chmod(0o644)
    print(f"{path}: {done} of {wanted} runs")


def machines(content: Mapping[str, Any]) -> list[str]:
    """A line for each machine: what it is, and how many runs are from it; and whether any difference is between machines."""
    runs = Counter(entry["machine"] for entries in content["marks"].values() for entry in entries)
    where = {(bench, e["target"], e["seed"], e["machine"]) for bench, entries in content["marks"].items() for e in entries}
    mixed = len(where) - len({key[:3] for key in where})
    lines = [
        f"- {runs[at]} runs: {described(facts)}. {facts.get('note', '')}".strip()
        for at, facts in enumerate(content["machines"])
    ]
    if len(lines) > 1:
        said = (
            f"in {mixed} of the pairs of a class and a seed they are not"
            if mixed
            else "they are, so no difference above is between machines"
        )
        lines += ["", f"The runs of one class and seed are to be from one machine: {said}."]
    return lines


def overall(some: Sequence[Part]) -> list[str]:
    """Over all data sets, a sentence for each form and measure: how often another matrix is told apart from the labeler's, and how."""
    lines = []
    for form in FORMS:
        counted = [paired.tally(paired.rows(part.marks, of_form(part.marks, form))) for part in some]
        for name, title, _, _ in paired.MEASURES:
            entries = [entry[name] for entry in counted if name in entry]
            total, worse, better = (sum(entry[key] for entry in entries) for key in ("rows", "worse", "better"))
            if not total:
                continue
            lines.append(
                f"- *{form}*, {title}: of {total} comparisons of another matrix with the labeler's {worse} find the other one farther from the "
                f"retrain, {better} find it nearer, and {total - worse - better} cannot tell them apart."
            )
    return lines


def of_form(marks: Sequence[CellScore], form: str) -> dict[str, str]:
    return {method: other for method, other in against(marks).items() if method.rpartition(", ")[0] == form}


def section(part: Part) -> list[str]:
    """A benchmark's tables, and its differences in a sentence for each measure."""
    base, bench = part.bench.base, part.bench
    lines = [
        f"## {bench.title}",
        "",
        f"{base['data']['per_class']} training images a class, {base['train']['epochs']} epochs; "
        f"{labeler_of(base)}; "
        f"{len({mark.target for mark in part.marks})} of {len(bench.targets)} classes, seeds "
        f"{', '.join(str(seed) for seed in sorted({mark.seed for mark in part.marks}))}; {len(part.marks)} of {part.wanted} runs. "
        f"`megu bench bench/{bench.name}.yaml`",
        "",
        table.markdown(table.summary(part.marks), COLUMNS),
        "",
    ]
    if pairs := paired.rows(part.marks, against(part.marks)):
        lines += [f"Differences to *{JUDGED}*, class by class and seed by seed:", "", table.markdown(pairs, DIFFERENCES), ""]
    for form in FORMS:
        found = paired.rows(part.marks, of_form(part.marks, form))
        said = paired.sentence(found, {row.method: source(row.method) for row in found}, JUDGED)
        lines += [f"- *{form}*. {' '.join(said)}"] if said else []
    return [*lines, ""]


def labeler_of(base: Mapping[str, Any]) -> str:
    """How many images of a class the labeler judges, and by how many it knows one."""
    asked = parse({"labeling": base.get("labeling", {})}).labeling.params
    return f"the labeler judges {asked.exemplars} images a class and knows a class by {asked.references}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only-document", action="store_true", help="run nothing: the page from what there is")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of labels.md, labels.json and the figure")
    asked = parser.parse_args()
    numbers, page = asked.out / "labels.json", asked.out / "labels.md"
    for seed in () if asked.only_document else asked.seeds:
        for file in FILES:
            run(file, seed)
            document(collect(find(), numbers, [seed]), page)
    document(collect(find(), numbers, asked.seeds), page)


if __name__ == "__main__":
    main()
