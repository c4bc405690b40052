"""MeGU's re-optimisation (arXiv 2602.17088, Eq 12), adapted to any network; each difference from the paper is a parameter.

A batch has some forget samples, trained on their perturbing targets (`megu.unlearning.methods.steering`), and some retain samples,
trained on the original's answers: a label would move the model even where it is right. The number of steps is fixed, so the cost
does not grow with the data. No learning rate has to be set: a few are tried, and the run itself shows which was best
(`megu.unlearning.methods.rate`).

`megu.unlearning.methods.megu_published` is the paper's form.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megu.core.device import sent
from megu.core.files.store import without_nan
from megu.core.params import STRICT, check
from megu.core.seeds import derive, generator
from megu.data.tensors import ImageSet
from megu.training.loop import Batches, Objective, forward
from megu.unlearning.methods.common import adam, answers, check_training, descend, sgd
from megu.unlearning.methods.context import Context, Method, Span, require
from megu.unlearning.methods.feature_noise import Noise
from megu.unlearning.methods.rate import Tried, search
from megu.unlearning.methods.steering import Steering

#: How many images of each set score a try, and how many forget images the steering uses.
WATCHED = 500
#: The rates that are tried first: the best, or nearly the best, for small networks with batch norm.
FIRST = {"adam": 1e-3, "sgd": 1e-2}


@dataclass(frozen=True, kw_only=True)
class MeguParams:
    """steps: steps of a re-optimisation.
    batch_size: images per step; at most half of them are forget samples, the rest retain samples.
    forget_epochs: how often each forget sample is used; those of a large forget set are used less often.
    lr: the peak learning rate, which falls to 0; "auto" tries a few and takes the best (`megu.unlearning.methods.rate`).
    trial_steps: for "auto", steps at each rate that is tried.
    optimiser: "adam", or "sgd" (momentum 0.9).
    retain_samples: drawn once from the retain set (the paper's 10,000).
    retain_weight: the weight of a retain sample in the loss, where that of a forget sample is 1.
    retain_target: the targets of retain samples: what the original "answers" to them, or their "labels" (the paper).
    alpha: share of the positive noise in the mixture (the paper's 0.7).
    noise_share: share of the forget samples in a batch that carry noise, drawn anew each step.
    noise_scale: the factor by which the mixture is scaled. With all of it at full scale (the paper, read literally) a network can learn the
        noise and still know the clean class.
    noise_sides: "both"; "positive" or "negative" alone is the ablation of the other side (alpha 1 or 0).
    batch_norm: "frozen" at the original's statistics, like all layers that behave differently in training (dropout), so that training
        sees the outputs that the model will give later; or the statistics of the "batch", of which half may be forget samples.
    steering: how much of the error of the model's entropies is added to the soft targets at each step
        (`megu.unlearning.methods.steering`); 0 leaves them as they were fitted.
    follow: the share of the model's own answer in its targets at the first step; without effect where there is no steering.
    follow_last: the same at the last step; it changes evenly in between.

    Steering, follow and follow_last have no effect on rank labels, on a fixed sharpness, and on samples whose class stays.
    """

    __pydantic_config__ = STRICT

    steps: int = 160
    batch_size: int = 128
    forget_epochs: int = 8
    lr: Literal["auto"] | float = "auto"
    trial_steps: int = 20
    optimiser: Literal["sgd", "adam"] = "adam"
    retain_samples: int = 10_000
    retain_weight: float = 2.0
    retain_target: Literal["answers", "labels"] = "answers"
    alpha: float = 0.7
    noise_share: float = 0.5
    noise_scale: float = 0.1
    noise_sides: Literal["both", "positive", "negative"] = "both"
    batch_norm: Literal["frozen", "batch"] = "frozen"
    steering: float = 0.05
    follow: float = 0.5
    follow_last: float = 1.0

    def __post_init__(self) -> None:
        check("steps", self.steps, self.steps >= 1, "at least 1")
        check("forget_epochs", self.forget_epochs, self.forget_epochs >= 1, "at least 1")
        check("trial_steps", self.trial_steps, self.trial_steps >= 1, "at least 1")
        check("lr", self.lr, self.lr == "auto" or 0 < self.lr <= 1, '"auto", or above 0 and at most 1')
        check_training(1, 1.0, self.batch_size)
        check("retain_samples", self.retain_samples, self.retain_samples >= 1, "at least 1")
        check("retain_weight", self.retain_weight, 0 < self.retain_weight <= 100, "above 0 and at most 100")
        check("alpha", self.alpha, 0 <= self.alpha <= 1, "between 0 and 1")
        check("noise_share", self.noise_share, 0 <= self.noise_share <= 1, "between 0 and 1")
        check("noise_scale", self.noise_scale, 0 <= self.noise_scale <= 10, "between 0 and 10")
        check("steering", self.steering, 0 <= self.steering <= 1, "between 0 and 1")
        check("follow", self.follow, 0 <= self.follow <= 1, "between 0 and 1")
        check("follow_last", self.follow_last, 0 <= self.follow_last <= 1, "between 0 and 1")

    @property
    def positive_share(self) -> float:
        """The share of positive noise that is used, with the ablations applied."""
        return {"both": self.alpha, "positive": 1.0, "negative": 0.0}[self.noise_sides]

    def forgets(self, count: int) -> int:
        """Return the number of forget samples per batch, of ``count`` in total."""
        return min(max(math.ceil(self.forget_epochs * count / self.steps), 1), self.batch_size // 2, count)

    @property
    def leaves_clean(self) -> bool:
        """Whether no forget sample carries noise."""
        return not (self.noise_share and self.noise_scale)


def spares(params: MeguParams) -> frozenset[str]:
    """Return {"noise"} where the training uses no noise, so that none has to be made."""
    return frozenset({"noise"}) if params.leaves_clean else frozenset()


def unlearn(model: nn.Module, forget: ImageSet, retain: ImageSet, context: Context) -> nn.Module:
    """Train on the perturbing targets of the (noisy) forget set and on the targets of the retain samples, in the same batches.

    Returns a new model on the device of the images; ``model`` is left unchanged. The rates that were tried are in ``context.chosen``.
    """
    params: MeguParams = context.params
    order = torch.randperm(len(retain), generator=generator(context.seed, "retain"))
    apart = min(WATCHED, len(order) // 5)
    watched, kept = (
        retain.subset(part.sort().values) for part in (order[: apart or None], order[apart:][: params.retain_samples])
    )
    lesson = Lesson(model, forget, kept, context)
    shown = torch.randperm(len(forget), generator=generator(context.seed, "watched"))[:WATCHED].sort().values
    known = lesson.retained_answers(watched)

    def attempt(lr: float, steps: int) -> tuple[nn.Module, Tried]:
        taught, targets = lesson.at(lr, steps)
        said = answers(taught, forget.subset(shown))
        forgot = divergence(targets.judged(shown.to(forget.device), said), said)
        return taught, Tried(lr, forgot, divergence(known, answers(taught, watched)))

    tried = [] if params.lr != "auto" else search(lambda lr: attempt(lr, params.trial_steps)[1], FIRST[params.optimiser])
    lr = params.lr if params.lr != "auto" else min(tried, key=lambda entry: entry.loss).lr
    found, final = attempt(lr, params.steps)
    context.chosen.update(without_nan(asdict(final)), tried=[without_nan(asdict(entry)) for entry in tried])
    return found


def divergence(right: Tensor, logits: Tensor) -> float:
    """Return the mean KL divergence, in nats, of the answers ``logits`` (N, K) from the distributions ``right`` (N, K)."""
    return float(F.kl_div(logits.log_softmax(dim=1), right, reduction="batchmean"))


class Lesson:
    """The re-optimisation of one original, which can be repeated at different learning rates."""

    def __init__(self, model: nn.Module, forget: ImageSet, kept: ImageSet, context: Context) -> None:
        """kept: the retain samples that are trained on."""
        self.model, self.forget, self.kept, self.context = model, forget, kept, context
        self.params: MeguParams = context.params
        self.perturbing = require(context.perturbing, "perturbing")
        self.noise = None if self.params.leaves_clean else Noise(context, forget, torch.from_numpy(self.perturbing.targets))
        self.known = (
            self.retained_answers(kept)
            if self.params.retain_target == "answers"
            else F.one_hot(kept.labels, context.num_classes).float()
        )
        forgets = self.params.forgets(len(forget))
        self.forgetting = Batches(len(forget), forgets, derive(context.seed, "forget batches"))
        self.keeping = Batches(len(kept), self.params.batch_size - forgets, derive(context.seed, "retain batches"))

    def retained_answers(self, images: ImageSet) -> Tensor:
        """Return float32 (N, K), the original's answers without the classes that leave, which a retrain would not name. Rows sum to 1."""
        leaves = torch.zeros(self.context.num_classes, dtype=torch.bool)
        leaves[list(self.context.forgotten)] = True
        return answers(self.model, images).masked_fill(sent(leaves, images.device), -torch.inf).softmax(dim=1)

    def at(self, lr: float, steps: int) -> tuple[nn.Module, Steering]:
        """Return a copy of the model, trained at a rate that falls from ``lr`` to 0, and the steering of its targets."""
        taught, params, device = copy.deepcopy(self.model), self.params, self.forget.device
        # A trial is the beginning of the whole training, so the share of the model's own answer rises over all of its steps.
        targets = Steering(
            self.perturbing, self.forget.labels, params.steering, params.follow, params.follow_last, params.steps
        ).to(device)

        def batch_at(step: int) -> tuple[Tensor, ...]:
            """Return forget and then retain images; the rows of the former, and whether they carry noise; the targets of the latter."""
            lost, left = self.forgetting.at(step, self.forget.home), self.keeping.at(step, self.kept.home)
            inputs, noisy = self.forget.batch(lost), torch.zeros(len(lost), dtype=torch.bool)
            if self.noise is not None:
                noisy = self.noise.carriers(len(lost), step)
                inputs = self.noise.add(inputs, self.forgetting.at(step), torch.arange(len(inputs)), step)
            images = torch.cat([inputs, self.kept.batch(left)])
            return images, self.forgetting.at(step, device), sent(noisy, device), self.known[self.keeping.at(step, device)]

        def loss_of(images: Tensor, lost: Tensor, noisy: Tensor, known: Tensor) -> Tensor:
            logits = forward(taught, images)
            aims = targets.at(lost, logits[: len(lost)].detach(), noisy)
            each, weight = F.cross_entropy(logits, torch.cat([aims, known]), reduction="none"), params.retain_weight
            return (each[: len(lost)].sum() + weight * each[len(lost) :].sum()) / (len(lost) + weight * len(known))

        descend(
            nn.ModuleList([taught, targets]),
            Objective(batch_at, loss_of),
            (sgd if params.optimiser == "sgd" else adam)(lr)(taught),
            self.context,
            epochs=1,
            per_epoch=steps,
            batch_size=self.forgetting.size + min(self.keeping.size, len(self.kept)),
            seen=self.forget.joined(self.kept),
            warmup=0.0,
            training=params.batch_norm == "batch",
            label=f"unlearn at a rate of {lr:.2g}",
        )
        return taught, targets


METHOD = Method(
    params=MeguParams,
    run=unlearn,
    title="Teach what a labeler says forget images look like, under feature noise, beside a sample of the retain set",
    paper="MeGU: Machine-Guided Unlearning with Target Feature Disentanglement, arXiv 2602.17088; this form is ours",
    cost="the labeler once a data set; a little noise; a fixed number of steps, fewer at each learning rate that is tried",
    harder="raise unlearn.steps or unlearn.forget_epochs",
    main={"steps": Span(low=1, high=4, costs=True), "forget_epochs": Span(low=0.5, high=4)},
    needs=("perturbing", "noise", "retain"),
    spares=spares,
)
