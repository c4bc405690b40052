"""The training engine: one loop for the original, the retrain and the re-optimisation.

Everything random at step t is a function of (seed, t), and the learning rate is a function of t alone. So a killed training continues
from its checkpoint to exactly the weights it would have had, and there is no random state to save.

A step never has to wait for the device (`megu.core.device`): data, order and augmentation are on the device before it begins.

One file because every training goes through all of it, in this order.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megu.core.device import CPU, choosing_kernels, fast, fused, sent
from megu.core.errors import MeguError
from megu.core.params import STRICT, check
from megu.core.progress import track
from megu.core.seeds import derive, generator
from megu.core.seeds import start as start_generators
from megu.data.tensors import CROP_PADDING, ImageSet
from megu.models import build, code, exists, names
from megu.training import checkpoint as checkpoints
from megu.training.capture import Captured, recordable
from megu.training.compiling import Compiling, Remembered, compilable, kind_of
from megu.training.distributed import replicated, whole_batch_norm, world

#: Seconds between checkpoints: the most work that a kill can cost.
CHECKPOINT_EVERY_S = 10.0
#: Steps between checks of the losses: a check waits for the device, so it is not done at every step.
LOOK_EVERY = 50
#: Steps whose augmentation is drawn and sent to the device at once.
DRAWN_AT_ONCE = 64
#: Images per batch in prediction; on CUDA small batches leave the device idle.
ASKED, ASKED_CUDA = 500, 2500


Augment = Literal["none", "flip", "flip-crop"]


@dataclass(frozen=True, kw_only=True)
class TrainParams:
    """The recipe of the original and of its true retrain.

    arch: the architecture: a name that ``megu models`` lists, or your own as package.module:function.
    pretrained: declares that your own architecture starts from weights made elsewhere, the same for every seed, that never saw the
        data set.
    epochs: passes over the training images.
    batch_size: images per step.
    optimiser: "adamw", or "sgd" (momentum 0.9, without Nesterov's step; weight decay is then part of the gradient).
    lr: the peak learning rate.
    schedule: "one-cycle" (from 0 up to the peak, then down to 0) or "multistep".
    warmup: share of the steps in which the one-cycle rate rises.
    milestones: for "multistep", the epochs at whose start the rate drops, counted from 0.
    drop: the factor by which the rate is multiplied at each milestone.
    weight_decay: weight decay of the optimiser.
    label_smoothing: share of each label that is spread over all classes.
    augment: "none", "flip" (half of the images mirrored) or "flip-crop" (that, and a random crop of the image padded by 4 black
        pixels).
    compile: whether torch compiles the model: "on", "off", or "auto", which compiles on CUDA where the measured rates show that it pays
        off (`megu.training.compiling`).
    """

    __pydantic_config__ = STRICT

    arch: str = "resnet-compact"
    pretrained: bool = False
    epochs: int = 3
    batch_size: int = 256
    optimiser: Literal["adamw", "sgd"] = "adamw"
    lr: float = 0.01
    schedule: Literal["one-cycle", "multistep"] = "one-cycle"
    warmup: float = 0.2
    milestones: tuple[int, ...] = ()
    drop: float = 0.2
    weight_decay: float = 0.05
    label_smoothing: float = 0.0
    augment: Augment = "flip"
    compile: Literal["auto", "on", "off"] = "auto"

    def __post_init__(self) -> None:
        if not exists(self.arch):  # names() searches the installed packages, so call it only then
            check("arch", self.arch, False, f"one of {', '.join(names())}, or package.module:function")
        check("epochs", self.epochs, self.epochs >= 1, "at least 1")
        check("batch_size", self.batch_size, self.batch_size >= 2, "at least 2")
        check("lr", self.lr, 0 < self.lr < 100, "above 0 and below 100")
        check("warmup", self.warmup, 0 <= self.warmup < 1, "at least 0 and below 1")
        check("weight_decay", self.weight_decay, 0 <= self.weight_decay < 10, "at least 0 and below 10")
        check("label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1, "at least 0 and below 1")
        check("augment", self.augment, self.augment in get_args(Augment), f"one of {', '.join(get_args(Augment))}")
        check("drop", self.drop, 0 < self.drop <= 1, "above 0 and at most 1")
        rising = all(a < b for a, b in pairwise((0, *self.milestones, self.epochs)))
        check("milestones", self.milestones, rising, f"rising epochs between 1 and the last of the {self.epochs}")
        check("milestones", self.milestones, self.schedule == "multistep" or not self.milestones, "empty except for multistep")

    def code(self) -> Mapping[str, str]:
        """Return digests of the user's own source that the recipe runs (`megu.core.stages` puts them into the cache key)."""
        return code(self.arch)


class NotFinite(MeguError):
    """A training produced values that are not finite."""


_passes: ContextVar[list[int] | None] = ContextVar("passes", default=None)


@contextmanager
def counting() -> Iterator[list[int]]:
    """Count the *passes* inside the block: images through a network forward and backward. The sum of the list is their number."""
    count: list[int] = []
    token = _passes.set(count)
    try:
        yield count
    finally:
        _passes.reset(token)


def passed(images: int) -> None:
    """Count ``images`` more images that went through a network forward and backward."""
    count = _passes.get()
    if count is not None:
        count.append(images)


@dataclass(frozen=True)
class Predictions:
    """logits: float32 (N, K); features: float32 (N, F) or None. On the CPU."""

    logits: Tensor
    features: Tensor | None


def one_cycle(step: int, steps: int, peak: float, warmup: float) -> float:
    """Return the learning rate at ``step`` of ``steps``: from 0 linearly up to ``peak``, then linearly down to 0."""
    at = (step + 0.5) / steps
    return peak * (at / warmup if at < warmup else (1 - at) / (1 - warmup))


def multistep(epoch: int, lr: float, milestones: Sequence[int], drop: float) -> float:
    """Return the learning rate in ``epoch`` (from 0): multiplied by ``drop`` for every milestone reached."""
    return lr * drop ** sum(epoch >= milestone for milestone in milestones)


def optimiser_of(params: TrainParams, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of a recipe over all of a model's parameters."""
    settings: dict[str, Any] = {"lr": params.lr, "weight_decay": params.weight_decay, "fused": fused(model)}
    if params.optimiser == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=0.9, **settings)
    return torch.optim.AdamW(model.parameters(), **settings)


@dataclass(frozen=True)
class Batches:
    """Shuffled batches of the positions 0..n-1, in a new order each epoch; an incomplete last batch is skipped until the next epoch."""

    n: int
    size: int
    seed: int

    @property
    def per_epoch(self) -> int:
        return max(self.n // self.size, 1)

    def at(self, step: int, device: torch.device = CPU) -> Tensor:
        """Return int64 (B,) on ``device``, the positions of the batch at ``step``, counted over all epochs. An epoch's are sent at once."""
        epoch, within = divmod(step, self.per_epoch)
        return _order(self.n, derive(self.seed, "order", epoch), device)[within * self.size : (within + 1) * self.size]


@lru_cache(maxsize=4)
def _order(n: int, seed: int, device: torch.device) -> Tensor:
    if device.type == "cpu":
        return torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return sent(_order(n, seed, CPU), device)


@dataclass(frozen=True)
class Objective:
    """What a training minimises: at each step ``loss_of(*batch_at(step))``.

    batch_at: the tensors of a step, on the model's device; a function of the step alone. loss_of: a function of these and of the model;
    it updates its own state, besides the model's weights, in place, because on CUDA a whole step is recorded (`megu.training.capture`).
    note_progress: receives the number of steps done after each check of the losses, when the device is synchronised; returns whether
    ``loss_of`` computes differently from then on and has to be recorded again.
    """

    batch_at: Callable[[int], tuple[Tensor, ...]]
    loss_of: Callable[..., Tensor]
    note_progress: Callable[[int], bool] = lambda done: False


def optimise(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    objective: Objective,
    lr_at: Callable[[int], float],
    steps: int,
    *,
    seed: int,
    key: str = "",
    checkpoint: Path | None = None,
    label: str = "train",
    batch_size: int = 1,
    per_epoch: int = 0,
    training: bool = True,
) -> None:
    """Minimise ``objective`` for ``steps`` steps, continuing from ``checkpoint`` when it belongs to this ``key``.

    The checkpoint is removed at the end. per_epoch: steps per epoch, so that an error can name the epoch. training: whether the model is in
    training mode; in evaluation mode batch norm keeps its statistics, so training sees the outputs that the model will give later.

    Raises `NotFinite` when a loss or a weight is not finite: it names step, epoch and learning rate. Only finite states are
    ever saved, so the remaining checkpoint is the last good one.
    """
    rank = world().rank
    model.train(training)
    done = kept = checkpoints.restore(checkpoint, model, optimiser, key) if checkpoint else 0
    saved = time.monotonic()
    losses: list[Tensor] = []

    device = next((parameter.device for parameter in model.parameters()), CPU)
    one_step = step_of(optimiser, objective.loss_of)
    take = Captured(one_step, model, device, steps - done, label)
    set_lr = rate_setter(optimiser, device)
    with choosing_kernels(steps - done), track(label, steps * batch_size, "images") as advance:
        advance(done * batch_size)
        passed(done * batch_size)
        for step in range(done, steps):
            set_lr(lr_at(step))
            # For random layers (dropout, say); each process draws for its own images.
            start_generators(derive(seed, "step", step, *([rank] if rank else [])))
            losses.append(take(*objective.batch_at(step)))
            passed(batch_size)
            advance(batch_size)
            due = checkpoint is not None and not rank and time.monotonic() - saved > CHECKPOINT_EVERY_S
            last = step + 1 == steps
            if due or last or len(losses) == LOOK_EVERY:
                fault = _not_finite(losses, model if due or last else None)
                if fault:
                    at = step - len(losses) + 1 + fault.position
                    epoch = f", epoch {at // per_epoch + 1}" if per_epoch else ""
                    where = f"step {at + 1} of {steps}{epoch}, learning rate {lr_at(at):g}"
                    left = f"; the last good state, after step {kept}, is kept in {checkpoint}" if checkpoint and kept else ""
                    raise NotFinite(f"{label}: {fault.what} at {where}", f"lower the learning rate{left}")
                whole = len(losses) == LOOK_EVERY
                losses.clear()
                if whole and objective.note_progress(step + 1):
                    take = Captured(one_step, model, device, steps - step - 1, label)
            if due and checkpoint:
                checkpoints.save(checkpoint, model, optimiser, step + 1, key)
                kept, saved = step + 1, time.monotonic()
    model.eval()
    if checkpoint and not rank:
        checkpoint.unlink(missing_ok=True)


def step_of(optimiser: torch.optim.Optimizer, loss_of: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function that takes a batch, moves the weights by one step of ``optimiser`` on ``loss_of(*batch)`` and returns that loss."""

    def step_on(*batch: Tensor) -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of(*batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return loss

    return step_on


def rate_setter(optimiser: torch.optim.Optimizer, device: torch.device) -> Callable[[float], None]:
    """Return a function that sets the learning rate of ``optimiser``; where steps are recorded, in a tensor that each replay reads."""
    if not recordable(device):

        def set_number(lr: float) -> None:
            for group in optimiser.param_groups:
                group["lr"] = lr

        return set_number
    rate = torch.zeros((), device=device)
    for group in optimiser.param_groups:
        group["lr"] = rate
        if "capturable" in group:
            group["capturable"] = True

    def set_tensor(lr: float) -> None:
        rate.fill_(lr)

    return set_tensor


@dataclass(frozen=True)
class _Fault:
    """position: that of the step where it was seen, among the steps checked."""

    what: str
    position: int


def _not_finite(losses: list[Tensor], model: nn.Module | None) -> _Fault | None:
    """Return the first loss that is NaN or infinite, or else such a weight of ``model``; None when all are finite."""
    bad = torch.nonzero(~torch.isfinite(torch.stack(losses))).flatten().tolist()
    if bad:
        return _Fault(f"the loss is {float(losses[bad[0]])}", bad[0])
    state = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()] if model else []
    if state and not bool(torch.stack([torch.isfinite(tensor).all() for tensor in state]).all()):
        return _Fault("a weight is not finite", len(losses) - 1)
    return None


def train(
    images: ImageSet,
    params: TrainParams,
    num_classes: int,
    seed: int,
    *,
    checkpoint: Path | None = None,
    label: str = "train",
) -> nn.Module:
    """Train a fresh model on the device of ``images``; the same seed gives the same bits on the same machine's CPU.

    checkpoint: where to save the state every few seconds, and to continue from; one of other images, parameters or seed is ignored.
    """
    channels, *size = images.shape
    model = build(params.arch, num_classes, channels, seed, (size[0], size[1]), pretrained=params.pretrained)
    model = model.to(images.device)
    fit(model, images, params, seed, checkpoint=checkpoint, label=label)
    return model


def fit(
    model: nn.Module,
    images: ImageSet,
    params: TrainParams,
    seed: int,
    *,
    checkpoint: Path | None = None,
    label: str = "train",
) -> None:
    """Train ``model`` in place with the recipe, whatever its architecture."""
    batches = Batches(len(images), params.batch_size, derive(seed, "train"))
    steps = params.epochs * batches.per_epoch
    count = min(params.batch_size, len(images))
    mine = world().share(count)
    model = whole_batch_norm(model, images.device)
    setting, kind = params.compile, ""
    if setting == "auto":
        setting = "auto" if compilable(images.device) else "off"
        kind = kind_of(params.arch, (count, *images.shape), images.device) if setting == "auto" else ""
    compiling = Compiling(replicated(model), setting, kind, steps, label, Remembered())

    def lr_at(step: int) -> float:
        if params.schedule == "multistep":
            return multistep(step // batches.per_epoch, params.lr, params.milestones, params.drop)
        return one_cycle(step, steps, params.lr, params.warmup)

    def batch_at(step: int) -> tuple[Tensor, Tensor]:
        drawn = augmentation(params.augment, count, seed, step, images.device)
        flip, crop = (None if entry is None else entry[mine] for entry in drawn)
        inputs = images.batch(batches.at(step, images.home)[mine], flip, crop)
        return inputs, images.labels[batches.at(step, images.device)[mine]]

    def loss_of(inputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(forward(compiling.called, inputs), labels, label_smoothing=params.label_smoothing)

    optimise(
        model,
        optimiser_of(params, model),
        Objective(batch_at, loss_of, compiling.note_progress),
        lr_at,
        steps,
        seed=seed,
        key=f"{asdict(params)} {seed} {fingerprint(images)}" if checkpoint else "",
        checkpoint=checkpoint,
        label=label,
        batch_size=params.batch_size,
        per_epoch=batches.per_epoch,
    )


def forward(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return float32 logits, computed in the number format that the hardware multiplies fastest."""
    with fast(inputs.device):
        logits: Tensor = model(inputs)
    return logits.float()


def answer(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return float32 logits, computed on CUDA in the format that the hardware multiplies fastest, on a CPU in float32."""
    if inputs.device.type == "cuda":
        return forward(model, inputs)
    logits: Tensor = model(inputs)
    return logits


def augmentation(
    augment: Augment, count: int, seed: int, step: int, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """Return which of ``count`` images are mirrored, bool (B,), and where each is cropped, int64 (B, 2); None for an unused augmentation.

    It is a function of the seed and the step, drawn on the CPU so that every device sees the same, for several steps at once.
    """
    if augment == "none":
        return None, None
    block, within = divmod(step, DRAWN_AT_ONCE)
    flips, crops = _augmentations(augment == "flip-crop", count, seed, block, device)
    return flips[within], None if crops is None else crops[within]


@lru_cache(maxsize=1)
def _augmentations(cropping: bool, count: int, seed: int, block: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return the augmentations of each step of a block: bool (S, B) and int64 (S, B, 2)."""
    steps = range(block * DRAWN_AT_ONCE, (block + 1) * DRAWN_AT_ONCE)
    flips = torch.stack([torch.rand(count, generator=generator(seed, "flip", step)) < 0.5 for step in steps])
    if not cropping:
        return sent(flips, device), None
    crops = [torch.randint(2 * CROP_PADDING + 1, (count, 2), generator=generator(seed, "crop", step)) for step in steps]
    return sent(flips, device), sent(torch.stack(crops), device)


def fingerprint(images: ImageSet) -> str:
    """Return a hash of the images and labels, in their order."""
    hashed = blake2b(digest_size=16)
    for start in range(0, len(images), 4096):  # a set on disk need not fit in memory
        hashed.update(images.raw(slice(start, start + 4096)).permute(0, 2, 3, 1).contiguous().cpu().numpy().data)
    hashed.update(images.labels.cpu().numpy().data)
    return hashed.hexdigest()


def prediction_batch_size(device: torch.device) -> int:
    """Return the number of images per batch in prediction without gradients on ``device``."""
    return ASKED_CUDA if device.type == "cuda" else ASKED


@torch.inference_mode()
def predict(
    model: nn.Module, images: ImageSet, *, features: bool = False, label: str = "predict", batch_size: int = 0
) -> Predictions:
    """Return the model's predictions for every image, in evaluation mode and float32.

    batch_size: 0 for `ASKED`, on CUDA `ASKED_CUDA`; the device is synchronised once per batch.
    """
    model.eval()
    batch_size = batch_size or prediction_batch_size(images.device)
    logits, penultimate = [], []
    with track(label, len(images), "images") as advance:
        for number in range(math.ceil(len(images) / batch_size)):
            inputs = images.batch(slice(number * batch_size, (number + 1) * batch_size))
            found = model.features(inputs)  # type: ignore[operator]
            logits.append(model.classify(found).cpu())  # type: ignore[operator]
            if features:
                penultimate.append(found.cpu())
            advance(len(inputs))
    return Predictions(torch.cat(logits), torch.cat(penultimate) if features else None)
