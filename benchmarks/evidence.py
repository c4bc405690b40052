"""The evidence behind the defaults: seeds x classes x variants, through the real pipeline and its cache.

    python benchmarks/evidence.py                 # all of it: about an hour on two cores, resumed where it stopped
    python benchmarks/evidence.py --variants default --again    # measure the default's times again, on an idle machine
    python benchmarks/evidence.py --only-document # write docs/evidence.* again from docs/evidence.json

Rows of combinations that are not asked for stay in docs/evidence.json as they are, each with the machine and the commit that made it; the
page has a table for each of these.

Each number in docs/evidence.md is written by this script. It runs alone: two trainings at once would spoil the times.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")

from machines import described, number
from prefect import flow

from flows.unlearn import pipeline, select
from megu.config import tree as configuration
from megu.core.files.store import without_nan
from megu.core.project import Project, find
from megu.evaluation.statistics import interval
from megu.tracking.environment import environment
from tasks.records.record import share
from tasks.run.engine import Executor

SEEDS = (0, 1, 2)
#: The classes of every variant, and those of the default alone.
CLASSES = ("Sneaker", "Shirt", "Bag")
OTHERS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Ankle boot")

#: UNSIR's noise, for which the paper's is taken: half of its images a label.
FULL_NOISE = ["noise.per_label=16", "noise.steps=40", "noise.coverage=1"]
DEFAULT = "default"
#: name -> what differs from the defaults. The paper trains three epochs.
VARIANTS: dict[str, list[str]] = {
    DEFAULT: [],
    "published": ["unlearn.method=megu_published", "perturbing.label=rank", *FULL_NOISE],
    "no noise": ["unlearn.noise_share=0"],
    "full noise": ["unlearn.noise_share=1", "unlearn.noise_scale=1", *FULL_NOISE],
    "no steering": ["unlearn.steering=0"],
    "steered, targets alone": ["unlearn.follow=0", "unlearn.follow_last=0"],
    "halfway to the end": ["unlearn.follow_last=0.5"],
    "batch norm by the batch": ["unlearn.batch_norm=batch"],
    "not calibrated": ["perturbing.sharpness=1"],
    "no matrix": ["perturbing.matrix=none"],
    "rank label": ["perturbing.label=rank"],
    "retain labels": ["unlearn.retain_target=labels"],
    "retain weight 1": ["unlearn.retain_weight=1"],
    "SGD": ["unlearn.optimiser=sgd"],
    "rate not sought": ["unlearn.lr=0.001"],
}
#: The stages whose times are compared.
TIMED = frozenset({"noise", "unlearn", "reference"})
SHOWN = ("Ar", "Af", "MIA", "entropy_forget")


@flow(name="evidence")
def run_all(project: Project, seeds: list[int], classes: list[str], variants: list[str], out: Path, again: bool) -> None:
    """Every combination, one after the other; the cache shares originals, labelings and retrains."""
    content = json.loads(out.read_text()) if out.exists() else {"machines": [], "rows": []}
    rows, here = list[dict[str, Any]](), number(content["machines"], environment(project.root))
    for seed in seeds:
        for name in classes:
            for variant in (variant for variant in variants if name in CLASSES or variant == DEFAULT):
                settings = [f"seed={seed}", f"forget.classes=[{name}]", *VARIANTS[variant]]
                config = configuration.load(project.params, settings)
                run = Executor(project, refresh=TIMED if again else frozenset())
                values = pipeline(run, project, select(run, project, config))["evaluation"].values
                rows.append(
                    {
                        "seed": seed,
                        "class": name,
                        "variant": variant,
                        "settings": VARIANTS[variant],
                        "machine": here,
                        **{model: values[model]["metrics"] for model in ("original", "unlearned", "reference")},
                        "gap": values["comparison"]["gap"],
                        "time_share": share(run, "compute_seconds"),
                        "pass_share": share(run, "passes"),
                        "retrain_seconds": run["reference"].result.notes["compute_seconds"],
                    }
                )
                print(f"{seed} {name:8} {variant:22} {brief(rows[-1])}", flush=True)
    asked = {identity(row) for row in rows}
    order = list(VARIANTS)
    every = [*rows, *(row for row in content["rows"] if identity(row) not in asked and row["variant"] in VARIANTS)]
    every.sort(
        key=lambda row: (row["machine"], row["seed"], (*CLASSES, *OTHERS).index(row["class"]), order.index(row["variant"]))
    )
    out.write_text(json.dumps(without_nan({**content, "rows": every}), indent=1) + "\n")


def identity(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["machine"], row["seed"], row["class"], row["variant"]


def brief(row: dict[str, Any]) -> str:
    marks, reference = row["unlearned"], row["reference"]
    pairs = " ".join(f"{name} {marks[name]:.1f}/{reference[name]:.1f}" for name in ("Ar", "Af", "MIA"))
    return f"{pairs}  gap {row['gap']:.2f}  {row['time_share']:.0f}% of the retrain's time"


def mean(rows: list[dict[str, Any]], model: str, name: str) -> float:
    return float(sum(row[model][name] for row in rows) / len(rows))


def document(source: Path, folder: Path) -> None:
    """docs/evidence.md and docs/evidence.png from the numbers. The default is judged on the last machine that ran it."""
    content = json.loads(source.read_text())
    newest = max(row["machine"] for row in content["rows"] if row["variant"] == DEFAULT)
    every = [row for row in content["rows"] if row["machine"] == newest]
    rows = [row for row in every if row["class"] in CLASSES]
    default = [row for row in rows if row["variant"] == DEFAULT]
    classes, variants = names(rows, "class"), names(rows, "variant")
    gap = interval([row["gap"] for row in default])
    lines = [
        "# Evidence",
        "",
        "Written by `python benchmarks/evidence.py`; the numbers are in [evidence.json](evidence.json).",
        "",
        f"Fashion-MNIST, classes {', '.join(classes)}, seeds {', '.join(map(str, names(rows, 'seed')))}; original and true retrain by the "
        "default recipe.",
        "",
        "## The default",
        "",
        f"Over the {len(default)} combinations, against the retrain of the same seed:",
        "",
        f"- mean gap over Ar, Af and MIA: **{gap['mean']:.2f} points** (95% interval {gap['low']:.2f} to {gap['high']:.2f});",
        f"- highest Af on test images: **{max(row['unlearned']['Af'] for row in default):.2f}%** (limit: 1.0);",
        "- largest distance of Ar from the retrain's: "
        f"**{max(abs(row['unlearned']['Ar'] - row['reference']['Ar']) for row in default):.2f} points** (limit: 1.5);",
        "- largest share of the retrain's time for noise and re-optimisation: "
        f"**{max(row['time_share'] for row in default):.0f}%** (limit: 40).",
        *all_classes([row for row in every if row["variant"] == DEFAULT]),
        "",
        "![Ar, Af and MIA by variant, against the retrain](evidence.png)",
        "",
        "What each variant changes:",
        "",
        *(f"- *{name}*: {', '.join(f'`{entry}`' for entry in VARIANTS[name]) or 'nothing'}" for name in VARIANTS),
    ]
    for at, facts in reversed(list(enumerate(content["machines"]))):
        lines += section(facts, [row for row in content["rows"] if row["machine"] == at])
    (folder / "evidence.md").write_text("\n".join([*lines, ""]))
    (folder / "evidence.png").write_bytes(picture(rows, classes, variants))


def all_classes(rows: list[dict[str, Any]]) -> list[str]:
    """What the default comes to over all classes, where the others were run."""
    if not any(row["class"] in OTHERS for row in rows):
        return []
    gap = interval([row["gap"] for row in rows])
    far = max(rows, key=lambda row: row["gap"])
    return [
        "",
        f"Over all {len(names(rows, 'class'))} classes, {len(rows)} combinations: mean gap **{gap['mean']:.2f} points** "
        f"({gap['low']:.2f} to {gap['high']:.2f}), highest Af {max(row['unlearned']['Af'] for row in rows):.2f}%, largest distance of Ar "
        f"{max(abs(row['unlearned']['Ar'] - row['reference']['Ar']) for row in rows):.2f} points. Farthest from its retrain: {far['class']}, "
        f"seed {far['seed']}, {far['gap']:.2f} points.",
    ]


def names(rows: list[dict[str, Any]], column: str) -> list[Any]:
    return sorted({row[column] for row in rows}, key=[row[column] for row in rows].index)


def section(facts: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """The tables of one machine. Its ``note``, where it has one, says what else must be known of them."""
    lines = [
        "",
        f"## On {facts['cpu']}",
        "",
        f"{described(facts)}. {facts.get('note', '')}".strip(),
        "",
        "The retrain, and how much it varies with the seed: mean and 95% t interval. The entropy attack's score on models that hardly memorise "
        "varies this much by chance alone; a gap in MIA smaller than the interval means nothing.",
        "",
        "| class | Ar | Af | MIA | entropy on forgotten (nats) |",
        "|---|---|---|---|---|",
    ]
    for name in names(rows, "class"):
        own = {row["seed"]: row["reference"] for row in rows if row["class"] == name}.values()
        cells = []
        for key in SHOWN:
            found = interval([entry[key] for entry in own])
            digits = 2 if key == "entropy_forget" else 1
            cells.append(f"{found['mean']:.{digits}f} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "Means over the seeds; the retrain's in brackets. *gap*: ± is the standard deviation over the seeds. *ok* counts the seeds with Af at "
        "most 1.0 and Ar within 1.5 points of the retrain. The last rows: several classes together.",
        "",
        "| class | variant | Ar | Af | MIA | entropy | gap | ok |",
        "|---|---|---|---|---|---|---|---|",
    ]
    present = names(rows, "class")
    groups = {name: [name] for name in present} | {" / ".join(CLASSES): [*CLASSES], "all classes": [*CLASSES, *OTHERS]}
    for name, members in groups.items():
        for variant in names(rows, "variant"):
            own = [row for row in rows if row["class"] in members and row["variant"] == variant]
            if {row["class"] for row in own} != set(members):
                continue
            cells = [f"{mean(own, 'unlearned', key):.1f} ({mean(own, 'reference', key):.1f})" for key in ("Ar", "Af", "MIA")]
            entropy = f"{mean(own, 'unlearned', 'entropy_forget'):.2f} ({mean(own, 'reference', 'entropy_forget'):.2f})"
            gap = interval([row["gap"] for row in own])
            good = sum(
                row["unlearned"]["Af"] <= 1 and abs(row["unlearned"]["Ar"] - row["reference"]["Ar"]) <= 1.5 for row in own
            )
            gaps = f"{gap['mean']:.2f} ± {gap['std']:.2f}"
            lines.append(f"| {name} | {variant} | {' | '.join(cells)} | {entropy} | {gaps} | {good}/{len(own)} |")
    return lines


def picture(rows: list[dict[str, Any]], classes: list[str], variants: list[str]) -> bytes:
    """A column a class, a row a metric, a dot a seed; the band is where the retrains lie."""
    from matplotlib.figure import Figure

    from megu.report.figures import COLOURS, png

    figure = Figure(figsize=(11, 0.32 * len(variants) * 3 + 2.2), layout="constrained")
    grid = figure.subplots(3, len(classes), squeeze=False, sharey=True)
    for column, name in enumerate(classes):
        for row, key in enumerate(("Ar", "Af", "MIA")):
            axes = grid[row, column]
            own = [entry for entry in rows if entry["class"] == name]
            references = sorted({entry["reference"][key] for entry in own})
            axes.axvspan(references[0], references[-1], color="#cfe3f4", zorder=0)
            for reference in references:
                axes.axvline(reference, color=COLOURS["reference"], linewidth=1, zorder=1)
            for entry in own:
                chief = entry["variant"] == DEFAULT
                axes.scatter(
                    entry["unlearned"][key],
                    variants.index(entry["variant"]),
                    s=34,
                    color=COLOURS["unlearned" if chief else "original"],
                    zorder=3,
                )
            axes.set_yticks(range(len(variants)), variants, fontsize=8)
            axes.set_ylim(len(variants) - 0.5, -0.5)
            axes.set_title(f"{name}: {key} (%)", fontsize=10)
            axes.tick_params(length=0, labelsize=8)
            axes.grid(axis="x", color="#e7ebf0", zorder=0)
            low, high = axes.get_xlim()
            if high - low < 4:
                axes.set_xlim((low + high) / 2 - 2, (low + high) / 2 + 2)
            for side in ("top", "right", "left"):
                axes.spines[side].set_visible(False)
    figure.suptitle(
        "A dot is a seed; orange is the default. Blue lines are the true retrains of the three seeds: nearer is better.",
        fontsize=10,
    )
    return png(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--classes", nargs="+", default=[*CLASSES, *OTHERS], choices=[*CLASSES, *OTHERS], metavar="CLASS")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of evidence.json, .md and .png")
    parser.add_argument("--again", action="store_true", help="compute the timed stages again, though their results are kept")
    parser.add_argument("--only-document", action="store_true", help="write the page again from evidence.json")
    arguments = parser.parse_args()
    arguments.out.mkdir(exist_ok=True, parents=True)
    if not arguments.only_document:
        json_file = arguments.out / "evidence.json"
        run_all(find(), arguments.seeds, arguments.classes, arguments.variants, json_file, arguments.again)
    document(arguments.out / "evidence.json", arguments.out)


if __name__ == "__main__":
    main()
