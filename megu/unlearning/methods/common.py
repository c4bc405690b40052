"""Helpers shared by the methods: training on images, predicting with a frozen model, drawing, masking and comparing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megu.core.device import fused, sent
from megu.core.params import check
from megu.core.progress import track
from megu.core.seeds import derive, generator
from megu.data.tensors import ImageSet
from megu.models import seeded
from megu.training.capture import Captured
from megu.training.loop import (
    Batches,
    Objective,
    answer,
    fingerprint,
    forward,
    one_cycle,
    optimise,
    passed,
    prediction_batch_size,
)
from megu.unlearning.methods.context import Context, require

#: (logits, targets of a batch) -> loss
LossOf = Callable[[Tensor, Tensor], Tensor]
#: (positions in the images, step) -> the targets of a batch
TargetsAt = Callable[[Tensor, int], Tensor]
#: (inputs, positions in the images, step) -> inputs
Disturb = Callable[[Tensor, Tensor, int], Tensor]
MakeOptimiser = Callable[[nn.Module], torch.optim.Optimizer]


def check_training(epochs: int, lr: float, batch_size: int) -> None:
    """Check the ranges of the training parameters that every method has."""
    check("epochs", epochs, epochs >= 1, "at least 1")
    check("lr", lr, 0 < lr <= 1, "above 0 and at most 1")
    check("batch_size", batch_size, batch_size >= 2, "at least 2")


def drawn(images: ImageSet, count: int, seed: int) -> ImageSet:
    """Draw ``count`` of the images without repetition, or all when there are fewer, keeping their order."""
    return images.subset(torch.randperm(len(images), generator=generator(seed, "retain"))[:count].sort().values)


def allowed(labels: Tensor, forgotten: Sequence[int], num_classes: int) -> Tensor:
    """Return bool (N, K): the classes allowed as a forget sample's target: neither its own nor one that is being forgotten.

    Where the class stays in the label space (``forgotten`` is empty) only each sample's own label is masked.
    Raises ``ValueError`` when a sample has none left.
    """
    mask = torch.ones(len(labels), num_classes, dtype=torch.bool, device=labels.device)
    mask[:, list(forgotten)] = False
    mask[torch.arange(len(labels), device=labels.device), labels] = False
    if not bool(mask.any(dim=1).all()):
        raise ValueError(f"all {num_classes} classes are being forgotten: no other label is left")
    return mask


def wrong_labels(mask: Tensor, random: torch.Generator) -> Tensor:
    """Draw int64 (N,), one of the classes that ``mask`` (N, K) allows, uniformly; on the CPU, so the same on every device."""
    return torch.multinomial(mask.cpu().double(), 1, generator=random).flatten().to(mask.device)


def kl(logits: Tensor, probabilities: Tensor, temperature: float = 1.0) -> Tensor:
    """Return KL(teacher || student) of the student's ``logits`` at a temperature, times its square; summed over classes, mean over samples.

    probabilities: (B, K), the teacher's at the same temperature.
    """
    return F.kl_div(F.log_softmax(logits / temperature, dim=1), probabilities, reduction="batchmean") * temperature**2


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in evaluation mode, and back in its former mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def answers(model: nn.Module, images: ImageSet) -> Tensor:
    """Return float32 logits (N, K) of a frozen model for every image, on the device of the images."""
    with evaluating(model), torch.no_grad(), track("ask the original", len(images), "images") as advance:
        found = []
        for start in range(0, len(images), size := prediction_batch_size(images.device)):
            inputs = images.batch(slice(start, start + size))
            found.append(model(inputs).float())
            advance(len(inputs))
    return torch.cat(found)


def each_gradient(
    model: nn.Module, images: ImageSet, batch_size: int, seed: int, label: str, use: Callable[[list[Tensor]], None]
) -> int:
    """Call ``use`` with the gradient of each batch's mean cross-entropy, one tensor per parameter, in evaluation mode; return their number.

    Every image is used once, in random order; the last batch has the rest. ``use`` updates tensors in place, because on CUDA a batch is
    recorded (`megu.training.capture`) and computed in the fastest format (`answer`). The model's own ``.grad`` is left unchanged.
    """
    parameters = list(model.parameters())
    order = torch.randperm(len(images), generator=generator(seed, label))
    of_images, of_labels = sent(order, images.home), sent(order, images.device)

    def work(inputs: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(answer(model, inputs), labels)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        use([torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)])
        return loss

    starts = range(0, len(order), batch_size)
    take = Captured(work, model, images.device, len(starts), label)
    with evaluating(model), track(label, len(images), "images") as advance:
        for start in starts:
            part = slice(start, start + batch_size)
            take(images.batch(of_images[part]), images.labels[of_labels[part]])
            passed(len(order[part]))
            advance(len(order[part]))
    return len(starts)


def fresh_model(context: Context, stream: str, device: torch.device) -> nn.Module:
    """Return a newly initialised network of the original's architecture, a different one for each ``stream``."""
    return seeded(require(context.fresh, "fresh"), derive(context.seed, stream)).to(device)


def sgd(lr: float, weight_decay: float = 0.0) -> MakeOptimiser:
    """Return SGD with momentum 0.9, as in all of the public code."""
    return lambda model: torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=weight_decay, fused=fused(model))


def adam(lr: float) -> MakeOptimiser:
    return lambda model: torch.optim.Adam(model.parameters(), lr=lr, fused=fused(model))


def descend(
    model: nn.Module,
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    context: Context,
    *,
    epochs: int,
    per_epoch: int,
    batch_size: int,
    seen: ImageSet,
    warmup: float | None = None,
    training: bool = True,
    label: str = "unlearn",
) -> None:
    """Run `megu.training.loop.optimise` for a method: the rate is the optimiser's, constant or (with ``warmup``) one cycle up to it.

    seen: the images that the loss uses, in their order; they identify the checkpoint. training: see `optimise`.
    """
    steps, peak = epochs * per_epoch, float(optimiser.defaults["lr"])
    optimise(
        model,
        optimiser,
        objective,
        lambda step: peak if warmup is None else one_cycle(step, steps, peak, warmup),
        steps,
        seed=context.seed,
        key=f"{label} {asdict(context.params)} {context.seed} {fingerprint(seen)}" if context.checkpoint else "",
        checkpoint=context.checkpoint,
        label=label,
        batch_size=batch_size,
        per_epoch=per_epoch,
        training=training,
    )


def shuffled(images: ImageSet, context: Context, label: str = "unlearn") -> Batches:
    """Return the batches of `teach`, for code that needs them on the CPU: reading them from the device would mean waiting for it."""
    return Batches(len(images), context.params.batch_size, derive(context.seed, label))


def teach(
    model: nn.Module,
    images: ImageSet,
    targets_at: TargetsAt,
    loss_of: LossOf,
    optimiser: MakeOptimiser,
    context: Context,
    *,
    epochs: int | None = None,
    warmup: float | None = None,
    disturb: Disturb | None = None,
    label: str = "unlearn",
) -> nn.Module:
    """Return a copy of ``model`` that has minimised ``loss_of(logits, targets)`` over shuffled batches of ``images``, in training mode.

    The method's parameters set the ``batch_size`` and, unless specified here, the ``epochs``. warmup: see `descend`.
    disturb: changes the normalised inputs of a batch before the model sees them.
    """
    copied = copy.deepcopy(model)
    size = context.params.batch_size
    batches = shuffled(images, context, label)

    def batch_at(step: int) -> tuple[Tensor, Tensor]:
        index = batches.at(step, images.device)
        inputs = images.batch(batches.at(step, images.home))
        if disturb is not None:
            inputs = disturb(inputs, index, step)
        return inputs, targets_at(index, step)

    descend(
        copied,
        Objective(batch_at, lambda inputs, targets: loss_of(forward(copied, inputs), targets)),
        optimiser(copied),
        context,
        epochs=epochs or context.params.epochs,
        per_epoch=batches.per_epoch,
        batch_size=size,
        seen=images,
        warmup=warmup,
        label=label,
    )
    return copied
