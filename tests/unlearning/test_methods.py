"""What holds for every method, whatever it does."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from method_fixtures import TINY, accuracy, request
from torch import nn

from megu.data.tensors import ImageSet
from megu.training import loop as training
from megu.training.loop import counting, passed, predict
from megu.training.weights import digest
from megu.unlearning.methods import METHODS, NEEDS, Context, described
from megu.unlearning.methods.common import allowed

#: On one worker, which then knows each method's plain run.
pytestmark = pytest.mark.xdist_group("methods")

EVERY = sorted(METHODS)
#: Those with a training that can be stopped: all but the one that does not train.
TRAINED = sorted(set(EVERY) - {"ssd"})
#: Fine-tuning promises nothing, and a random teacher may favour the class by chance: what it teaches is to be unsure.
FORGETS = sorted(set(EVERY) - {"finetune", "bad_teacher"})
#: The weights' digest of a plain run by method, so that not every test has to make it again.
PLAIN: dict[str, str] = {}


def run(original: nn.Module, name: str, scenario: str = "class", **more: object) -> nn.Module:
    return METHODS[name].run(original, *request(original, name, scenario, **more))


def sureness(model: nn.Module, data: ImageSet) -> float:
    """The mean of the largest probability."""
    return float(torch.softmax(predict(model, data).logits, dim=1).max(dim=1).values.mean())


def test_each_has_settings_for_tiny_images() -> None:
    assert set(METHODS) == set(TINY), "a line in TINY (tests/support/method_fixtures.py)"


@pytest.mark.parametrize("name", EVERY)
def test_its_entry_says_everything_and_its_parameters_are_frozen(name: str) -> None:
    entry = described(name, METHODS[name])
    assert all(entry[key] for key in ("name", "title", "paper", "cost"))
    assert set(entry["needs"]) <= set(NEEDS)
    assert METHODS[name].params.__dataclass_params__.frozen
    for field in dataclasses.fields(METHODS[name].params):
        if field.type in ("int", "float", int, float):
            with pytest.raises(ValueError, match=field.name):
                METHODS[name].params(**{field.name: -1})


@pytest.mark.parametrize("name", EVERY)
def test_it_forgets_the_class_and_keeps_the_rest_and_the_original(name: str, original: nn.Module) -> None:
    original.zero_grad(set_to_none=True)
    before, mode = digest(original), original.training
    forget, retain, _ = request(original, name)
    unlearned = run(original, name)
    PLAIN[name] = digest(unlearned)
    if name in FORGETS:
        assert accuracy(unlearned, forget) < 0.1
    if name == "bad_teacher":
        assert sureness(original, forget) > 0.9
        assert sureness(unlearned, forget) < 0.4
    assert accuracy(unlearned, retain) > 0.9
    assert not unlearned.training
    assert digest(original) == before
    assert original.training == mode
    assert all(parameter.grad is None for parameter in original.parameters())


@pytest.mark.parametrize("name", EVERY)
def test_the_seed_decides_every_bit(name: str, original: nn.Module) -> None:
    first = PLAIN.get(name) or digest(run(original, name))
    torch.rand(7)
    assert digest(run(original, name)) == first
    forget, retain, context = request(original, name)
    other = METHODS[name].run(original, forget, retain, replace(context, seed=1))
    assert digest(other) != first


@pytest.mark.parametrize("scenario", ["random", "classes"])
@pytest.mark.parametrize("name", EVERY)
def test_it_works_where_the_class_stays_and_where_several_go(name: str, scenario: str, original: nn.Module) -> None:
    forget, retain, _ = request(original, name, scenario)
    unlearned = run(original, name, scenario)
    assert all(torch.isfinite(entry).all() for entry in unlearned.state_dict().values())
    assert digest(unlearned) != digest(original)
    # Climbing on half of all data NegGrad+ does not come to rest; what it does is tested against its formula.
    if scenario == "classes" and name in FORGETS and name != "neggrad_plus":
        assert accuracy(unlearned, forget) < 0.1
        # With half of all classes forgotten, the weights that SSD dampens carry others too.
        assert accuracy(unlearned, retain) > (0.45 if name == "ssd" else 0.9)


@pytest.mark.parametrize("name", TRAINED)
def test_a_stopped_run_goes_on_to_the_same_bits(
    name: str, original: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = PLAIN.get(name) or digest(run(original, name))
    path = tmp_path / "checkpoint.safetensors"
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    real = training.checkpoints.save

    def save_then_stop(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        if arguments[3] == 7 and not str(arguments[4]).startswith("impair"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.checkpoints, "save", save_then_stop)
        with pytest.raises(KeyboardInterrupt):
            run(original, name, checkpoint=path)
    assert list(tmp_path.iterdir())
    assert digest(run(original, name, checkpoint=path)) == whole
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["boundary_shrink", "delete"])
def test_what_says_that_it_needs_no_retain_set_does_not_look_at_it(name: str, original: nn.Module) -> None:
    forget, retain, context = request(original, name)
    assert "retain" not in METHODS[name].needs
    whole = PLAIN.get(name) or digest(METHODS[name].run(original, forget, retain, context))
    assert digest(METHODS[name].run(original, forget, retain.subset(np.arange(0)), context)) == whole


@pytest.mark.parametrize("name", EVERY)
def test_what_it_does_not_ask_for_it_does_not_use(name: str, original: nn.Module) -> None:
    forget, retain, context = request(original, name)
    parts = {"perturbing": "perturbing", "noise": "noise", "train_recipe": "recipe"}
    without = {part: None for need, part in parts.items() if need not in METHODS[name].needs}
    expected = PLAIN.get(name) or digest(METHODS[name].run(original, forget, retain, context))
    assert digest(METHODS[name].run(original, forget, retain, replace(context, **without))) == expected
    for part in set(parts.values()) - set(without):
        with pytest.raises(ValueError, match=f"context.{part}"):
            METHODS[name].run(original, forget, retain, replace(context, **{part: None}))


def test_the_allowed_labels_by_hand() -> None:
    labels = torch.tensor([0, 2])
    assert allowed(labels, (), 3).tolist() == [[False, True, True], [True, True, False]]
    assert allowed(labels, (1,), 3).tolist() == [[False, False, True], [True, False, False]]
    with pytest.raises(ValueError, match="no other label is left"):
        allowed(labels, (0, 1, 2), 3)


def test_noise_is_not_needed_where_none_is_used() -> None:
    method = METHODS["megu"]
    assert method.needed(method.params()) == {"perturbing", "noise", "retain"}
    for params in (method.params(noise_share=0.0), method.params(noise_scale=0.0)):
        assert method.needed(params) == {"perturbing", "retain"}


def test_megu_without_noise_needs_no_bank(original: nn.Module) -> None:
    forget, retain, context = request(original, "megu", noise=None)
    bare = replace(context, params=replace(context.params, noise_share=0.0))
    assert accuracy(METHODS["megu"].run(original, forget, retain, bare), forget) < 0.1


@pytest.mark.parametrize(("sides", "alpha"), [("positive", 1.0), ("negative", 0.0)])
def test_one_side_of_the_noise_alone_is_the_mixture_at_its_end(sides: str, alpha: float, original: nn.Module) -> None:
    forget, retain, context = request(original, "megu")
    method = METHODS["megu"].run

    def made(context: Context, **changes: object) -> str:
        return digest(method(original, forget, retain, replace(context, params=replace(context.params, **changes))))  # type: ignore[arg-type]

    assert made(context, noise_sides=sides) == made(context, alpha=alpha) != made(context)


def test_a_forget_set_of_two_images_is_enough(original: nn.Module) -> None:
    """The deletion request of one person: fewer images than a batch."""
    for name in EVERY:
        forget, retain, context = request(original, name, "random", perturbing=None, noise=None)
        if (
            "perturbing" in METHODS[name].needs
        ):  # whose labels are of the forget set that they were made for: see their own tests
            continue
        small = METHODS[name].run(original, forget.subset(np.arange(2)), retain, context)
        assert all(torch.isfinite(entry).all() for entry in small.state_dict().values()), name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("finetune", 2 * (150 // 16) * 16),  # two epochs of the retain set in whole batches
        ("retrain", 8 * (150 // 16) * 16),  # the recipe's epochs
        ("ssd", 200 + 50),  # the importances of all images and of the forget set, every image once
    ],
)
def test_every_pass_is_counted(name: str, expected: int, original: nn.Module) -> None:
    forget, retain, context = request(original, name)
    with counting() as passes:
        METHODS[name].run(original, forget, retain, context)
    assert sum(passes) == expected


def test_passes_are_counted_for_whoever_counts_them_alone(original: nn.Module) -> None:
    """One count within another has its own, and outside of both nothing is kept."""
    passed(7)
    with counting() as outer:
        passed(1)
        with counting() as inner:
            passed(10)
        passed(100)
    passed(7)
    assert (sum(outer), sum(inner)) == (101, 10)
