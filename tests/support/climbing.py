"""A stand-in for the pipeline on a ladder: no training, no server, but the dossier that a run would leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dossier_fixtures import dossier, evaluation, records

from megu.config.tree import Config
from megu.core.project import Project
from megu.evaluation.gate import GateParams, decide
from megu.evaluation.summary import Rung, Summary
from megu.lineage import dossier as folder_of
from megu.lineage.record import to_lines


class Runs:
    """Stands for the pipeline: makes the dossier that a run would leave, and passes the gate where it is told to.

    passes: numbers of the rungs that pass. during: called with the number of a rung before it is done. seeds: retrains that the gate wants;
    there is one.
    """

    def __init__(self, passes: Sequence[int] = (), during: Callable[[int], None] = lambda number: None, seeds: int = 1) -> None:
        self.passes, self.during, self.seeds, self.made = passes, during, seeds, list[tuple[int, str]]()

    def __call__(self, project: Project, config: Config, tags: Mapping[str, str], before: Sequence[Rung] | None) -> Summary:
        assert before is not None
        number = len(before) + 1
        self.during(number)
        self.made.append((number, config.unlearn.method))
        judged = evaluation()
        if number not in self.passes:
            judged["unlearned"] = {**judged["unlearned"], "metrics": {**judged["unlearned"]["metrics"], "Af": 60.0 + number}}
        params = GateParams(min_seeds=self.seeds, forget_margin=50, retain_drop=50, class_drop=50, mia_band=50)
        verdict = decide(judged, params, champion="1")
        rules = [rule for rule in verdict.rules if rule.rule not in ("each class, test", "forgotten, train")]
        decision = "fail" if any(rule.holds is False for rule in rules) else "pass"
        run = f"{len(self.made):032x}"
        rung = Rung(
            number=number,
            method=config.unlearn.method,
            params={name: value for name, value in config.to_json()["unlearn"].items() if name != "method"},
            outcome=decision,
            says=[rule.reason for rule in rules if rule.holds is False],
            metrics=judged["unlearned"]["metrics"],
            seconds=10.0,
            compute_seconds=float(sum(record.circumstances["notes"].get("compute_seconds", 0) for record in costed())),
            passes=200,
            mlflow_run_id=run,
            version="models:/megu/2",
        )
        made = replace(
            dossier(),
            run=replace(dossier().run, mlflow_run_id=run),
            method={**dossier().method, "name": config.unlearn.method},
            parameters=config.to_json(),
            ladder=[*before, rung],
        )
        gate = folder_of.Gate(champion="1", decision=decision, rules=rules)
        made = replace(made, evidence=replace(made.evidence, evaluation=judged, failures=rung.says, gate=gate))
        folder = project.dossiers / run
        folder.mkdir(parents=True)
        lines = to_lines(costed())
        made = replace(made, files={**made.files, folder_of.RECORDS: folder_of.sha256(lines)})
        for name, content in folder_of.sealed(made, lines, b"", None).items():
            (folder / name).write_bytes(content)
        return Summary(
            "said", [], rung.metrics, {}, None, gate=replace(verdict, decision=decision, rules=rules), mlflow_run_id=run,
            model_version=rung.version, ladder=[*before, rung],
        )  # fmt: skip


def costed() -> list[Any]:
    """Records whose unlearning says what it cost."""
    return [
        replace(record, circumstances={"notes": {"compute_seconds": 4.0, "passes": 200}})
        if record.stage == "unlearn"
        else record
        for record in records()
    ]
