"""The true retrain, as a method and as the reference: nothing of the original survives in it."""

from __future__ import annotations

import copy

import torch
from method_fixtures import RECIPE, context, request
from tiny import images
from torch import Tensor, nn

from megu.models import build
from megu.training.retrain import retrain
from megu.training.weights import digest
from megu.unlearning.methods import METHODS
from megu.unlearning.methods.baselines.retrain import RetrainParams, unlearn


class WithBuffers(nn.Module):
    """A user's own network: a buffer that no training changes, batch-norm statistics, a parameter that gets no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("projection", torch.randn(64, 16))
        self.norm = nn.BatchNorm1d(16, momentum=0.001)
        self.head = nn.Linear(16, 4)
        self.idle = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x.flatten(1) @ self.projection))


def marked(model: nn.Module) -> nn.Module:
    """A copy with every parameter, buffer and statistic at a value that no training gives."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in copied.state_dict().values():
            tensor.fill_(12345)
    return copied


def test_no_parameter_buffer_or_statistic_of_the_original_survives(original: nn.Module) -> None:
    """Whatever the original holds, down to numbers that poison everything they touch, the result is the same to the bit."""
    forget, retain, given = request(original, "retrain")
    found = unlearn(original, forget, retain, given)
    for other in (marked(original), poisoned(original)):
        assert digest(unlearn(other, forget, retain, given)) == digest(found)
    for (name, mine), theirs in zip(found.state_dict().items(), original.state_dict().values(), strict=True):
        if mine.is_floating_point():
            assert not torch.equal(mine, theirs), name
    counted = [tensor for name, tensor in found.state_dict().items() if name.endswith("num_batches_tracked")]
    steps = RECIPE.epochs * (len(retain) // RECIPE.batch_size)
    assert {int(count) for count in counted} == {steps}, "batch-norm statistics are of the retrain's own steps"


def poisoned(model: nn.Module) -> nn.Module:
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in copied.state_dict().values():
            tensor.fill_(float("nan") if tensor.is_floating_point() else -1)
    return copied


def test_what_a_training_does_not_change_is_made_anew_too(original: nn.Module) -> None:
    _, retain, given = request(original, "retrain", fresh=WithBuffers)
    torch.manual_seed(99)
    users = WithBuffers()
    found = METHODS["retrain"].run(users, retain, retain, given)
    for (name, mine), theirs in zip(found.state_dict().items(), users.state_dict().values(), strict=True):
        assert not torch.equal(mine, theirs), name
    assert isinstance(found, WithBuffers)


def test_it_never_sees_the_forget_set(original: nn.Module) -> None:
    forget, retain, given = request(original, "retrain")
    assert digest(unlearn(original, forget, retain, given)) == digest(unlearn(original, images(4), retain, given))


def test_the_method_gives_the_references_very_weights(original: nn.Module) -> None:
    forget, retain, given = request(original, "retrain")
    assert digest(unlearn(original, forget, retain, given)) == digest(retrain(retain, RECIPE, 4, given.seed))


def test_the_reference_is_given_nothing_of_the_original() -> None:
    """It starts from freshly drawn weights: before its first step it is `build`'s network of the seed, statistics at rest."""
    data = images()
    started = build(RECIPE.arch, 4, 1, seed=5)
    statistics = {name: tensor for name, tensor in started.named_buffers() if "running" in name}
    assert all(bool((tensor == (1 if "var" in name else 0)).all()) for name, tensor in statistics.items())
    same = retrain(data, RECIPE, 4, 5, fresh=lambda: build(RECIPE.arch, 4, 1, seed=5))
    assert digest(retrain(data, RECIPE, 4, 5)) == digest(same)


def test_it_has_no_parameters_of_its_own() -> None:
    assert context(RetrainParams(), 4).params == RetrainParams()
