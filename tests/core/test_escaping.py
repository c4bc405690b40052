"""One list of nasty names through everything that writes a name somewhere: pages, Markdown, tables, graphs, tags, figures, the terminal."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import dossier_fixtures as made
import numpy as np
import pytest
from bench.bench_fixtures import mark
from markdown_it import MarkdownIt
from rich.console import Console

from megu.bench import page, ranking, table
from megu.bench.plots import draw as draw_bench
from megu.core import escaping
from megu.evaluation import text
from megu.evaluation.summary import StageSummary, Summary
from megu.lineage import graph
from megu.requests.overview import Overview, _no_code
from megu.requests.overview import markdown as overview_markdown

NASTY = [
    "<img src=x onerror=alert(1)>",
    "</title><script>alert(1)</script>",
    "\" onmouseover='alert(1)'",
    "[l]", "[bold red]x[/]", "[click](javascript:alert(1))", "![x](http://evil.example/x.png)",
    "a|b", "a`b", "``` \n<b>x</b>", "`<i>`", "**strong**", "_under_", "__init__", "~~gone~~", "# heading", "1. one", "- item", "> quote",
    "<!-- x", "&lt;b&gt;", "&copy", "&#60;b&#62;", "\\", "\\<b>", "a\\|b", "a\\",
    "$x^2$", "$", "a$b", "_nolegend_", "{x}", "%s%n", "%%comment", "${7*7}", "{{7*7}}", "{% raw %}",
    "=1+1", "+1", "-1", "@SUM(A1)", "=HYPERLINK(\"http://evil.example\")", "\t=1", " =1",
    "http://evil.example", "www.evil.example", "x@evil.example", "<http://evil.example>",
    "two\nlines", "tab\there", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "bell\x07", "nul\x00", "\r", "\x85", "\u2028line", "\u202egnp.exe",
    "half\ud800", "naïve 猫 кот", "👩‍👩‍👧", "x" * 255, "'; DROP TABLE x; --", "../../etc/passwd", "]]>", "\"]); click s0 href \"javascript:x\"",
]  # fmt: skip


class Parsed(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags, self.text = list[tuple[str, tuple[str, ...]]](), ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def rendered(text: str) -> Parsed:
    """What a reader of Markdown makes of it, one that lets HTML through and takes bare addresses for links."""
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    return Parsed(reader.render(text))


def squeezed(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("name", NASTY)
def test_each_rule_gives_the_name_and_nothing_else(name: str) -> None:
    seen = escaping.plain(name)
    assert "\n" not in seen
    seen.encode()
    for around in ("{}", "- {}", "# {}", "**x {} y**"):
        parsed = rendered(around.format(escaping.markdown(name)))
        assert {tag for tag, _ in parsed.tags} <= {"p", "ul", "li", "h1", "strong"} - (
            {"ul", "li"} if "- " not in around else set()
        )
        assert sum(tag in ("strong", "li", "h1") for tag, _ in parsed.tags) == (around != "{}")
        assert squeezed(seen) in squeezed(parsed.text)
    cells = rendered(f"| a | b |\n|---|---|\n| {escaping.markdown(name)} | end |")
    assert [tag for tag, _ in cells.tags].count("td") == 2
    assert squeezed(cells.text) == squeezed(f"ab{seen}end")
    assert not re.search(r"(?i)https?://|www\.|\S@\S", escaping.markdown(name)), "an address would become a link"
    spanned = rendered(f"x {escaping.markdown_code(name)} y")
    assert [tag for tag, _ in spanned.tags] == ["p", *(["code"] if seen else [])]
    block = rendered(escaping.markdown_block(name, "console"))
    assert [tag for tag, _ in block.tags] == ["pre", "code"]
    assert set(escaping.mermaid(name)).isdisjoint('"<>[](){}|#;`&%\\\n\x1b')


@pytest.mark.parametrize("name", NASTY)
def test_a_spreadsheet_takes_no_cell_for_a_formula(name: str) -> None:
    assert escaping.csv_cell(name)[:1] not in ("=", "+", "-", "@", "\t", "\r")


def test_what_is_harmless_stays_as_it_is() -> None:
    for name in (
        "T-shirt/top",
        "retain_samples",
        "unlearn.alpha=0.6",
        "90.0 ± 1.2",
        "naïve 猫",
        "👩‍👩‍👧",
        "models:/megu/3",
        "100 random images",
        "a (b)",
    ):
        assert escaping.plain(name) == escaping.markdown(name) == escaping.csv_cell(name) == name


# --- pages -------------------------------------------------------------------------------------------------------------------


def dossier(name: str) -> Any:
    name = name.encode(errors="backslashreplace").decode()  # a dossier is JSON, which has no halves of pairs
    data = {"name": name, "source": name, "licence": name}
    evidence = {"verdict": f"{name}: 97.0% → 0.0%", "failures": [name], "reference": name}
    request = {"words": name, "scenario": "class", "classes": [name]}
    return made.found(request=request, data=data, evidence=evidence, method={"name": name, "title": name, "paper": name})


def shape(page: str) -> list[tuple[str, tuple[str, ...]]]:
    return Parsed(page).tags


def certificate_of(name: str) -> str:
    from datetime import UTC, datetime

    from megu.lineage.verify.context import Check
    from megu.lineage.verify.run import Report
    from megu.report.certificate import certificate, render

    found = dossier(name)
    report = Report("x", made.RUN, found.dossier.root, found.seal.seal, [Check("data set", None, name)])
    return render(certificate(found, report, datetime(2026, 11, 24, tzinfo=UTC)))


def summary(name: str) -> Summary:
    numbers = {"Ar": 90.0, "Af": 97.0, "MIA": 40.0, "test_accuracy": 90.5}
    stages = [StageSummary(name, False, 1.5, 1.5, name, name)]
    return Summary(headline=f"{name}: 97.0%", stages=stages, metrics=numbers, original=numbers, reference=numbers, gap=1.0)


def report_of(name: str) -> str:
    from megu.report import ReportData, render

    data = ReportData(
        title=f"Forgetting {name}",
        summary=summary(name),
        entanglement={"score": 2.0, "nearest": {name: [name, name]}},
        facts={"Data": {"data set": name, "source": name}},
        params={"forget": {"classes": [name]}},
        lineage={"as text": name, "Mermaid": name},
        links={"Prefect flow run": "an-id"},
    )
    return render(data, {})


@pytest.mark.parametrize("make", [certificate_of, report_of])
def test_no_name_puts_anything_into_a_page(make: Callable[[str], str]) -> None:
    usual = shape(make("Sneaker"))
    for name in NASTY[::3]:
        page = make(name)
        page.encode()
        assert shape(page) == usual, name
        assert squeezed(escaping.visible(name)) in squeezed(Parsed(page).text), name
        assert "\x1b" not in page


def card_of(name: str) -> str:
    from megu.lineage.export.card import card

    return card(dossier(name))


def bench_of(name: str) -> str:
    marks = [mark(method, name, seed) for method in ("megu", name) for seed in (0, 1)]
    marks.append(mark("broken", name, error=f"{name} is no class"))
    content = page.Content(
        name, f"megu bench {name}", {"cpu": name}, {"title": name}, marks, table.rows(marks), table.summary(marks), {}, name
    )
    return page.render(content)


def overview_of(name: str) -> str:
    row = {"id": "r0", "state": "accepted", "due": "2026-12-24", "days_left": 1, "age_days": 1, "why": name}
    now = Overview(
        services={},
        unanswered="", requests={"accepted": 1}, overdue=0, waiting=[row], lineage=[name, name],
        schedules=[{"deployment": name, "next": "soon"}],
        runs=[{"run": "r", "created": "2026-11-24", "request": name, "model": name, "method": name}],
        champion={"version": name, "since": "2026-11-24", "approver": name, "forgot": name, "seal": "s"},
        person=[f"megu/1 ({_no_code(name)}) is not promoted: see `megu promote 1`"],
        served={"says": name},
        ladder={
            "outcome": "passed",
            "rungs": [{"number": 1, "of": 1, "method": name, "version": name, "outcome": "refused", "why": name}],
        },
    )  # fmt: skip
    return overview_markdown(now)


def form_of(name: str) -> str:
    from types import SimpleNamespace

    from megu.evaluation.gate import RuleResult
    from tasks.prefect.approval import described

    verdict = SimpleNamespace(
        rules=[RuleResult(rule=name, holds=True, value=1.0, low=None, high=2.0, reason=name)], decision="pass"
    )

    class Found(SimpleNamespace):
        def __str__(self) -> str:
            return f"models:/{name}/1"

    return described(Found(headline=name, champion=None, verdict=verdict, seal="s"), complaint=name)  # type: ignore[arg-type]


def summary_of(name: str) -> str:
    return text.summary_markdown(summary(name))


@pytest.mark.parametrize("make", [card_of, bench_of, overview_of, form_of, summary_of])
def test_no_name_puts_anything_into_markdown(make: Callable[[str], str]) -> None:
    def body(name: str) -> Parsed:
        text = make(name)
        text.encode()
        return rendered(text.split("\n---\n", 1)[1] if text.startswith("---\n") else text)

    usual = body("Sneaker").tags
    for name in NASTY[1::4] if make is bench_of else NASTY:
        found = body(name)
        # A name may be as long or as short as it likes: what may not change is which elements there are.
        assert found.tags == usual, name
        assert squeezed(escaping.plain(name)) in squeezed(found.text), name


def test_the_order_of_methods_in_words() -> None:
    marks = [mark(method, "Bag", Ar=ar) for method, ar in (("<b>x</b>|", 90.0), ("y", 80.0))]
    assert {tag for tag, _ in rendered(ranking.markdown(marks)).tags} <= {
        "p",
        "strong",
        "em",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    }


# --- tables, graphs, figures, the terminal -----------------------------------------------------------------------------------


def test_the_table_of_a_benchmark_survives_a_spreadsheet() -> None:
    for name in NASTY:
        rows = list(csv.DictReader(io.StringIO(table.as_csv(table.rows([mark(name, name, seed) for seed in (0, 1)])))))
        assert len(rows) == 3
        assert all(cell[:1] not in ("=", "+", "-", "@") for row in rows for cell in (row["target"], row["method"]))
        assert rows[2]["method"].lstrip("'") == escaping.plain(name).lstrip("'")


def test_a_label_of_a_graph_ends_where_it_ends() -> None:
    usual = graph.mermaid(made.records(), "models:/megu/1").count('"')
    for name in NASTY:
        drawn = graph.mermaid(made.records(), f"models:/{name}/1")
        assert drawn.count('"') == usual
        assert len(drawn.splitlines()) == len(graph.mermaid(made.records(), "m").splitlines())
        assert not re.search(r"[<`;\\]", drawn.replace("<br/>", ""))


def test_figures_show_names_and_no_formulas() -> None:
    import warnings

    from matplotlib.text import Text

    from megu.report.figures import FigureData, per_class_accuracy

    names = tuple(NASTY)
    values = {"original": np.linspace(0, 100, len(names)), "unlearned": np.linspace(100, 0, len(names))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that the font does not have
        figure = per_class_accuracy(FigureData(names, (0,), values))
        labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert not any(Text(0, 0, label)._preprocess_math(label)[1] for label in labels), "a formula"  # type: ignore[attr-defined]
        marks = [mark(name, name, Ar=80.0) for name in ("$x^2$", "_hidden", "a$b")]
        assert set(draw_bench(marks)) >= {"retain-forget"}
    assert len(labels) == len(names)


def test_the_terminal_shows_names_as_they_are() -> None:
    from megu.cli import terminal

    for name in NASTY:
        told = Console(file=io.StringIO(), width=2000, force_terminal=False)
        watcher = terminal.Watcher(told)
        watcher.note(name)
        watcher.stage_starts("noise", name)
        watcher.stage_ends("noise", hit=False, seconds=1, says=name)
        text = told.file.getvalue()  # type: ignore[attr-defined]
        assert squeezed(text).count(squeezed(escaping.visible(name))) >= 3, name
        assert "\x1b" not in text
        assert "\x07" not in text


def test_a_headline_and_a_plan_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    from types import SimpleNamespace

    from megu.cli import terminal

    for name in ("[l]", "[bold red]x[/]", "\x1b[31mred", "[/]"):
        terminal.print_summary(summary(name))
        terminal.print_plan([SimpleNamespace(label="noise", hit=False, why=name)], as_json=False)
        shown = capsys.readouterr().out
        assert shown.count(escaping.visible(name)) == 2
        assert "\x1b[31m" not in shown


def test_an_error_is_one_line_whatever_it_names(capsys: pytest.CaptureFixture[str]) -> None:
    from megu.cli import main as cli
    from megu.core.errors import MeguError

    for name in NASTY:

        def fail(name: str = name) -> None:
            raise MeguError(f"there is no class {name}", "mend it")

        assert cli.guarded(fail) == 2
        assert capsys.readouterr().err == f"megu: there is no class {escaping.plain(name + ': mend it')}\n"


def test_tags_and_runs_of_mlflow_take_every_name(tmp_path: Path) -> None:
    from megu.config.tree import parse
    from megu.core.project import Project
    from tasks.records import record

    (tmp_path / "params.yaml").write_text("seed: 0\n")
    classes = [name for name in NASTY if name.strip()]
    run = record.begin(Project(tmp_path), parse({"forget": {"classes": classes}}), None)
    found = run.client.get_run(run.id)
    assert found.data.tags["request"] == escaping.plain(", ".join(classes))
    assert found.info.run_name == f"forget {escaping.plain(', '.join(classes))}"
