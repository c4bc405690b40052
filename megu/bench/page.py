"""A benchmark as one Markdown page: the command, the machine, the tables, the figures, the failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from megu.bench import published, ranking, table
from megu.bench.scores import CellScore
from megu.core.escaping import markdown, markdown_block

CAPTIONS = {
    "retain-forget": "Accuracy on the retained against accuracy on the forgotten images. Large: mean over the seeds; small: each seed. "
    "The star is the true retrain, where a method should be; in the grey band are those with an Af of 0, side by side.",
    "gap-time": "Mean gap to the true retrain over Ar, Af and MIA, with its 95% interval, against the time of the unlearning. The band, where "
    "there are retrains of several seeds, is the gap between them.",
    "sweep": "One parameter changed at a time: means over targets and seeds with 95% intervals. Dashed: the true retrain.",
}

NOTES = """\
- `Ar`, `Af`: accuracy on test images of the retained and of the forgotten classes (random and id requests, and classes without test
  images: whole test set, forgotten training images). `MIA`: share of the forgotten training images that the entropy attack calls members.
  The right value of each is the retrain's; a low MIA is not success in itself.
- `gap`: mean absolute difference to the retrain of the same seed over Ar, Af and MIA, in points. `ToW` (1 is best) and `JS` (nats, on the
  forgotten training images) compare with that retrain too.
{retrain}
- `time`: noise and unlearning, the computation alone; *passes*: images through the network forward and backward. A labeler's judgements
  are made once for a data set and counted apart (`cells.json` has every stage's seconds)."""


#: The part of `NOTES` about the retrain: for one that was trained here, and for a given one.
TRUE = """\
- ± is half of the 95% t interval over the n runs. The gap of the row *true retrain* is that between retrains of different seeds (all pairs,
  so its interval is a little too narrow): a method below it cannot be told from a retrain by these metrics. A `retrain` among the methods is
  this row: with the same seed it is the same training."""
GIVEN = """\
- The retrain was given, not trained here: that it never saw the forgotten images is its giver's word. It has no time of its own here, and a
  `retrain` among the methods is another training."""


@dataclass(frozen=True)
class Content:
    """title: the first line. command: the command that made the page. environment: facts about the machine. config: the benchmark file with
    all settings.

    figures: name -> address as linked from the page. note: a paragraph under the title, "" for none.
    """

    title: str
    command: str
    environment: Mapping[str, str]
    config: Mapping[str, Any]
    marks: Sequence[CellScore]
    rows: Sequence[table.Row]
    summary: Sequence[table.Row]
    figures: Mapping[str, str]
    note: str = ""


def render(content: Content) -> str:
    """Render the page. Every number in it comes from the scores."""
    failed = [mark for mark in content.marks if mark.error]
    retrain = table.retrain_of(content.marks)
    captions = {name: said.replace(table.REFERENCE, retrain) for name, said in CAPTIONS.items()}
    parts = [
        f"# {markdown(content.title)}",
        "",
        *([f"**{markdown(content.note)}**", ""] if content.note else []),
        f"Made by the command; {len(content.marks)} runs, {len(failed) or 'none'} failed.",
        "",
        markdown_block(f"$ {content.command}", "console"),
        "",
        "## Over all targets and seeds",
        "",
        table.markdown(content.summary, table.ACROSS),
        "",
        NOTES.format(retrain=TRUE if retrain == table.REFERENCE else GIVEN),
        "",
    ]
    for name, address in content.figures.items():
        parts += [f"![{captions[name]}]({address})", "", f"*{captions[name]}*", ""]
    if order := ranking.markdown(content.marks):
        parts += ["## Who is nearest", "", order, ""]
    parts += ["## By target", "", table.markdown(content.rows, table.columns_of(content.rows)), ""]
    if columns := [(name, name, 2) for name in table.more(content.rows)]:
        parts += [
            "<details><summary>All other numbers</summary>",
            "",
            table.markdown(content.rows, columns),
            "",
            "</details>",
            "",
        ]
    if found := table.beside(content.rows):
        parts += ["## Beside the published numbers", "", f"From {published.SOURCE}.", "", table.lines_of(*found), ""]
    parts += ["## What failed", ""]
    parts += [
        f"- {markdown(f'{mark.target}, {mark.method} {mark.point}'.rstrip())}, seed {mark.seed}: {markdown(mark.error or '')}"
        for mark in failed
    ]
    parts += [] if failed else ["Nothing."]
    facts = [f"- {markdown(name)}: {markdown(value)}" for name, value in content.environment.items()]
    parts += ["", "## Machine", "", *facts, "", "## Configuration", ""]
    parts += [markdown_block(yaml.safe_dump(dict(content.config), sort_keys=False, allow_unicode=True).rstrip(), "yaml"), ""]
    return "\n".join(parts)
