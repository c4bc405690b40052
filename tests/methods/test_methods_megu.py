from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import images
from torch import nn

from megu import training
from megu.data.tensors import ImageSet
from megu.methods import METHODS, Context
from megu.methods.megu import MeguParams, Noise, SoftTargets
from megu.noise import NoiseBank, NoiseParams, make_noise_bank
from megu.perturbing import MOST, Perturbing, PerturbParams, perturb, sharpened
from megu.training import TrainParams, predict, train
from megu.weights import digest

PARAMS = MeguParams(epochs=6, batch_size=16, retain_samples=200, lr=0.005)


@pytest.fixture(scope="module")
def original() -> nn.Module:
    torch.set_num_threads(1)
    return train(images(320), TrainParams(epochs=8, batch_size=16, augment="none"), 4, seed=0)


def parts(
    original: nn.Module, params: MeguParams = PARAMS, checkpoint: Path | None = None
) -> tuple[ImageSet, ImageSet, Context]:
    data = images(320)
    forget, retain = data.subset(np.flatnonzero(data.labels == 2)), data.subset(np.flatnonzero(data.labels != 2))
    transition = np.full((4, 4), 0.25)
    answers = predict(original, forget).logits.numpy()
    context = Context(
        params=params,
        seed=0,
        num_classes=4,
        forgotten=(2,),
        perturbing=perturb(transition, answers, forget.labels.numpy(), (2,), PerturbParams(sharpness=1.0)),
        noise=make_noise_bank(original, 4, (1, 8, 8), [2], NoiseParams(per_label=2, steps=5), seed=0),
        checkpoint=checkpoint,
    )
    return forget, retain, context


def followed(
    original: nn.Module, params: MeguParams = PARAMS, checkpoint: Path | None = None
) -> tuple[ImageSet, ImageSet, Context]:
    """A fit that is off: R = (.6, .3, 0, .1) for every sample, .9 nats, where half a nat is wanted."""
    forget, retain, context = parts(original, params, checkpoint)
    reasoning = np.tile([0.6, 0.3, 0.0, 0.1], (len(forget), 1))
    labels = np.zeros(len(forget), dtype=np.int64)
    perturbing = Perturbing(labels, reasoning.astype(np.float32), reasoning, sharpness=1.0, entropy=0.5)
    return forget, retain, replace(context, perturbing=perturbing)


def accuracy(model: nn.Module, data: ImageSet) -> float:
    return float((predict(model, data).logits.argmax(1) == data.labels).float().mean())


def test_it_forgets_the_forget_set_and_keeps_the_rest(original: nn.Module) -> None:
    forget, retain, context = parts(original)
    assert accuracy(original, forget) > 0.9
    unlearned = METHODS["megu"].run(original, forget, retain, context)
    assert accuracy(unlearned, forget) < 0.1
    assert accuracy(unlearned, retain) > 0.9


def test_the_original_stays_as_it_is(original: nn.Module) -> None:
    before = digest(original)
    METHODS["megu"].run(original, *parts(original))
    assert digest(original) == before


def test_the_same_seed_gives_the_same_bits(original: nn.Module) -> None:
    forget, retain, context = parts(original)
    found = [digest(METHODS["megu"].run(original, forget, retain, replace(context, seed=seed))) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_a_stopped_run_goes_on_to_the_same_bits(original: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = digest(METHODS["megu"].run(original, *followed(original)))
    still = digest(METHODS["megu"].run(original, *followed(original, replace(PARAMS, entropy_gain=0.0))))
    assert whole != still, "the loop has an effect, so its state matters"
    path = tmp_path / "checkpoint.safetensors"
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    real = training.checkpoints.save

    def save_then_stop(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        if arguments[3] == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.checkpoints, "save", save_then_stop)
        with pytest.raises(KeyboardInterrupt):
            METHODS["megu"].run(original, *followed(original, checkpoint=path))
    assert path.exists()
    assert digest(METHODS["megu"].run(original, *followed(original, checkpoint=path))) == whole
    assert not path.exists()


def soft(entropy: float | None = 0.3, sharpness: float = 1.0) -> Perturbing:
    """Two samples of class 2, R = (.5, .3, 0, .2) and (.2, .2, 0, .6)."""
    reasoning = np.array([[0.5, 0.3, 0.0, 0.2], [0.2, 0.2, 0.0, 0.6]])
    return Perturbing(np.array([0, 3]), sharpened(reasoning, sharpness).astype(np.float32), reasoning, sharpness, entropy)


def test_the_soft_targets_before_any_step_are_those_that_were_fitted() -> None:
    perturbing = soft(sharpness=2.0)
    found = SoftTargets(perturbing, gain=0.5).at(torch.tensor([1, 0]))
    torch.testing.assert_close(found, torch.from_numpy(perturbing.targets[[1, 0]]))
    assert found[0, 2] == 0, "a forgotten class is never taught"


def test_the_sharpness_follows_the_model_by_hand() -> None:
    """Two clean samples with entropies log 4 and log 2, wanted 0.3: log s grows by gain * ((log 4 + log 2) / 2 - 0.3)."""
    logits = torch.tensor([[0.0, 0, 0, 0], [0, 0, -1e9, -1e9], [9.0, 0, 0, 0]])
    targets = SoftTargets(soft(entropy=0.3), gain=0.5)
    targets.follow(logits, torch.tensor([True, True, False]))
    grown = 0.5 * ((np.log(4) + np.log(2)) / 2 - 0.3)
    assert float(targets.log_sharpness) == pytest.approx(grown, rel=1e-5)
    expected = torch.tensor([0.5, 0.3, 0.0, 0.2]) ** float(np.exp(grown))
    torch.testing.assert_close(targets.at(torch.tensor([0]))[0], expected / expected.sum())


@pytest.mark.parametrize(("gain", "entropy"), [(0.0, 0.3), (0.5, None)])
def test_without_gain_or_without_a_wanted_entropy_the_targets_stay(gain: float, entropy: float | None) -> None:
    perturbing = soft(entropy=entropy, sharpness=2.0)
    targets = SoftTargets(perturbing, gain)
    targets.follow(torch.zeros(2, 4), torch.tensor([True, True]))
    torch.testing.assert_close(targets.at(torch.tensor([0, 1])), torch.from_numpy(perturbing.targets))


def test_a_batch_without_clean_samples_changes_nothing_and_the_sharpness_stays_in_bounds() -> None:
    targets = SoftTargets(soft(entropy=0.3), gain=5.0)
    targets.follow(torch.zeros(2, 4), torch.tensor([False, False]))
    assert float(targets.log_sharpness) == 0
    for _ in range(20):
        targets.follow(torch.zeros(2, 4), torch.tensor([True, True]))
    assert float(targets.log_sharpness) == pytest.approx(np.log(MOST))
    assert torch.isfinite(targets.at(torch.tensor([0, 1]))).all()


def test_the_loop_brings_the_model_nearer_to_the_wanted_entropy(original: nn.Module) -> None:
    """R of .9 nats where half a nat is wanted: open, the model ends as unsure as R; followed, much nearer."""

    def off(gain: float) -> float:
        forget, retain, context = followed(original, replace(PARAMS, entropy_gain=gain, noise_share=0.0))
        logits = predict(METHODS["megu"].run(original, forget, retain, context), forget).logits
        return abs(float(torch.distributions.Categorical(logits=logits).entropy().mean()) - 0.5)

    assert off(0.2) < 0.5 * off(0.0)


def bank() -> NoiseBank:
    """Positive noise of label l is l + 1, negative noise of class 2 is -10."""
    positive = np.stack([np.full((1, 1, 2, 2), k + 1, dtype=np.float32) for k in range(4)])
    return NoiseBank(positive, np.full((1, 1, 1, 2, 2), -10, dtype=np.float32), np.array([2]))


@pytest.mark.parametrize(("alpha", "scale", "expected"), [(0.7, 1.0, 0.7 * 4 - 3.0), (1.0, 0.5, 2.0), (0.0, 1.0, -10.0)])
def test_the_noise_on_a_sample_by_hand(alpha: float, scale: float, expected: float) -> None:
    """Taught label 3 (positive 4), own class 2 (negative -10): scale * (alpha * 4 + (1 - alpha) * -10), on forget samples only."""
    forget = images(8, size=2).subset([2, 6])
    targets = torch.eye(4)[[3, 3]]
    params = MeguParams(alpha=alpha, noise_scale=scale, noise_share=1.0)
    context = Context(params=params, seed=0, num_classes=4, forgotten=(2,), perturbing=None, noise=bank())  # type: ignore[arg-type]
    noise = Noise(context, forget, targets)
    inputs = torch.zeros(3, 1, 2, 2)
    found = noise.add(inputs, torch.tensor([0, 5, 1]), step=0)
    torch.testing.assert_close(found[:, 0, 0, 0], torch.tensor([expected, 0.0, expected]))
    assert (inputs == 0).all(), "the inputs are not changed in place"


def test_the_share_of_noisy_samples_and_the_labels_they_are_drawn_for() -> None:
    forget = images(4000, size=2)
    forget = forget.subset(np.flatnonzero(forget.labels == 2))
    targets = torch.tensor([[0.75, 0.25, 0.0, 0.0]]).repeat(len(forget), 1)
    params = MeguParams(alpha=1.0, noise_share=0.3, noise_scale=1.0)
    context = Context(params=params, seed=0, num_classes=4, forgotten=(2,), perturbing=None, noise=bank())  # type: ignore[arg-type]
    found = Noise(context, forget, targets).add(torch.zeros(len(forget), 1, 2, 2), torch.arange(len(forget)), step=3)[
        :, 0, 0, 0
    ]
    assert float((found > 0).float().mean()) == pytest.approx(0.3, abs=0.05)
    assert set(found.tolist()) == {0.0, 1.0, 2.0}
    assert float((found == 1.0).sum() / (found > 0).sum()) == pytest.approx(0.75, abs=0.06)


def test_a_bank_without_the_forgotten_class_is_refused() -> None:
    forget = images(8, size=2).subset([1])
    context = Context(params=PARAMS, seed=0, num_classes=4, forgotten=(1,), perturbing=None, noise=bank())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no negative noise"):
        Noise(context, forget, torch.eye(4)[[0]])
