from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from method_fixtures import COUNT, Linear, accuracy, context, points
from tiny import Crossings, images
from torch import nn

from megu.core.files.store import canonical_json
from megu.data.tensors import ImageSet
from megu.training import loop as training
from megu.training.loop import counting, predict
from megu.training.weights import digest
from megu.unlearning.labels.calibration import Calibration
from megu.unlearning.labels.forget_targets import Perturbing
from megu.unlearning.labels.perturbing import PerturbParams, perturb
from megu.unlearning.methods import METHODS, Context
from megu.unlearning.methods.feature_noise import Noise
from megu.unlearning.methods.megu import MeguParams
from megu.unlearning.noise import NoiseBank, NoiseParams, make_noise_bank, taught

PARAMS = MeguParams(steps=40, batch_size=16, lr=0.03, optimiser="sgd")
#: Column k describes class k.
T = np.array([[0.7, 0.1, 0.2, 0.0], [0.1, 0.6, 0.0, 0.1], [0.2, 0.2, 0.5, 0.3], [0.0, 0.1, 0.3, 0.6]])


def parts(
    original: nn.Module,
    params: MeguParams = PARAMS,
    chosen: Any = None,
    perturbing: PerturbParams = PerturbParams(),  # noqa: B008 - frozen
    **more: Any,
) -> tuple[ImageSet, ImageSet, Context]:
    """To forget class 2, or the images ``chosen`` of classes that stay; the targets calibrated by images of another seed."""
    data, held_out = images(COUNT), images(40, seed=1)
    labels, forgotten = data.labels.numpy(), (2,) if chosen is None else ()
    gone = labels == 2 if chosen is None else np.isin(np.arange(COUNT), chosen)
    said, held = (predict(original, part).logits.numpy() for part in (data, held_out))
    calibration = Calibration.of(held, held_out.labels.numpy(), said, labels, forgotten)
    made = perturb(T, said[gone], labels[gone], forgotten, perturbing, calibration)
    bank = make_noise_bank(
        original, taught(made.targets, 1.0), (1, 8, 8), sorted(set(labels[gone])), NoiseParams(per_label=2, steps=5), seed=0
    )
    given = context(params, 4, forgotten, **{"perturbing": made, "noise": bank, **more})
    return data.subset(np.flatnonzero(gone)), data.subset(np.flatnonzero(~gone)), given


def run(original: nn.Module, *arguments: Any, **more: Any) -> nn.Module:
    return METHODS["megu"].run(original, *parts(original, *arguments, **more))


def off(original: nn.Module, wanted: float = 0.5, **more: Any) -> tuple[ImageSet, ImageSet, Context]:
    """A fit that is off: R = (.6, .3, 0, .1) for every sample, .9 nats, where the model is to end at half a nat."""
    forget, retain, given = parts(original, **more)
    reasoning = np.tile([0.6, 0.3, 0.0, 0.1], (len(forget), 1))
    labels = np.zeros(len(forget), dtype=np.int64)
    made = Perturbing(labels, reasoning.astype(np.float32), reasoning, np.full(len(forget), wanted))
    return forget, retain, replace(given, perturbing=made)


@pytest.mark.parametrize("lr", [0.03, "auto"])
@pytest.mark.parametrize("label", ["soft", "rank"])
def test_it_forgets_the_forget_set_and_keeps_the_rest(original: nn.Module, lr: Any, label: Any) -> None:
    forget, retain, given = parts(original, replace(PARAMS, lr=lr), perturbing=PerturbParams(label=label))
    assert accuracy(original, forget) > 0.9
    unlearned = METHODS["megu"].run(original, forget, retain, given)
    assert accuracy(unlearned, forget) < 0.1
    assert accuracy(unlearned, retain) > 0.9
    assert all(torch.isfinite(value).all() for value in unlearned.state_dict().values())
    assert set(unlearned.state_dict()) == set(original.state_dict()), "of the targets nothing is left in it"


def test_samples_of_classes_that_stay_are_taught_and_the_rest_is_kept(original: nn.Module) -> None:
    """They are to be known as held-out images are: hardly less here, and their targets are reached."""
    forget, retain, given = parts(original, replace(PARAMS, lr="auto"), chosen=[3, 50, 81, 120])
    unlearned = METHODS["megu"].run(original, forget, retain, given)
    assert accuracy(unlearned, retain) > 0.9
    targets = torch.from_numpy(given.perturbing.targets)  # type: ignore[union-attr]
    reached = torch.softmax(predict(unlearned, forget).logits, dim=1)
    assert float((reached - targets).abs().max()) < 0.2


def test_the_original_stays_as_it_is(original: nn.Module) -> None:
    before = digest(original)
    run(original, replace(PARAMS, lr="auto"))
    assert digest(original) == before


def test_the_same_seed_gives_the_same_bits_and_the_same_rate(original: nn.Module) -> None:
    found = [parts(original, replace(PARAMS, lr="auto"), seed=seed) for seed in (0, 0, 1)]
    digests = [digest(METHODS["megu"].run(original, *part)) for part in found]
    assert digests[0] == digests[1] != digests[2]
    assert found[0][2].chosen == found[1][2].chosen != found[2][2].chosen


def test_a_given_rate_is_tried_alone(original: nn.Module) -> None:
    _, _, given = arguments = parts(original)
    METHODS["megu"].run(original, *arguments)
    assert given.chosen["lr"] == 0.03
    assert given.chosen["tried"] == []


def test_what_was_tried_is_said_and_the_best_of_it_is_the_model(original: nn.Module) -> None:
    _, _, given = arguments = parts(original, replace(PARAMS, lr="auto"))
    found = digest(METHODS["megu"].run(original, *arguments))
    tried = given.chosen["tried"]
    assert 3 <= len(tried) <= 6
    finite = [entry for entry in tried if entry["forget"] is not None]
    assert given.chosen["lr"] == min(finite, key=lambda entry: entry["forget"] + entry["retain"])["lr"]
    assert digest(run(original, replace(PARAMS, lr=given.chosen["lr"]))) == found


def test_the_distances_that_are_judged_by_are_those_of_the_answers(original: nn.Module) -> None:
    """The KL divergence of the answers to the clean forget images from what they are taught."""
    forget, _, given = arguments = parts(original, replace(PARAMS, steering=0.0))
    said = torch.log_softmax(predict(METHODS["megu"].run(original, *arguments), forget).logits, dim=1).numpy()
    targets = given.perturbing.targets.astype(np.float64)  # type: ignore[union-attr]
    logs = np.log(np.where(targets > 0, targets, 1))
    assert given.chosen["forget"] == pytest.approx((targets * (logs - said)).sum(axis=1).mean(), rel=1e-3)


def test_a_rate_that_breaks_the_model_is_said_as_json_can(original: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the rates that are tried for a network some may leave the finite numbers: the run goes on, and is kept."""
    real = training.forward

    def breaking(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        logits = real(model, inputs)
        return logits * (math.nan if float(optimisers[-1].param_groups[0]["lr"]) > 0.02 else 1.0)

    optimisers: list[torch.optim.Optimizer] = []
    made = torch.optim.SGD.__init__

    def noted(self: torch.optim.SGD, *arguments: Any, **more: Any) -> None:
        made(self, *arguments, **more)
        optimisers.append(self)

    monkeypatch.setattr(torch.optim.SGD, "__init__", noted)
    monkeypatch.setattr("megu.unlearning.methods.megu.forward", breaking)
    _, _, given = arguments = parts(original, replace(PARAMS, lr="auto", steps=10))
    unlearned = METHODS["megu"].run(original, *arguments)
    assert all(torch.isfinite(value).all() for value in unlearned.state_dict().values())
    said = json.loads(canonical_json(given.chosen))
    assert said["lr"] < 0.02
    assert [entry["forget"] is None for entry in said["tried"]] == [entry["lr"] > 0.02 for entry in said["tried"]]
    assert any(entry["forget"] is None for entry in said["tried"])


def stopped(original: nn.Module, path: Path, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, at: int) -> str:
    """The digest of a run that was stopped once, at the ``at``-th checkpoint, and gone on with."""
    real, saved = training.checkpoints.save, []

    def save_then_stop(*arguments: Any) -> None:
        real(*arguments)
        saved.append(arguments[3])
        if len(saved) == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(training.checkpoints, "save", save_then_stop)
        with pytest.raises(KeyboardInterrupt):
            METHODS["megu"].run(original, *make(original, checkpoint=path))
    assert path.exists()
    found = digest(METHODS["megu"].run(original, *make(original, checkpoint=path)))
    assert not path.exists()
    return found


def test_a_stopped_run_goes_on_to_the_same_bits(original: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after a third of the way: what the targets had become is a part of the state."""
    whole = digest(METHODS["megu"].run(original, *off(original)))
    still = digest(METHODS["megu"].run(original, *off(original, params=replace(PARAMS, steering=0.0))))
    assert whole != still, "the steering has an effect, so its state matters"
    assert stopped(original, tmp_path / "checkpoint.safetensors", off, monkeypatch, at=15) == whole


def test_a_search_that_was_stopped_goes_on_to_the_same_bits(
    original: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within the second rate: its state is not taken for the first's."""

    def searching(original: nn.Module, **more: Any) -> tuple[ImageSet, ImageSet, Context]:
        return parts(original, replace(PARAMS, lr="auto", steps=12), **more)

    whole = digest(METHODS["megu"].run(original, *searching(original)))
    assert stopped(original, tmp_path / "checkpoint.safetensors", searching, monkeypatch, at=17) == whole


def test_steering_brings_the_model_nearer_to_the_entropy_that_is_wanted(original: nn.Module) -> None:
    """Targets of .9 nats where half a nat is wanted: not steered, the model ends as unsure as they are."""

    def missed(steering: float) -> float:
        forget, retain, given = off(original, params=replace(PARAMS, steps=80, lr=0.1, steering=steering))
        logits = predict(METHODS["megu"].run(original, forget, retain, given), forget).logits
        return abs(float(torch.distributions.Categorical(logits=logits).entropy().mean()) - 0.5)

    assert missed(0.0) > 0.3
    assert missed(0.05) < 0.5 * missed(0.0)


@pytest.mark.parametrize("chosen", [[3], None])
@pytest.mark.parametrize("label", ["soft", "rank"])
def test_one_image_is_enough_to_forget_and_a_few_to_keep(original: nn.Module, chosen: Any, label: Any) -> None:
    """The deletion request of one person, and a retain set smaller than a batch."""
    params = replace(PARAMS, lr="auto", steps=8)
    forget, retain, given = parts(original, params, chosen=chosen, perturbing=PerturbParams(label=label))
    few = given if chosen else replace(given, perturbing=first(given.perturbing))
    for kept in (retain, retain.subset(np.arange(3)), retain.subset(np.arange(1))):
        unlearned = METHODS["megu"].run(original, forget.subset(np.arange(1)), kept, replace(few, chosen={}))
        assert all(torch.isfinite(value).all() for value in unlearned.state_dict().values())


def first(made: Perturbing | None) -> Perturbing:
    assert made is not None
    return Perturbing(made.labels[:1], made.targets[:1], made.reasoning[:1], made.entropies[:1], made.sharpness)


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("weight", [1.0, 3.0])
@pytest.mark.parametrize("target", ["answers", "labels"])
def test_what_retain_samples_are_taught_by_hand(target: Any, weight: float) -> None:
    """One step of plain descent at .1 on W = [[log 3, 0], [0, 0]]: the forget sample (0, 1) is taught (0, 1), the retain sample (1, 0)
    either (3/4, 1/4), which it answers already, or its label 1. The slope of a cross-entropy is p - target; of two samples it is their mean,
    the retain sample weighted."""
    model = Linear([[math.log(3), 0.0], [0.0, 0.0]])
    forget, retain = points([[0, 255]], [0]), points([[255, 0]], [1])
    one_hot = np.array([[0.0, 1.0]])
    made = Perturbing(np.array([1]), one_hot.astype(np.float32), one_hot, np.array([math.nan]))
    # The only step is in the middle of the fall to 0: half of the peak.
    params = MeguParams(
        steps=1, batch_size=2, optimiser="sgd", lr=0.2, noise_share=0.0, retain_target=target, retain_weight=weight
    )
    found = METHODS["megu"].run(model, forget, retain, context(params, 2, perturbing=made)).get_parameter("weight")
    moved = {"answers": 0.0, "labels": 0.1 * 0.75 * weight / (1 + weight)}[target]
    lost = 0.1 * 0.5 / (1 + weight)
    expected = [[math.log(3) - moved, -lost], [moved, lost]]
    torch.testing.assert_close(found.detach(), torch.tensor(expected), atol=1e-6, rtol=0)


@pytest.mark.usefixtures("float32")
def test_a_retain_sample_is_not_taught_the_class_that_leaves() -> None:
    """One step on W = [[log 3, 0], [0, 0], [0, 0]], class 2 leaves. The retain sample (1, 0) is answered (3/5, 1/5, 1/5), so it is taught
    (3/4, 1/4, 0): the slopes p - target are (-.15, -.05, .2)."""
    model = Linear([[math.log(3), 0.0], [0.0, 0.0], [0.0, 0.0]])
    forget, retain = points([[0, 255]], [2]), points([[255, 0]], [0])
    one_hot = np.array([[0.0, 1.0, 0.0]])
    made = Perturbing(np.array([1]), one_hot.astype(np.float32), one_hot, np.array([math.nan]))
    params = MeguParams(steps=1, batch_size=2, optimiser="sgd", lr=0.2, noise_share=0.0, retain_weight=1)
    found = METHODS["megu"].run(model, forget, retain, context(params, 3, (2,), perturbing=made)).get_parameter("weight")
    expected = torch.tensor([math.log(3) + 0.1 * 0.15 / 2, 0.1 * 0.05 / 2, -0.1 * 0.2 / 2])
    torch.testing.assert_close(found.detach()[:, 0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("batch_norm", ["frozen", "batch"])
def test_the_statistics_of_batch_norm_stay_the_originals(original: nn.Module, batch_norm: Any) -> None:
    found = run(original, replace(PARAMS, batch_norm=batch_norm))
    before = dict(original.named_buffers())
    same = [torch.equal(value, before[name]) for name, value in found.named_buffers()]
    assert all(same) if batch_norm == "frozen" else not any(same)
    assert before
    assert not found.training


@pytest.mark.parametrize(
    ("count", "epochs", "size", "expected"),
    [
        (500, 8, 128, 25),
        (1000, 8, 128, 50),
        (6000, 8, 128, 64),
        (1, 8, 128, 1),
        (30, 1, 128, 1),
        (500, 8, 3, 1),
        (2, 160, 128, 2),
    ],
)
def test_how_many_forget_samples_a_batch_has(count: int, epochs: int, size: int, expected: int) -> None:
    """So many that each comes ``epochs`` times in 160 steps: 500 * 8 / 160 = 25; at most half of the batch, at most all."""
    assert MeguParams(steps=160, forget_epochs=epochs, batch_size=size).forgets(count) == expected


@pytest.mark.parametrize("lr", [0.03, "auto"])
def test_every_pass_is_counted(original: nn.Module, lr: Any) -> None:
    """40 steps of 16 samples, and 20 at each rate that is tried."""
    _, _, given = arguments = parts(original, replace(PARAMS, lr=lr))
    with counting() as passes:
        METHODS["megu"].run(original, *arguments)
    assert sum(passes) == 16 * (40 + 20 * len(given.chosen["tried"]))


def bank() -> NoiseBank:
    """Positive noise of label l is l + 1, of labels 0, 1 and 3; negative noise of class 2 is -10."""
    positive = np.stack([np.full((1, 1, 2, 2), k + 1, dtype=np.float32) for k in (0, 1, 3)])
    return NoiseBank(positive, np.array([0, 1, 3]), np.full((1, 1, 1, 2, 2), -10, dtype=np.float32), np.array([2]))


def noise(targets: torch.Tensor, forget: ImageSet | None = None, **changes: Any) -> Noise:
    """Of forget samples of class 2."""
    forget = images(4 * len(targets), size=2).subset(np.arange(2, 4 * len(targets), 4)) if forget is None else forget
    return Noise(context(MeguParams(**{"noise_share": 1.0, **changes}), 4, (2,), noise=bank()), forget, targets)


@pytest.mark.parametrize(("alpha", "scale", "expected"), [(0.7, 1.0, 0.7 * 4 - 3.0), (1.0, 0.5, 2.0), (0.0, 1.0, -10.0)])
def test_the_noise_on_a_sample_by_hand(alpha: float, scale: float, expected: float) -> None:
    """Taught label 3 (positive 4), own class 2 (negative -10): scale * (alpha * 4 + (1 - alpha) * -10), at its places only."""
    inputs = torch.zeros(3, 1, 2, 2)
    found = noise(torch.eye(4)[[3, 3]], alpha=alpha, noise_scale=scale).add(
        inputs, torch.tensor([0, 1]), torch.tensor([0, 2]), step=0
    )
    torch.testing.assert_close(found[:, 0, 0, 0], torch.tensor([expected, 0.0, expected]))
    assert (inputs == 0).all(), "the inputs are not changed in place"


def test_the_share_of_noisy_samples_and_the_labels_they_are_drawn_for() -> None:
    targets = torch.tensor([[0.6, 0.2, 0.0, 0.2]]).repeat(1000, 1)
    every = torch.arange(1000)
    made = noise(targets, alpha=1.0, noise_share=0.3, noise_scale=1.0)
    found = made.add(torch.zeros(1000, 1, 2, 2), every, every, step=3)[:, 0, 0, 0]
    assert float((found > 0).float().mean()) == pytest.approx(0.3, abs=0.05)
    assert set(found.tolist()) == {0.0, 1.0, 2.0, 4.0}
    assert float((found == 1.0).sum() / (found > 0).sum()) == pytest.approx(0.6, abs=0.09)


def test_labels_that_the_bank_does_not_have_are_not_drawn() -> None:
    """Taught class 2 with .9 and 1 with .1: there is noise of 1 alone. Taught class 2 with 1.0: of all that there is."""
    every = torch.arange(400)
    targets = torch.tensor([[0.0, 0.1, 0.9, 0.0]]).repeat(400, 1)
    found = noise(targets, alpha=1.0, noise_scale=1.0).add(torch.zeros(400, 1, 2, 2), every, every, step=0)
    assert set(found.flatten().tolist()) == {2.0}
    none = torch.eye(4)[[2]].repeat(400, 1)
    found = noise(none, alpha=1.0, noise_scale=1.0).add(torch.zeros(400, 1, 2, 2), every, every, step=0)
    assert set(found.flatten().tolist()) == {1.0, 2.0, 4.0}


def test_a_bank_without_the_forgotten_class_is_refused() -> None:
    with pytest.raises(ValueError, match="no negative noise"):
        noise(torch.eye(4)[[0]], images(8, size=2).subset([1]))


def test_noise_asks_nothing_of_the_device() -> None:
    """On torch's meta device there are no values: to ask for one raises. What the step needs goes there in one copy."""
    made = noise(torch.eye(4)[[3, 3]])
    made.positive, made.negative = made.positive.to("meta"), made.negative.to("meta")
    with Crossings() as crossings:
        found = made.add(torch.zeros(3, 1, 2, 2, device="meta"), torch.tensor([0, 1]), torch.tensor([0, 2]), step=0)
    assert found.shape == (3, 1, 2, 2)
    assert crossings.count == 1
