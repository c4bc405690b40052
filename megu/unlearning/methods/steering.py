"""What forget samples are taught while they are learned: the perturbing targets, steered so that the model ends as sure as is wanted.

A network does not end as sure as its targets are. Where it cannot tell samples apart it learns their mean, so the sure and the unsure ones,
which a membership attack looks at, are lost; and what it cannot be sure of, since the targets of like samples differ, it is less
sure of. So in every batch

- *how sure* each sample is to be goes by its place among the samples that were seen last, in the model's own order of them: the surest is
  taught the smallest of the wanted entropies. That gives the model the wanted distribution and moves each sample the least;
- *what* it is taught is halfway between its perturbing target and what the model answers now;
- what the model is still off at each place of the distribution is added up and put on what is taught there (integral control).

It needs no look at the model beside the training: the answers to a batch are there anyway. Ours, not the paper's (arXiv 2602.17088).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from megu.unlearning.labels.forget_targets import Perturbing
from megu.unlearning.labels.sharpness import entropies, fitting_exponents, sharpened

#: Samples seen last, of each class, clean and noisy apart, among which one has its place.
RECENT = 64
#: Places of the distribution that are steered, and that the wanted distribution is kept at.
STEERED, KEPT = 10, 101
#: The most that is put on an entropy, in nats.
FURTHEST = 1.0


class Steering(nn.Module):
    """The targets of an unlearning's forget samples. Only those whose class leaves are steered, where they have an entropy to reach
    (`Perturbing.entropies`); the others keep theirs.
    """

    offsets: Tensor
    seen: Tensor
    groups: Tensor
    fixed: Tensor
    logarithms: Tensor
    most: Tensor
    own: Tensor
    wanted: Tensor

    def __init__(self, perturbing: Perturbing, labels: Tensor, gain: float, follow: float) -> None:
        """labels: int64 (N,), of the forget samples. gain: how much of what the model is off is put on the targets at each step; 0
        leaves the targets as they are. follow: the share of the model's own answer in what it is taught, in [0, 1)."""
        super().__init__()
        self.gain, self.follow = gain, follow
        steered = np.isfinite(perturbing.entropies) & bool(gain)
        self.on = bool(steered.any())
        given = np.where(steered, labels.cpu().numpy(), -1)
        classes, places = np.unique(given[steered]), np.linspace(0, 1, KEPT)
        wanted = np.array([np.quantile(perturbing.entropies[given == own], places) for own in classes])
        with np.errstate(divide="ignore"):
            logarithms = np.log(perturbing.reasoning)
        # Given anew, so that no checkpoint has them. own: the row of its class in ``wanted``; -1 for a sample that is not steered.
        for name, value in {
            "fixed": perturbing.targets,
            "logarithms": logarithms.astype(np.float32),
            "most": np.log(np.maximum(np.isfinite(logarithms).sum(axis=1), 1)).astype(np.float32),
            "own": np.where(steered, np.searchsorted(classes, given), -1),
            "wanted": wanted.astype(np.float32),
        }.items():
            self.register_buffer(name, torch.from_numpy(value), persistent=False)
        # The state: what is put on the wanted entropies, and the entropies and groups of the samples seen last.
        self.register_buffer("offsets", torch.zeros(len(classes), STEERED))
        self.register_buffer("seen", torch.zeros(2 * RECENT * len(classes)))
        self.register_buffer("groups", torch.full((2 * RECENT * len(classes),), -1))

    def at(self, rows: Tensor, logits: Tensor, noisy: Tensor) -> Tensor:
        """float32 (B, K), what the forget samples at ``rows``, int64 (B,), are taught at this step; rows sum to 1.

        logits: (B, K), what the model answers. noisy: bool (B,), which samples carry noise; what the model is off is seen on the others.
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
            mean = (off[:, None] * mine).sum(dim=0) / count.clamp(min=1)
            self.offsets.add_(self.gain * mean.view_as(self.offsets)).clamp_(-FURTHEST, FURTHEST)
            return self.taught(rows, logits, places, between(self.offsets, own, places * STEERED - 0.5))

    def judged(self, rows: Tensor, logits: Tensor) -> Tensor:
        """float32 (B, K), what a model that answers ``logits`` (B, K) to the clean forget samples at ``rows`` should have answered."""
        if not self.on:
            return self.fixed[rows]
        with torch.no_grad():
            reached, own = entropies(logits.softmax(dim=1)), self.own[rows]
            return self.taught(rows, logits, places_among(reached, own, reached, own), torch.zeros_like(reached))

    def expected(self, own: Tensor, places: Tensor) -> Tensor:
        """The wanted entropies (B,), in nats, at ``places`` (B,), in [0, 1], of the distribution of the class with row ``own``, int64 (B,)."""
        return between(self.wanted, own, places * (KEPT - 1))

    def taught(self, rows: Tensor, logits: Tensor, places: Tensor, offsets: Tensor) -> Tensor:
        """The targets (B, K) of samples at ``places`` of the distribution, ``offsets`` (B,), in nats, on what is wanted there."""
        own, known = self.own[rows], self.logarithms[rows]
        wanted = torch.minimum((self.expected(own, places) + offsets).clamp(min=0), self.most[rows])
        answered = logits.float().log_softmax(dim=1)
        # The logarithm of what may not be taught is minus infinity, and stays so.
        halfway = torch.where(known.isfinite(), (1 - self.follow) * known + self.follow * answered, known)
        steered = sharpened(halfway, fitting_exponents(halfway, wanted))
        return torch.where((own >= 0)[:, None], steered, self.fixed[rows])


def places_among(values: Tensor, groups: Tensor, others: Tensor, of_others: Tensor) -> Tensor:
    """The place in (0, 1) of each of the ``values`` (B,) among those of ``others`` (M,) that are of its group, int64 (B,) and (M,); half
    where there is none."""
    same = groups[:, None] == of_others
    below = (same & (others < values[:, None])).sum(dim=1) + (same & (others == values[:, None])).sum(dim=1) / 2
    count = same.sum(dim=1)
    return torch.where(count > 0, below / count.clamp(min=1), 0.5)


def between(table: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The values (B,) of a table (R, C) at ``rows``, int64 (B,), and ``columns``, float (B,): between two linear, beyond an end that
    end's."""
    columns = columns.clamp(0, table.shape[1] - 1)
    rows, low = rows.clamp(min=0), columns.floor().long()
    left, right = table[rows, low], table[rows, (low + 1).clamp(max=table.shape[1] - 1)]
    return left + (columns - low) * (right - left)
