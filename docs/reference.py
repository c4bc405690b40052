"""Write the reference pages of the site from the code: ``python docs/reference.py``. With ``--check``, only say which are out of date.

Each page is made from what the code itself says: the commands from the command line's own help, the keys from the docstrings of the parameter
classes, methods and metrics from their tables. Nothing of it is typed a second time.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer.main

import megu
from megu.cli.main import app
from megu.config import explained
from megu.evaluation.guide import METRICS
from megu.labeling.kinds import KINDS
from megu.unlearning.methods import METHODS

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Written by `python docs/reference.py`; change the code, not this page. -->\n"
#: What a key's meaning leads on to.
MORE = {
    "data.suppressed": "../erasure.md#the-suppression-list",
    "labeling.strategy": "../labeling.md#three-strategies",
    "perturbing.matrix": "../method.md#what-the-labels-take-from-the-matrix",
    "perturbing.sharpness": "../method.md#how-sure-is-a-retrain-of-what-it-never-saw",
    "promotion.ladder.when": "../promotion.md#the-ladder",
    "promotion.policy": "../promotion.md#approve",
    "promotion.served": "../promotion.md#what-is-served",
    "promotion.webhook": "../promotion.md#being-told",
    "forget.near_duplicates": "../data.md#almost-the-same",
    "requests.controller": "../operations.md#the-page-of-a-request",
    "requests.backups_days": "../operations.md#the-page-of-a-request",
    "reference.enabled": "../promotion.md#without-a-retrain",
    "reference.weights": "../how-to/own-model.md#a-retrain-that-you-have",
    "purge.models_days": "../erasure.md#policy",
}
#: What a command's help leads on to.
SEE = {
    "megu bench": "../how-to/compare-methods.md",
    "megu cache prune": "../operations.md#what-is-stored",
    "megu doctor": "../operations.md#what-is-looked-at-before-anything-is-computed",
    "megu init": "../tutorial.md",
    "megu label": "../how-to/vision-model.md",
    "megu process": "../operations.md#what-a-run-does",
    "megu promote": "../promotion.md",
    "megu purge": "../how-to/erase.md",
    "megu request add": "../how-to/requests.md",
    "megu rollback": "../promotion.md#what-a-move-is",
    "megu suppress check": "../erasure.md#the-suppression-list",
    "megu verify": "../lineage.md#verify",
}
NEEDS = {"perturbing": "labeler", "noise": "noise", "retain": "retain set", "train_recipe": "recipe"}


def configuration() -> Iterator[str]:
    yield "# Configuration\n"
    yield (
        "`params.yaml`, or `--set section.key=value` for one run. What is left out has its default; `megu params` prints the "
        "whole of it. Where a text is wanted it is the text as written: a class called `no`, `07`, `null` or `2024-01-01` needs "
        'no quotes (special characters do: `["@home"]`). Where nothing is a value too, `null` is nothing. DVC reads '
        "`params.yaml` by itself, so a split is pinned in `dvc.lock` only if such names are in quotes there.\n"
    )
    yield "## The whole run\n"
    single = [
        key for name in explained.sections() for key in explained.section(name) if explained.kind_of_section(name) is None
    ]
    yield from keys(single)
    for name in explained.sections():
        if (kind := explained.kind_of_section(name)) is None:
            continue
        yield f"## {name}\n"
        if said := explained.about(kind):
            yield f"{said}\n"
        if name == "unlearn":
            yield "The keys of the default method; [Methods](methods.md) has those of the others.\n"
        yield from keys(explained.section(name))
        if name == "labeling":
            for other in (kind for kind in KINDS if kind != "prototype"):
                yield f"### labeling, with `kind: {other}`\n"
                yield from keys(explained.section(name, other))


def keys(rows: Sequence[explained.Key]) -> Iterator[str]:
    found = [
        (f"`{key.name}`", f"`{key.shown}`", key.meaning + (f" ([more]({MORE[key.name]}))" if key.name in MORE else ""))
        for key in rows
    ]
    yield table(("key", "default", "meaning"), found)


def methods() -> Iterator[str]:
    yield "# Methods\n"
    yield (
        "`unlearn.method` chooses one: `megu run --set unlearn.method=scrub --set unlearn.msteps=1`. Defaults are those of each "
        "method's public code. They were tuned for ResNet-18 on CIFAR, so another network or data set may need other rates. "
        "What a method does not need (labeler, noise) is not run and not counted in its time. [Your own "
        "method](../how-to/own-method.md) is a file more.\n"
    )
    rows = [(f"[`{name}`](#{name})", method.title, needs(method)) for name, method in METHODS.items()]
    yield table(("method", "what it does", "needs"), rows)
    for name, method in METHODS.items():
        yield f"## {name}\n"
        yield f"{method.title}. Paper: {method.paper}. Cost: {method.cost}.\n"
        own = [key for key in explained.section("unlearn", name) if key.name != "unlearn.method"]
        if own:
            yield from keys(own)


def needs(method: Any) -> str:
    return ", ".join(NEEDS[need] for need in sorted(method.needs, key=list(NEEDS).index))


def metrics() -> Iterator[str]:
    yield "# Metrics\n"
    yield (
        "Every metric that a run can have, in the order of its report. [Evaluation](../evaluation.md) says which are measured "
        "when; a metric of your own is an entry point (`megu.metrics`).\n"
    )
    rows = [
        (f"`{name}`", metric.title, metric.unit or "share", metric.right, metric.why, f"`{metric.group}/{name}`")
        for name, metric in METRICS.items()
    ]
    yield table(("metric", "title", "unit", "right value", "why", "in MLflow"), rows)
    yield (
        "MLflow groups its charts by what stands before the slash. The original's and the retrain's are `original/Af` and `reference/Af`; what "
        "a run took is in `cost/`, `seconds/`, `seconds_computed/` and `peak_memory_bytes/`. Runs that are older than the groups have none for "
        "the unlearned model's metrics (`Af`).\n"
    )


def commands() -> Iterator[str]:
    yield "# Commands\n"
    yield (
        "What is wrong with your input is said in one line, exit code 2. Ctrl-C ends a command within three seconds (130; "
        "SIGTERM 143), a second one at once: its Prefect run is Cancelled, its MLflow run KILLED, and the next run goes on from "
        "what was finished, a training from its last checkpoint.\n"
    )
    found = list(leaves(typer.main.get_command(app), "megu"))
    rows = [(f"[`{name}`](#{name.replace(' ', '-')})", said(command).partition("\n")[0]) for name, command in found]
    yield table(("command", "what it does"), rows)
    for name, command in found:
        yield f"## {name}\n"
        yield f"{said(command)}{f' [More]({SEE[name]}).' if name in SEE else ''}\n"
        context = command.make_context(name, [], resilient_parsing=True)
        records = [parameter.get_help_record(context) for parameter in command.params]
        rows = [(f"`{record[0]}`", record[1]) for record in records if record]
        if rows:
            yield table(("argument or option", "meaning"), rows)


def leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with the words that call it."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for word in sorted(inner):
        yield from leaves(inner[word], f"{name} {word}")


def said(command: Any) -> str:
    return " ".join((command.help or "").split())


def api() -> Iterator[str]:
    yield "# Python\n"
    yield "All that is public, as `megu.__all__` has it. [In Python](../how-to/python.md) shows it at work.\n"
    for name in megu.__all__:
        thing = getattr(megu, name)
        yield f"## megu.{name}\n"
        if not inspect.isclass(thing):
            yield f"```python\nmegu.{name}{signature(thing)}\n```\n"
        yield prose(thing)
        members = vars(thing).items() if inspect.isclass(thing) else ()
        for inner, member in ((inner, member) for inner, member in members if not inner.startswith("_")):
            called = getattr(member, "__func__", member)  # a class method as the function that it is
            if isinstance(member, property) and member.__doc__:
                yield f"### megu.{name}.{inner}\n"
                yield prose(member)
            elif inspect.isfunction(called) and called.__doc__:
                yield f"### megu.{name}.{inner}\n"
                yield f"```python\nmegu.{name}.{inner}{signature(called)}\n```\n"
                yield prose(called)


def signature(function: Any) -> str:
    """The arguments with their defaults; what they are stands below, in words."""
    found = inspect.signature(function)
    arguments = [one.replace(annotation=one.empty) for name, one in found.parameters.items() if name not in ("self", "cls")]
    return str(found.replace(parameters=arguments, return_annotation=found.empty))


def prose(thing: Any) -> str:
    """A docstring as Markdown: its headings in bold, each line that explains a name an entry of a list."""
    text = inspect.getdoc(thing) or ""
    text = re.sub(r"^(\w+)\n-{3,}\n", r"**\1**\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"^((?:\*{0,2}\w+, )*\*{0,2}\w+): ", r"- `\1`: ", text, flags=re.MULTILINE)
    return re.sub(r"(?<=[^\n])\n(?=- `)", "\n\n", text) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([escaped(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def escaped(cell: str) -> str:
    """A cell with the signs that would end it, or begin a tag outside of code."""
    return re.sub(r"(`+).+?\1|<", lambda found: found[0] if found[1] else "&lt;", cell).replace("|", "\\|")


PAGES = {"configuration": configuration, "commands": commands, "methods": methods, "metrics": metrics, "api": api}


def pages() -> dict[Path, str]:
    """Every page's path and text."""
    return {FOLDER / f"{name}.md": f"{NOTE}\n" + "\n".join(made()) for name, made in PAGES.items()}


def main(check: bool) -> int:
    old = [path for path, text in pages().items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in old:
        print(f"{path.name}: {'out of date; run python docs/reference.py' if check else 'written'}")
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(pages()[path], encoding="utf-8")
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
