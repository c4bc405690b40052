"""How many fine-tuning steps bring the forget set back."""

from __future__ import annotations

from megu.core.project import Project
from megu.core.stages import Device, Outcome, Result, Stage
from megu.evaluation.params import RelearnParams
from tasks.run import cached


def measure(
    project: Project,
    data: Result,
    split: Result,
    original: Result,
    model: Result,
    params: RelearnParams,
    seed: int,
    device: Device,
) -> Outcome:
    """steps: None if the original's accuracy is not reached after ``params.steps``. target, before: accuracies in percent."""
    from megu.evaluation.relearning import accuracy, relearn, sample_queries

    forget = cached.train_images(project, data, device, cached.forget_split(project, split).forget)
    shown = sample_queries(forget, seed)
    target = accuracy(cached.model(project, original, device), shown) - params.tolerance
    network = cached.model(project, model, device)
    steps, cost = cached.measured(lambda: relearn(network, forget, target, params, seed), device)
    return Outcome(values={"steps": steps, "target": target, "before": accuracy(network, shown)}, notes=cost)


def say(result: Result) -> str:
    steps, values = result.values["steps"], result.values
    reached = "not back in time" if steps is None else f"back after {steps} steps"
    return f"{values['before']:.1f}% → {values['target']:.1f}% of the forget set: {reached}"


RELEARN = Stage("relearn", "Count the steps that bring the forget set back", measure, say)
