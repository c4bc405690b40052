from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import Crossings, images

from megu.core import device
from megu.core.device import CPU, fast_dtype
from megu.core.errors import MeguError
from megu.core.progress import listening
from megu.core.seeds import derive, generator
from megu.data.tensors import CROP_PADDING, ImageSet, cropped
from megu.models import build
from megu.training import checkpoint
from megu.training import loop as training
from megu.training.loop import (
    Batches,
    Objective,
    TrainParams,
    augmentation,
    fit,
    multistep,
    one_cycle,
    optimise,
    optimiser_of,
    predict,
    train,
)
from megu.training.retrain import retrain
from megu.training.weights import digest

PARAMS = TrainParams(epochs=4, batch_size=16)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_it_learns() -> None:
    model = train(images(320), TrainParams(epochs=8, batch_size=16, augment="none"), 4, seed=0)
    other = images(seed=5)
    assert float((predict(model, other).logits.argmax(1) == other.labels).float().mean()) > 0.95


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not() -> None:
    found = [digest(train(images(), PARAMS, 4, seed=seed)) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_what_was_drawn_before_does_not_matter() -> None:
    first = digest(train(images(), PARAMS, 4, seed=0))
    torch.rand(17)
    assert digest(train(images(), PARAMS, 4, seed=0)) == first


@given(st.integers(2, 300), st.integers(2, 64), st.integers(0, 3))
def test_an_epoch_has_each_position_at_most_once(n: int, size: int, epoch: int) -> None:
    batches = Batches(n, size, seed=1)
    seen = torch.cat([batches.at(epoch * batches.per_epoch + step) for step in range(batches.per_epoch)]).tolist()
    assert len(seen) == len(set(seen)) == (n // size * size or n)
    assert set(seen) <= set(range(n))


def test_the_one_cycle_rate_by_hand() -> None:
    """Ten steps, a fifth of them warm-up: middles at .05, .15 (up), .25 … .95 (down)."""
    rates = [one_cycle(step, 10, peak=8.0, warmup=0.2) for step in range(10)]
    np.testing.assert_allclose(rates, [2, 6, 7.5, 6.5, 5.5, 4.5, 3.5, 2.5, 1.5, 0.5])
    assert one_cycle(0, 1, 1.0, 0.0) == 0.5


def test_the_multistep_rate_by_hand() -> None:
    """METHOD: CIFAR-20 trains 40 epochs with drops at 15, 30 and 35."""
    rates = [multistep(epoch, 0.1, (15, 30, 35), drop=0.2) for epoch in (0, 14, 15, 29, 30, 34, 35, 39)]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.02, 0.02, 0.004, 0.004, 0.0008, 0.0008])
    assert multistep(7, 0.1, (), drop=0.2) == 0.1


def test_sgd_takes_the_step_of_its_formula() -> None:
    """v <- 0.9 v + (g + decay w); w <- w - lr v."""
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(2.0)
    optimiser = optimiser_of(TrainParams(optimiser="sgd", lr=0.1, weight_decay=0.5), model)
    weight, velocity = 2.0, 0.0
    for gradient in (1.0, 3.0):
        model.weight.grad = torch.full_like(model.weight, gradient)
        optimiser.step()
        velocity = 0.9 * velocity + gradient + 0.5 * weight
        weight -= 0.1 * velocity
        assert model.weight.item() == pytest.approx(weight)


@given(st.integers(0, 2 * CROP_PADDING), st.integers(0, 2 * CROP_PADDING))
def test_a_crop_shifts_the_image_and_shows_black_at_the_edge(row: int, column: int) -> None:
    pixels = torch.arange(1, 61, dtype=torch.uint8).reshape(1, 1, 6, 10)
    found = cropped(pixels, torch.tensor([[row, column]]))[0, 0]
    for r in range(6):
        for c in range(10):
            y, x = r + row - CROP_PADDING, c + column - CROP_PADDING
            assert found[r, c] == (pixels[0, 0, y, x] if 0 <= y < 6 and 0 <= x < 10 else 0)


def test_each_image_of_a_batch_is_cropped_on_its_own() -> None:
    data = images(6, channels=3)
    crop = torch.tensor([[0, 8], [4, 4], [8, 0], [3, 5], [4, 0], [7, 7]])
    together = cropped(data.images, crop)
    assert torch.equal(together, torch.cat([cropped(data.images[i : i + 1], crop[i : i + 1]) for i in range(6)]))
    assert torch.equal(together[1], data.images[1])


def test_augmentation_is_a_function_of_seed_and_step() -> None:
    cpu = torch.device("cpu")
    first, again, other = (augmentation("flip-crop", 64, 0, step, cpu) for step in (3, 3, 4))
    for one, two, three in zip(first, again, other, strict=True):
        assert one is not None
        assert two is not None
        assert three is not None
        assert torch.equal(one, two)
        assert not torch.equal(one, three)
    assert augmentation("none", 64, 0, 3, cpu) == (None, None)
    flip, crop = augmentation("flip", 64, 0, 3, cpu)
    assert crop is None
    assert flip is not None
    assert first[0] is not None
    assert torch.equal(flip, first[0])


PAPER = TrainParams(
    epochs=6, batch_size=16, optimiser="sgd", lr=0.05, schedule="multistep", milestones=(3, 5), augment="flip-crop"
)


def test_the_papers_recipe_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SGD's momentum is in the checkpoint: the training is stopped half way and started again."""
    from megu.training import loop as training

    expected = digest(train(images(), PAPER, 4, seed=0))
    assert expected != digest(train(images(), PARAMS, 4, seed=0))
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    seen: list[int] = []

    class Stop(Exception):
        pass

    class Listener:
        def start(self, label: str, total: int | None, unit: str):  # type: ignore[no-untyped-def]
            def advance(amount: int) -> None:
                seen.append(amount)
                if len(seen) == 20:
                    raise Stop

            return advance

        def stop(self, label: str) -> None: ...

    path = tmp_path / "checkpoint.safetensors"
    with listening(Listener()), pytest.raises(Stop):
        train(images(), PAPER, 4, seed=0, checkpoint=path)
    assert path.exists()
    assert digest(train(images(), PAPER, 4, seed=0, checkpoint=path)) == expected


@pytest.mark.parametrize(
    "values",
    [
        {"milestones": (2,)},
        {"schedule": "multistep", "milestones": (2, 1)},
        {"schedule": "multistep", "milestones": (0,)},
        {"schedule": "multistep", "milestones": (3,), "epochs": 3},
        {"drop": 0.0},
        {"augment": "crop"},
    ],
)
def test_a_recipe_that_cannot_be_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        TrainParams(**values)  # type: ignore[arg-type]


KILLED = """
import sys, torch
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)
from pathlib import Path
from tiny import Crossings, images
from megu.training import loop as training
from megu.training.weights import digest
training.CHECKPOINT_EVERY_S = 0.0
print(digest(training.train(images(), training.TrainParams(epochs=30, batch_size=16), 4, seed=0, checkpoint=Path({path!r}))))
"""


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """SIGKILL, so nothing can be tidied up: the next process finds what was on the disk."""
    path = tmp_path / "checkpoint.safetensors"
    program = KILLED.format(tests=str(Path(__file__).resolve().parents[1] / "support"), path=str(path))
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    end = time.monotonic() + 200
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.002)
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    assert process.communicate()[0] == b"", "it was to be killed before its end"
    assert path.exists()

    amounts: list[int] = []

    class Listener:
        def start(self, label: str, total: int | None, unit: str):  # type: ignore[no-untyped-def]
            return amounts.append

        def stop(self, label: str) -> None: ...

    params = TrainParams(epochs=30, batch_size=16)
    with listening(Listener()):
        resumed = digest(train(images(), params, 4, seed=0, checkpoint=path))
    assert amounts[0] > 0, "it began where the killed one was"
    assert resumed == digest(train(images(), params, 4, seed=0))
    assert not path.exists()


@pytest.mark.parametrize("change", ["seed", "params", "data", "damage"])
def test_a_checkpoint_of_something_else_is_ignored(tmp_path: Path, change: str) -> None:
    path = tmp_path / "checkpoint.safetensors"
    expected = digest(train(images(), PARAMS, 4, seed=0))
    model = train(images(), PARAMS, 4, seed=3)
    optimiser = torch.optim.AdamW(model.parameters())
    checkpoint.save(path, model, optimiser, 5, "another training")
    if change == "damage":
        path.write_bytes(path.read_bytes()[:-100])
    assert digest(train(images(), PARAMS, 4, seed=0, checkpoint=path)) == expected


def test_a_checkpoint_restores_model_optimiser_and_step(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "checkpoint.safetensors"
    model = train(images(), PARAMS, 4, seed=0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.3)
    model(images().batch(slice(0, 8))).sum().backward()
    optimiser.step()
    checkpoint.save(path, model, optimiser, 9, "key")
    other = train(images(), PARAMS, 4, seed=1)
    fresh = torch.optim.AdamW(other.parameters(), lr=0.1)
    assert checkpoint.restore(path, other, fresh, "another key") == 0
    assert digest(other) != digest(model)
    assert checkpoint.restore(path, other, fresh, "key") == 9
    assert digest(other) == digest(model)
    mine, theirs = fresh.state_dict()["state"], optimiser.state_dict()["state"]
    assert mine.keys() == theirs.keys()
    for index, state in theirs.items():
        for name, value in state.items():
            assert torch.equal(torch.as_tensor(mine[index][name]), torch.as_tensor(value)), (index, name)


def test_the_retrain_starts_afresh_and_sees_the_retain_set_only() -> None:
    data = images()
    retain = data.subset(np.flatnonzero(data.labels != 2))
    original, again = train(data, PARAMS, 4, seed=0), retrain(retain, PARAMS, 4, seed=0)
    for (name, mine), theirs in zip(again.named_parameters(), original.parameters(), strict=True):
        assert not torch.equal(mine, theirs), name
    assert predict(again, data.subset(np.flatnonzero(data.labels == 2))).logits.argmax(1).ne(2).all()


class Failing:
    """A loss of one weight that is NaN at one step; or, from the step ``runs_away``, has an infinite gradient."""

    def __init__(self, nan_at: int = -1, runs_away: int = -1) -> None:
        self.model = torch.nn.Linear(1, 1, bias=False)
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.nan_at, self.runs_away = nan_at, runs_away

    def at(self, step: int) -> torch.Tensor:
        weight = self.model.weight.sum()
        if step == self.runs_away:
            return weight - weight.detach() + (weight - weight.detach()) * 1e38 * 10
        return weight * float("nan") if step == self.nan_at else weight.square()

    def run(self, steps: int = 20, **more: object) -> None:
        optimise(
            self.model,
            self.optimiser,
            Objective(lambda step: (torch.tensor(step),), lambda step: self.at(int(step))),
            lambda step: 0.25,
            steps,
            seed=0,
            label="retrain",
            per_epoch=5,
            **more,  # type: ignore[arg-type]
        )


@pytest.mark.parametrize("every", [1, 7, 50])
def test_a_loss_that_is_nan_stops_the_training_and_says_where(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LOOK_EVERY", every)
    with pytest.raises(MeguError, match=r"^retrain: the loss is nan at step 13 of 20, epoch 3, learning rate 0\.25: lower"):
        Failing(nan_at=12).run()


def test_a_weight_that_is_infinite_at_the_end_is_no_result() -> None:
    with pytest.raises(MeguError, match="a weight is not finite at step 20 of 20"):
        Failing(runs_away=19).run()


def test_the_last_good_checkpoint_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    for failing, good in ((Failing(nan_at=12), 12), (Failing(runs_away=8), 8)):
        path = tmp_path / f"{good}.safetensors"
        with pytest.raises(MeguError, match=f"the last good state, after step {good}, is kept in {path}"):
            failing.run(checkpoint=path, key="k")
        other = Failing()
        assert checkpoint.restore(path, other.model, other.optimiser, "k") == good
        assert torch.isfinite(other.model.weight).all()


def test_a_look_at_the_losses_is_not_taken_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would make a CUDA device wait."""
    looks, real = [], training._not_finite
    monkeypatch.setattr(training, "_not_finite", lambda losses, model: looks.append(len(losses)) or real(losses, model))
    Failing().run(120)
    assert looks == [50, 50, 20]


def plainly(data: ImageSet, params: TrainParams, seed: int) -> torch.nn.Module:
    """The default recipe as one would write it down: everything drawn in its step, torch's AdamW as it comes."""
    model = build(params.arch, 4, 1, seed, (8, 8)).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=params.lr, weight_decay=params.weight_decay)
    per_epoch = len(data) // params.batch_size
    steps = params.epochs * per_epoch
    for step in range(steps):
        epoch, within = divmod(step, per_epoch)
        order = torch.randperm(len(data), generator=generator(derive(seed, "train"), "order", epoch))
        index = order[within * params.batch_size : (within + 1) * params.batch_size]
        flip = torch.rand(len(index), generator=generator(seed, "flip", step)) < 0.5
        pixels = data.images[index]
        pixels = torch.where(flip[:, None, None, None], pixels.flip(3), pixels)
        for group in optimiser.param_groups:
            group["lr"] = one_cycle(step, steps, params.lr, params.warmup)
        with torch.autocast("cpu", fast_dtype(CPU), enabled=fast_dtype(CPU) != torch.float32):
            logits = model(data.normalise(pixels))
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(logits.float(), data.labels[index]).backward()
        optimiser.step()
    return model


@pytest.mark.parametrize("fast", [True, False], ids=["as the hardware has it", "float32"])
def test_the_default_recipe_is_the_plain_loop_to_the_bit(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """More steps than are drawn at once, so that the blocks' edges are among them."""
    if not fast:
        monkeypatch.setattr(device, "fast_dtype", lambda where: torch.float32)
        monkeypatch.setitem(globals(), "fast_dtype", lambda where: torch.float32)
    params = TrainParams(epochs=12, batch_size=16)
    assert params.epochs * (len(images()) // 16) > training.DRAWN_AT_ONCE
    assert digest(train(images(), params, 4, seed=7)) == digest(plainly(images(), params, seed=7))


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_step_asks_nothing_of_the_device_and_takes_nothing_to_it(optimiser: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On torch's meta device there are no values: whatever would wait for one (item, cpu, nonzero, bool) raises."""
    monkeypatch.setattr(training, "_not_finite", lambda losses, model: None)
    monkeypatch.setattr(device, "fast_dtype", lambda where: torch.float32)
    meta = torch.device("meta")
    data = images()
    there = ImageSet(*(tensor.to(meta) for tensor in (data.images, data.labels, data.mean, data.std)))
    model = build("resnet-compact", 4, 1, 0).to(meta)
    params = TrainParams(epochs=3, batch_size=16, augment="flip-crop", optimiser=optimiser)  # type: ignore[arg-type]
    with Crossings() as crossings:
        fit(model, there, params, seed=12345 + len(optimiser))
    assert crossings.count == 3 + 2, "an order an epoch, flips and crops once; and 18 steps"


def test_what_would_wait_for_the_device_is_seen_by_that_test() -> None:
    model = torch.nn.Linear(1, 1, bias=False, device="meta")
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)

    def reading() -> torch.Tensor:
        loss = model.weight.square().sum()
        return loss * float(loss.detach())

    with pytest.raises((RuntimeError, NotImplementedError), match=r"(?i)meta"):
        optimise(model, optimiser, Objective(lambda step: (), reading), lambda step: 0.1, 1, seed=0)


def test_a_set_on_disk_is_asked_for_by_the_positions_of_the_cpu() -> None:
    data = images()
    on_disk = ImageSet(data.images, data.labels, data.mean, data.std, torch.arange(len(data)))
    there = ImageSet(data.images, data.labels.to("meta"), data.mean, data.std, torch.arange(len(data)))
    assert data.home == on_disk.home == there.home == CPU
    assert ImageSet(data.images.to("meta"), there.labels, data.mean, data.std).home == torch.device("meta")


def test_a_compiled_model_is_trained_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a compiler that changes nothing: the weights, their names and the checkpoint's are the model's own."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: real(model, backend="eager"))
    assert digest(train(images(), replace(PARAMS, compile="on"), 4, seed=0)) == digest(train(images(), PARAMS, 4, seed=0))


def test_predictions_have_features_on_request() -> None:
    model = train(images(), PARAMS, 4, seed=0)
    with_features = predict(model, images(), features=True, batch_size=7)
    assert with_features.features is not None
    assert with_features.features.shape == (96, 128)
    assert (with_features.features >= 0).all()
    with torch.inference_mode():
        torch.testing.assert_close(model.classify(with_features.features), with_features.logits)  # type: ignore[operator]
    assert predict(model, images()).features is None
    torch.testing.assert_close(predict(model, images()).logits, with_features.logits, atol=1e-4, rtol=1e-4)
