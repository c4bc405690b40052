"""The unlearning itself: one of `megu.unlearning.methods`, applied to the original."""

from __future__ import annotations

from typing import Any

from megu.core.project import Project
from megu.core.stages import Code, Device, Outcome, Result, Stage
from megu.training.loop import TrainParams
from megu.unlearning.methods import lookup
from megu.unlearning.methods.context import Context
from tasks.run import cached


def reoptimise(
    project: Project,
    data: Result,
    split: Result,
    original: Result,
    perturbing: Result | None,
    noise: Result | None,
    recipe: TrainParams | None,
    method: str,
    params: Any,
    code: Code,
    seed: int,
    device: Device,
) -> Outcome:
    """perturbing, noise, recipe: None if the method does not need them. code: the method's own, for the cache key."""
    from megu.training.weights import load_weights
    from megu.unlearning.noise import NoiseBank

    positions = cached.forget_split(project, split)
    images = cached.train_images(project, data, device)
    model = cached.model(project, original, device)
    _, info = load_weights(project.store.checked(original.files["weights"]))
    bank = cached.arrays_of(project, noise, "noise")
    context = Context(
        params=params,
        seed=seed,
        num_classes=len(data.values["classes"]),
        forgotten=positions.classes,
        perturbing=None if perturbing is None else cached.perturbing(project, perturbing),
        noise=None if bank is None else NoiseBank.from_arrays(bank),
        fresh=info.fresh,
        recipe=recipe,
        checkpoint=cached.checkpoint(
            project, "unlearn", data, split, original, perturbing, noise, recipe, method, params, seed
        ),
    )
    forget, retain = images.subset(positions.forget), images.subset(positions.retain)
    unlearned, cost = cached.measured(lambda: lookup(method).run(model, forget, retain, context), device)
    return cached.model_outcome(project, unlearned, info, cost, {"chosen": context.chosen} if context.chosen else None)


def say(result: Result) -> str:
    chosen = result.values.get("chosen", {})
    if not chosen.get("tried"):
        return cached.say_trained(result)
    return (
        f"{cached.say_trained(result)}, learning rate {chosen['lr']:.2g}, the best of {len(chosen['tried'])}: "
        f"{chosen['forget']:.3f} nats from the targets, {chosen['retain']:.3f} from the original on what is retained"
    )


UNLEARN = Stage("unlearn", "Unlearn: forget the forget set, keep the rest", reoptimise, say)


def take(project: Project, retrained: Result, method: str, params: Any) -> Outcome:
    """Take the reference as the unlearned model, with its cost: the method that retrains is that very training."""
    return Outcome(files=retrained.files, values=retrained.values, notes=retrained.notes)


EXACT = Stage("unlearn", "Take the retrain for the unlearned model", take, cached.say_trained)
