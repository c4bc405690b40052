"""The targets of forget samples during training: the perturbing targets, steered so that the model ends as sure as desired.

A network does not end as sure as its targets. Where it cannot tell samples apart it learns their mean, so the sure and the unsure ones,
which a membership attack looks at, are lost; and where the targets of similar samples differ, it ends less sure than they are. So in
every batch

- *how sure* each sample should be depends on its rank among the last samples seen, in the model's own order: the surest gets the smallest
  of the wanted entropies. That gives the model the wanted distribution and moves each sample the least;
- its *target* lies between its perturbing target and the model's current answer: first halfway, at the end at the answer. A model that is
  taught another class than it names, for an image that it cannot tell from others, becomes unsure of it, however sure the target;
- the model's remaining error at each place of the distribution is accumulated and added to the targets there (integral control).
  Much of it accumulates while the model moves: first it is sure of everything, then of nothing. So where the error has turned, what was
  accumulated before is soon let go (`RELEASE`); otherwise the model would overshoot, and the training end before it came back.

It needs no predictions besides the training: the answers to a batch are available anyway. Ours, not the paper's (arXiv 2602.17088).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from megu.unlearning.labels.forget_targets import Perturbing
from megu.unlearning.labels.sharpness import entropies, fitting_exponents, sharpened

#: How many of the last samples seen, per class, clean and noisy separately, a sample is ranked among.
RECENT = 64
#: At how many places the distribution is steered, and at how many the wanted distribution is stored.
STEERED, KEPT = 10, 101
#: The largest correction of an entropy, in nats.
FURTHEST = 1.0
#: What is left of a correction after each step in which the error has the opposite sign, and the weight of the earlier steps in that error.
RELEASE, EARLIER = 0.9, 0.8


class Steering(nn.Module):
    """The targets of the forget samples in an unlearning. Only samples whose class leaves and that have an entropy to reach
    (`Perturbing.entropies`) are steered; the others keep their targets.
    """

    done: Tensor
    offsets: Tensor
    errors: Tensor
    seen: Tensor
    groups: Tensor
    fixed: Tensor
    logarithms: Tensor
    most: Tensor
    own: Tensor
    wanted: Tensor

    def __init__(
        self, perturbing: Perturbing, labels: Tensor, gain: float, follow: float, follow_last: float, steps: int
    ) -> None:
        """labels: int64 (N,), of the forget samples. gain: how much of the model's error is added to the targets at each step; 0
        leaves the targets unchanged. follow, follow_last: the share of the model's own answer in its targets at the first and at the last of
        the ``steps``, in [0, 1]."""
        super().__init__()
        self.gain, self.follow, self.rise = gain, follow, (follow_last - follow) / max(steps - 1, 1)
        steered = np.isfinite(perturbing.entropies) & bool(gain)
        self.on = bool(steered.any())
        given = np.where(steered, labels.cpu().numpy(), -1)
        classes, places = np.unique(given[steered]), np.linspace(0, 1, KEPT)
        wanted = np.array([np.quantile(perturbing.entropies[given == own], places) for own in classes])
        with np.errstate(divide="ignore"):
            logarithms = np.log(perturbing.reasoning)
        # Recomputed, so they are in no checkpoint. own: the row of a sample's class in ``wanted``; -1 for a sample that is not steered.
        for name, value in {
            "fixed": perturbing.targets,
            "logarithms": logarithms.astype(np.float32),
            "most": np.log(np.maximum(np.isfinite(logarithms).sum(axis=1), 1)).astype(np.float32),
            "own": np.where(steered, np.searchsorted(classes, given), -1),
            "wanted": wanted.astype(np.float32),
        }.items():
            self.register_buffer(name, torch.from_numpy(value), persistent=False)
        # The state: the steps so far, the corrections of the wanted entropies, the errors of the last steps, and the entropies and groups of
        # the last samples.
        self.register_buffer("done", torch.zeros(()))
        self.register_buffer("offsets", torch.zeros(len(classes), STEERED))
        self.register_buffer("errors", torch.zeros(len(classes), STEERED))
        self.register_buffer("seen", torch.zeros(2 * RECENT * len(classes)))
        self.register_buffer("groups", torch.full((2 * RECENT * len(classes),), -1))

    def at(self, rows: Tensor, logits: Tensor, noisy: Tensor) -> Tensor:
        """Return float32 (B, K), the targets of the forget samples at ``rows``, int64 (B,), at this step; rows sum to 1.

        logits: (B, K), the model's answers. noisy: bool (B,), which samples carry noise; the model's error is measured on the others.
        """
        if not self.on:
            return self.fixed[rows]
        with torch.no_grad():
            reached, own = entropies(logits.softmax(dim=1)), self.own[rows]
            groups = torch.where(own < 0, -1, 2 * own + noisy)
            self.seen.copy_(torch.cat([reached, self.seen])[: len(self.seen)])
            self.groups.copy_(torch.cat([groups, self.groups])[: len(self.groups)])
            places = places_among(reached, groups, self.seen, self.groups)
            off = self.expected(own, places) - reached
            cells = (own.clamp(min=0) * STEERED + (places * STEERED).long().clamp(max=STEERED - 1))[:, None]
            mine = (cells == torch.arange(self.offsets.numel(), device=rows.device)) & ((own >= 0) & ~noisy)[:, None]
            count = mine.sum(dim=0)
            mean = ((off[:, None] * mine).sum(dim=0) / count.clamp(min=1)).view_as(self.offsets)
            self.errors.add_((1 - EARLIER) * (count > 0).view_as(mean) * (mean - self.errors))
            turned = self.offsets * self.errors < 0
            self.offsets.mul_(torch.where(turned, RELEASE, 1.0)).add_(self.gain * mean).clamp_(-FURTHEST, FURTHEST)
            share = self.follow + self.rise * self.done
            self.done.add_(1)
            return self.taught(rows, logits, places, between(self.offsets, own, places * STEERED - 0.5), share)

    def judged(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Return float32 (B, K), what a model with answers ``logits`` (B, K) to the clean forget samples at ``rows`` should have answered."""
        if not self.on:
            return self.fixed[rows]
        with torch.no_grad():
            reached, own = entropies(logits.softmax(dim=1)), self.own[rows]
            return self.taught(rows, logits, places_among(reached, own, reached, own), torch.zeros_like(reached), self.follow)

    def expected(self, own: Tensor, places: Tensor) -> Tensor:
        """Return the wanted entropies (B,), in nats, at ``places`` (B,), in [0, 1], of the distribution in row ``own``, int64 (B,)."""
        return between(self.wanted, own, places * (KEPT - 1))

    def taught(self, rows: Tensor, logits: Tensor, places: Tensor, offsets: Tensor, share: Tensor | float) -> Tensor:
        """Return the targets (B, K) of samples at ``places`` of the distribution, with ``offsets`` (B,), in nats, added to what is wanted, and
        a ``share``, in [0, 1], of the model's answer."""
        own, known = self.own[rows], self.logarithms[rows]
        wanted = torch.minimum((self.expected(own, places) + offsets).clamp(min=0), self.most[rows])
        answered = logits.float().log_softmax(dim=1)
        # The logarithm of a class that is not allowed is minus infinity, and stays so.
        between_both = torch.where(known.isfinite(), (1 - share) * known + share * answered, known)
        steered = sharpened(between_both, fitting_exponents(between_both, wanted))
        return torch.where((own >= 0)[:, None], steered, self.fixed[rows])


def places_among(values: Tensor, groups: Tensor, others: Tensor, of_others: Tensor) -> Tensor:
    """Return the rank in (0, 1) of each of the ``values`` (B,) among those of ``others`` (M,) in its group, int64 (B,) and (M,); half where
    there are none."""
    same = groups[:, None] == of_others
    below = (same & (others < values[:, None])).sum(dim=1) + (same & (others == values[:, None])).sum(dim=1) / 2
    count = same.sum(dim=1)
    return torch.where(count > 0, below / count.clamp(min=1), 0.5)


def between(table: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the values (B,) of a table (R, C) at ``rows``, int64 (B,), and ``columns``, float (B,): interpolated linearly, and clamped at
    the ends."""
    columns = columns.clamp(0, table.shape[1] - 1)
    rows, low = rows.clamp(min=0), columns.floor().long()
    left, right = table[rows, low], table[rows, (low + 1).clamp(max=table.shape[1] - 1)]
    return left + (columns - low) * (right - left)
