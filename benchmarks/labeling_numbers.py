"""The tables of docs/labeling.md, from the functions: ``python benchmarks/labeling_numbers.py``."""

from __future__ import annotations

from megu.labeling.ollama import sanity, strategies
from megu.labeling.ollama.params import Judging

STRATEGIES = ("pairwise", "ranked", "screened")


def questions() -> list[str]:
    judging = Judging()
    lines = [
        f"Questions at most, with n = {judging.exemplars} exemplars, m = {judging.candidates} candidates and a sample of {judging.sample}:",
        "",
        f"| classes | {' | '.join(STRATEGIES)} |",
        f"|---|{'---|' * len(STRATEGIES)}",
    ]
    for classes in (10, 20, 100, 1000):
        counts = [
            strategies.calls(name, classes, judging.exemplars, judging.candidates, judging.sample, judging.depth)
            for name in STRATEGIES
        ]
        lines.append(f"| {classes:,} | {' | '.join(f'{count:,}' for count in counts)} |")
    return lines


def measures() -> list[str]:
    judging = Judging()
    lines = ["| measure | what it is | limit | default |", "|---|---|---|---|"]
    for name, (limit, meaning, more) in sanity.MEANING.items():
        bound = "at least" if more else "at most"
        lines.append(f"| `{name}` | {meaning} | `labeling.{limit}` | {bound} {getattr(judging, limit):g} |")
    return lines


if __name__ == "__main__":
    print("\n".join([*questions(), "", *measures()]))
