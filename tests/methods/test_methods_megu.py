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
from megu.methods.megu import MeguParams, Noise
from megu.noise import NoiseBank, NoiseParams, make_noise_bank
from megu.perturbing import PerturbParams, perturb
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
    whole = digest(METHODS["megu"].run(original, *parts(original)))
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
            METHODS["megu"].run(original, *parts(original, checkpoint=path))
    assert path.exists()
    assert digest(METHODS["megu"].run(original, *parts(original, checkpoint=path))) == whole
    assert not path.exists()


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
    params = MeguParams(alpha=1.0, noise_share=0.3)
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
