"""MeGU's re-optimisation (arXiv 2602.17088, Eq 12), made to fit any network: what differs from the paper is a parameter each.

A batch has some forget samples, which are taught their perturbing targets, and some retain samples, which are taught what the original
answers to them: a label would move the model even where it is right. The number of steps is fixed, so the cost does not grow with the
data. Nobody sets a learning rate: a few are tried, and the run itself tells which was best (`megu.methods.rate`).

`megu.methods.megu_published` is the paper's form.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megu.data.tensors import ImageSet
from megu.evaluation import entropies, softmax
from megu.evaluation.attack import threshold
from megu.methods.common import adam, answers, check_training, descend, sgd
from megu.methods.context import Context, Method, given
from megu.methods.feature_noise import Noise
from megu.methods.rate import Tried, search
from megu.params import STRICT, check
from megu.perturbing import Perturbing, fitting_exponents, sharpened
from megu.seeds import derive, generator
from megu.store import without_nan
from megu.training import Batches, forward

#: Images of each set that a try is judged by, and forget images that the steering looks at.
WATCHED = 500
#: The rates that are tried first: the best for small networks with batch norm, or nearly.
FIRST = {"adam": 1e-3, "sgd": 1e-2}
#: How often the steering looks.
LOOKS = 8
#: The furthest that the model's own measure of sure and unsure is taken to be from the original's.
FURTHEST = 2.0


@dataclass(frozen=True, kw_only=True)
class MeguParams:
    """steps, batch_size: of a re-optimisation. forget_epochs: how often each forget sample is taught in it; at most half of a batch are forget
    samples, so those of a large forget set come less often. The rest of a batch are retain samples.

    lr: the peak, falling to 0; "auto" tries some in ``trial_steps`` steps each (`megu.methods.rate`). optimiser: "adam", or "sgd" (momentum
    0.9).
    retain_samples: drawn once from the retain set (the paper's 10,000). retain_target: what they are taught, the original's "answers" or their
    "labels" (the paper).
    alpha: share of the positive noise in the mixture (the paper's 0.7). noise_share: share of the forget samples in a batch that carry
    noise, drawn anew each step; noise_scale: the mixture is multiplied by it. With all of them at full scale (the paper, read literally)
    a network can learn the noise and still know the clean class. noise_sides: "positive" or "negative" alone is the ablation of the other
    side (alpha 1 or 0).
    steering: how much of what the model's entropies are off is put on the targets, `LOOKS` times on the way (`SoftTargets`); 0 leaves
    the targets as they were fitted. Without effect on rank labels, on a sharpness that was given, and on samples whose class stays.
    """

    __pydantic_config__ = STRICT

    steps: int = 160
    batch_size: int = 128
    forget_epochs: int = 8
    lr: Literal["auto"] | float = "auto"
    trial_steps: int = 25
    optimiser: Literal["sgd", "adam"] = "adam"
    retain_samples: int = 10_000
    retain_target: Literal["answers", "labels"] = "answers"
    alpha: float = 0.7
    noise_share: float = 0.5
    noise_scale: float = 0.1
    noise_sides: Literal["both", "positive", "negative"] = "both"
    steering: float = 1.0

    def __post_init__(self) -> None:
        check("steps", self.steps, self.steps >= 1, "at least 1")
        check("forget_epochs", self.forget_epochs, self.forget_epochs >= 1, "at least 1")
        check("trial_steps", self.trial_steps, self.trial_steps >= 1, "at least 1")
        check("lr", self.lr, self.lr == "auto" or 0 < self.lr <= 1, '"auto", or above 0 and at most 1')
        check_training(1, 1.0, self.batch_size)
        check("retain_samples", self.retain_samples, self.retain_samples >= 1, "at least 1")
        check("alpha", self.alpha, 0 <= self.alpha <= 1, "between 0 and 1")
        check("noise_share", self.noise_share, 0 <= self.noise_share <= 1, "between 0 and 1")
        check("noise_scale", self.noise_scale, 0 <= self.noise_scale <= 10, "between 0 and 10")
        check("steering", self.steering, 0 <= self.steering <= 2, "between 0 and 2")

    @property
    def positive_share(self) -> float:
        """The share of the positive noise that is used, the ablations included."""
        return {"both": self.alpha, "positive": 1.0, "negative": 0.0}[self.noise_sides]

    def forgets(self, count: int) -> int:
        """Forget samples a batch, of ``count`` in all."""
        return min(max(math.ceil(self.forget_epochs * count / self.steps), 1), self.batch_size // 2, count)

    @property
    def kept_clean(self) -> bool:
        """Whether no forget sample carries noise."""
        return not (self.noise_share and self.noise_scale)


def spares(params: MeguParams) -> frozenset[str]:
    """Without any noise in the training there is none to be made."""
    return frozenset({"noise"}) if params.kept_clean else frozenset()


def unlearn(model: nn.Module, forget: ImageSet, retain: ImageSet, context: Context) -> nn.Module:
    """Teach the perturbing targets on the (noisy) forget set and what retain samples are to keep, in the same batches.

    Returns a new model on the device of the images; ``model`` stays as it is. The rates that were tried are in ``context.chosen``.
    """
    params: MeguParams = context.params
    targets = torch.from_numpy(given(context.perturbing, "perturbing").targets)
    order = torch.randperm(len(retain), generator=generator(context.seed, "retain"))
    apart = min(WATCHED, len(order) // 5)
    watched, kept = (
        retain.subset(part.sort().values) for part in (order[: apart or None], order[apart:][: params.retain_samples])
    )
    shown = watched_of(len(forget), context.seed)
    asked = forget.subset(shown).joined(watched)
    right = torch.cat([targets[shown].to(forget.device), answers(model, watched).softmax(dim=1)])
    noise = None if params.kept_clean else Noise(context, forget, targets)
    lesson = Lesson(model, forget, kept, watched, noise, context)

    def attempt(lr: float, steps: int) -> tuple[nn.Module, Tried]:
        taught = lesson.at(lr, steps)
        said = torch.log_softmax(answers(taught, asked), dim=1)
        off = F.kl_div(said, right, reduction="none").sum(dim=1)
        return taught, Tried(lr, float(off[: len(shown)].mean()), float(off[len(shown) :].mean()))

    tried = [] if params.lr != "auto" else search(lambda lr: attempt(lr, params.trial_steps)[1], FIRST[params.optimiser])
    lr = params.lr if params.lr != "auto" else min(tried, key=lambda entry: entry.loss).lr
    found, final = attempt(lr, params.steps)
    context.chosen.update(without_nan(asdict(final)), tried=[without_nan(asdict(entry)) for entry in tried])
    return found


def watched_of(count: int, seed: int) -> Tensor:
    """int64, ascending: the samples of ``count`` whose answers are looked at."""
    return torch.randperm(count, generator=generator(seed, "watched"))[:WATCHED].sort().values


class Lesson:
    """The re-optimisation of one original, which can be repeated at another learning rate."""

    def __init__(
        self, model: nn.Module, forget: ImageSet, kept: ImageSet, watched: ImageSet, noise: Noise | None, context: Context
    ) -> None:
        """kept: the retain samples that are taught. watched: others, which are not."""
        self.model, self.forget, self.kept, self.noise, self.context = model, forget, kept, noise, context
        self.params: MeguParams = context.params
        apart = context.calibration
        self.members = watched
        self.others = None if apart is None else apart.subset(watched_of(len(apart), context.seed))
        self.undecided = self.threshold(model)
        self.known = (
            answers(model, kept).softmax(dim=1)
            if self.params.retain_target == "answers"
            else F.one_hot(kept.labels, context.num_classes).float()
        )
        forgets = self.params.forgets(len(forget))
        self.forgetting = Batches(len(forget), forgets, derive(context.seed, "forget batches"))
        self.keeping = Batches(len(kept), self.params.batch_size - forgets, derive(context.seed, "retain batches"))

    def threshold(self, model: nn.Module) -> float:
        """The entropy below which an attack on ``model`` would call a sample a member of the training set, in nats; 1 where nothing tells."""
        if self.others is None:
            return 1.0
        surest = [entropies(softmax(answers(model, images).cpu().numpy())) for images in (self.members, self.others)]
        return max(threshold(*surest), 1e-6)

    def at(self, lr: float, steps: int) -> nn.Module:
        """A copy of the model, taught at a rate that falls from ``lr`` to 0."""
        taught, params, device = copy.deepcopy(self.model), self.params, self.forget.device
        targets = SoftTargets(given(self.context.perturbing, "perturbing"), params.steering).to(device)
        shown = self.forget.subset(looked_at := watched_of(len(self.forget), self.context.seed))
        looks = set(range(0, steps, max(steps // (LOOKS + 1), 1))[1 : LOOKS + 1])

        def loss_at(step: int) -> Tensor:
            if step in looks and targets.steered:
                scale = np.clip(self.threshold(taught) / self.undecided, 1 / FURTHEST, FURTHEST)
                targets.steer(answers(taught, shown), looked_at, float(scale))
            lost, left = self.forgetting.at(step, self.forget.home), self.keeping.at(step, self.kept.home)
            inputs = self.forget.batch(lost)
            if self.noise is not None:
                inputs = self.noise.add(inputs, self.forgetting.at(step), torch.arange(len(inputs)), step)
            logits = forward(taught, torch.cat([inputs, self.kept.batch(left)]))
            aims = [targets.at(self.forgetting.at(step, device)), self.known[self.keeping.at(step, device)]]
            return F.cross_entropy(logits, torch.cat(aims))

        descend(
            nn.ModuleList([taught, targets]),
            loss_at,
            (sgd if params.optimiser == "sgd" else adam)(lr)(taught),
            self.context,
            epochs=1,
            per_epoch=steps,
            batch_size=self.forgetting.size + min(self.keeping.size, len(self.kept)),
            seen=self.forget.joined(self.kept),
            warmup=0.0,
            label=f"unlearn at a rate of {lr:.2g}",
        )
        return taught


class SoftTargets(nn.Module):
    """What the forget samples are taught: the perturbing targets, their sharpness following the model that learns them.

    A network does not end as sure as its targets are: it learns their mean where it cannot tell the samples apart, and noise blurs it
    further. So the targets are steered by what a membership attack would see: a few times on the way the model is asked, in evaluation
    mode, about clean forget images. At each place of the distribution of entropies, from the surest image to the least sure one, what the
    model is off there is put on the target of the samples of that place, ``gain`` times.

    Only samples whose class leaves are steered, where they have an entropy to reach (`Perturbing.entropies`).
    """

    aims: Tensor
    targets: Tensor

    def __init__(self, perturbing: Perturbing, gain: float) -> None:
        super().__init__()
        self.gain, self.reasoning, self.wanted = gain, perturbing.reasoning, perturbing.entropies
        self.rows = np.flatnonzero(np.isfinite(self.wanted))
        # The state that a checkpoint must have; the rest is given anew. aims: the entropies that the targets have now.
        self.register_buffer("aims", torch.from_numpy(self.wanted[self.rows]))
        self.register_buffer("targets", torch.from_numpy(perturbing.targets.copy()))

    @property
    def steered(self) -> bool:
        return bool(self.gain) and len(self.rows) > 0

    def at(self, rows: Tensor) -> Tensor:
        """float32 (B, K), the present targets of the forget samples at ``rows``; rows sum to 1."""
        return self.targets[rows]

    def steer(self, logits: Tensor, shown: Tensor, scale: float = 1.0) -> None:
        """Take in what the model says now. logits: (B, K), of the clean forget samples ``shown``, int64 (B,).

        scale: of the wanted entropies. What is sure for the original may be unsure for the model, whose own threshold has moved by it.
        """
        mine = np.isin(shown.numpy(), self.rows)
        if not mine.any():
            return
        reached = np.sort(entropies(softmax(logits.cpu().numpy()))[mine])
        places = (np.argsort(np.argsort(self.wanted[self.rows], kind="stable")) + 0.5) / len(self.rows)
        now = np.interp(places, (np.arange(len(reached)) + 0.5) / len(reached), reached)
        aims = self.aims.cpu().numpy()
        top = np.log(np.maximum((self.reasoning[self.rows] > 0).sum(axis=1), 1))
        aims = np.clip(aims + self.gain * (scale * self.wanted[self.rows] - now), 0, top)
        exponents = fitting_exponents(self.reasoning[self.rows], aims)
        self.aims.copy_(torch.from_numpy(aims))
        made = sharpened(self.reasoning[self.rows], exponents[:, None]).astype(np.float32)
        self.targets[torch.from_numpy(self.rows)] = torch.from_numpy(made).to(self.targets.device)


METHOD = Method(
    params=MeguParams,
    run=unlearn,
    title="Teach what a labeler says forget images look like, under feature noise, beside a sample of the retain set",
    paper="MeGU: Machine-Guided Unlearning with Target Feature Disentanglement, arXiv 2602.17088; this form is ours",
    cost="the labeler once a data set; a little noise; a fixed number of steps, fewer at each learning rate that is tried",
    harder="raise unlearn.steps or unlearn.forget_epochs",
    needs=("perturbing", "noise", "retain"),
    spares=spares,
)
