"""DELETE and Bad Teacher: whose answers are taught."""

from __future__ import annotations

import math

import pytest
import torch
from method_fixtures import Linear, context, points, request
from torch import nn

from megu.models import build
from megu.training.weights import digest
from megu.unlearning.methods.baselines import bad_teacher, delete
from megu.unlearning.methods.baselines.bad_teacher import BadTeacherParams
from megu.unlearning.methods.baselines.delete import DeleteParams, masked
from megu.unlearning.methods.common import allowed, fresh_model, kl


def test_the_divergence_by_hand() -> None:
    """(.75, .25) || (.5, .5), at temperature 2 times four; a mean over the samples."""
    value = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    teacher = torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    assert kl(torch.zeros(2, 2), teacher).item() == pytest.approx(value / 2, rel=1e-5)
    assert kl(torch.zeros(2, 2), teacher, 2.0).item() == pytest.approx(4 * value / 2, rel=1e-5)
    assert kl(torch.tensor([[0.0, -math.inf]]).nan_to_num(neginf=-1e4), torch.tensor([[1.0, 0.0]])).item() == pytest.approx(0)


def test_the_masked_target_by_hand() -> None:
    """e², e¹, e⁰ without the first: e/(e+1), 1/(e+1)."""
    mask = allowed(torch.tensor([0]), (0,), 3)
    found = masked(torch.tensor([[2.0, 1.0, 0.0]]), mask)
    torch.testing.assert_close(found, torch.tensor([[0.0, math.e / (math.e + 1), 1 / (math.e + 1)]]))


def test_where_the_class_stays_the_true_label_alone_is_struck_and_where_several_go_all_are() -> None:
    logits, labels = torch.zeros(2, 4), torch.tensor([0, 3])
    third, half = 1 / 3, 1 / 2
    stays, go = masked(logits, allowed(labels, (), 4)), masked(logits, allowed(labels, (0, 3), 4))
    torch.testing.assert_close(stays, torch.tensor([[0, third, third, third], [third, third, third, 0]]))
    torch.testing.assert_close(go, torch.tensor([[0, half, half, 0], [0, half, half, 0]]))


@pytest.mark.usefixtures("float32")
def test_a_step_of_delete_against_the_formula() -> None:
    """The gradient of KL(t || softmax(Wx)) is (p - t) xᵀ."""
    start = [[1.0, -0.5], [0.3, 0.8], [0.0, 0.2]]
    forget = points([[255, 51], [204, 102]], [0, 0])
    found = delete.unlearn(Linear(start), forget, forget, context(DeleteParams(epochs=1, lr=0.5, batch_size=2), 3, (0,)))
    weight, x = torch.tensor(start), forget.batch(slice(None)).flatten(1)
    p = torch.softmax(x @ weight.T, dim=1)
    target = p * torch.tensor([0.0, 1.0, 1.0])
    target = target / target.sum(dim=1, keepdim=True)
    expected = weight - 0.5 * (p - target).T @ x / 2
    torch.testing.assert_close(found.weight.data, expected)  # type: ignore[union-attr]


def test_bad_and_good_teacher_by_hand() -> None:
    """The bad one answers forget samples evenly; the good one the retain sample with logits (ln 3, 0): (.75, .25)."""
    good, bad = Linear([[math.log(3), 0.0], [0.0, 0.0]]), Linear([[0.0, 0.0], [0.0, 0.0]])
    forget, kept = points([[255, 0], [0, 255]], [0, 0]), points([[255, 0]], [1])
    found = bad_teacher.taught(bad, good, forget, kept, 1.0)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.75, 0.25]]))
    warm = bad_teacher.taught(bad, good, forget, kept, 2.0)
    torch.testing.assert_close(warm[2, 0].item(), math.sqrt(3) / (math.sqrt(3) + 1))


@pytest.mark.usefixtures("float32")
def test_a_step_of_bad_teacher_against_the_formula() -> None:
    """Adam's first step is lr * sign(gradient); the gradient is (p - t) xᵀ, t even on the forget set, p itself on the rest."""
    start = [[1.0, -0.5], [0.3, 0.8]]
    forget, retain = points([[255, 51], [204, 102]], [0, 0]), points([[51, 255], [102, 204]], [1, 1])
    params = BadTeacherParams(retain_share=1.0, epochs=1, lr=0.01, batch_size=4)
    even = lambda: Linear([[0.0, 0.0], [0.0, 0.0]])  # noqa: E731
    found = bad_teacher.unlearn(Linear(start), forget, retain, context(params, 2, (0,), fresh=even))
    weight, x = torch.tensor(start), forget.batch(slice(None)).flatten(1)
    gradient = (torch.softmax(x @ weight.T, dim=1) - 0.5).T @ x / 4
    torch.testing.assert_close(found.weight.data, weight - 0.01 * gradient.sign(), rtol=1e-4, atol=1e-6)  # type: ignore[union-attr]


def test_the_bad_teacher_is_a_random_network_of_its_own(original: nn.Module) -> None:
    """Not the original, nor the weights that the original or the retrain of this seed started from."""
    _, _, given = request(original, "bad_teacher")
    teacher = digest(fresh_model(given, "bad teacher", torch.device("cpu")))
    assert teacher == digest(fresh_model(given, "bad teacher", torch.device("cpu")))
    assert teacher not in (digest(original), digest(build("resnet-compact", 4, 1, seed=given.seed)))
