"""megu on a device that keeps CUDA's rules (`pretend_cuda`): the numbers of the CPU, and no wait inside a step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from method_fixtures import RECIPE, context, original
from pretend_cuda import CUDA, NOT_DETERMINISTIC, OnDevice, Pretending, Wait, pretending
from tiny import images
from torch import Tensor, nn

import megu.core.device
from megu import models
from megu.core.device import measured, sent
from megu.data.arrays import Dataset, save
from megu.data.tensors import ImageSet, mapped
from megu.evaluation.params import RelearnParams
from megu.evaluation.relearning import relearn
from megu.models import foreign
from megu.training import loop as training
from megu.training.loop import TrainParams, predict, train
from megu.training.weights import ModelInfo, digest, load_model, save_weights
from megu.unlearning.labels.calibration import Calibration
from megu.unlearning.labels.perturbing import PerturbParams, perturb
from megu.unlearning.methods import METHODS
from megu.unlearning.noise import NoiseBank, NoiseParams, make_noise_bank

__all__ = ["original"]

FAST_DTYPE = megu.core.device.fast_dtype
FUSING = (
    "megu.training.loop",
    "megu.unlearning.methods.common",
    "megu.unlearning.noise",
    "megu.evaluation.relearning",
    "megu.evaluation.deep",
)
#: Loops in which the device must never be waited for, and what is known to wait in them: the looks at the losses and the checkpoints.
LOOPS = {"optimise", "each_gradient", "answers", "nearest_wrong"}
LOOKS = {"_not_finite", "save", "restore"}


@pytest.fixture(autouse=True)
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """What CUDA would choose on the CPU too, so that the two can be compared: fused optimisers. float32, unless a test says otherwise."""
    torch.set_num_threads(1)
    for module in FUSING:
        monkeypatch.setattr(f"{module}.fused", lambda model: True)
    multiply_in(torch.float32, monkeypatch)


def multiply_in(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(megu.core.device, "fast_dtype", lambda device: dtype)


@pytest.fixture
def cuda() -> Iterator[Pretending]:
    with pretending() as device:
        yield device


def moved(data: ImageSet) -> ImageSet:
    """On the device; of a set on disk, what is not images."""
    parts = ("labels", "mean", "std") if data.rows is not None else ("pixels", "labels", "mean", "std")
    return replace(data, **{name: getattr(data, name).to(CUDA) for name in parts})


def on_disk(data: ImageSet) -> ImageSet:
    return replace(data, pixels=mapped(data.pixels.permute(0, 2, 3, 1).numpy()), rows=torch.arange(len(data)))


def in_loops(waits: list[Wait]) -> list[Wait]:
    return [wait for wait in waits if LOOPS & set(wait.functions) and not LOOKS & set(wait.functions)]


def fits(cuda: Pretending) -> None:
    """Since the last look no loop waited, and nothing was computed that a deterministic CUDA refuses."""
    assert not in_loops(cuda.looked())
    assert not cuda.operations & NOT_DETERMINISTIC


A, B = torch.arange(6.0).reshape(2, 3), torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a: a + A,
        lambda a: a @ A.T,
        lambda a: torch.cat([a, A]),
        lambda a: a.index_add(0, torch.tensor([0]), a[:1]),
        lambda a: A[a[0].long()],
        lambda a: torch.cat([a.flatten(), torch.tensor(1.0).view(1)]),
        lambda a: torch.tensor(1.0).add_(a[0, 0]),
        lambda a: a.gather(1, torch.zeros(2, 1, dtype=torch.int64)),
        lambda a: torch.rand(3, device=CUDA, generator=torch.Generator()),
        lambda a: a.uniform_(generator=torch.Generator()),
        lambda a: a.numpy(),
        np.asarray,
        lambda a: a.pin_memory(),
        lambda a: torch.where(a > 1, a, A),
        lambda a: torch._fused_sgd_(
            [a],
            [a.T.contiguous().T],
            [a.clone()],
            weight_decay=0,
            momentum=0.9,
            lr=1,
            dampening=0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        ),
        lambda a: torch.cuda.reset_peak_memory_stats(CUDA),
    ],
)
def test_what_cuda_refuses_is_refused(wrong: Callable[[Tensor], object], cuda: Pretending) -> None:
    with pytest.raises((RuntimeError, TypeError)):
        wrong(A.to(CUDA))


@pytest.mark.parametrize(
    ("asks", "waits"),
    [
        (lambda a: a * 2 + 1, 0),
        (lambda a: a + torch.tensor(2.0), 0),
        (lambda a: a[:, 1:].sum(1).clamp(min=1), 0),
        (lambda a: a[torch.arange(2, device=CUDA)], 0),
        (lambda a: a.masked_fill(a > 2, 0.0), 0),
        (lambda a: a.clone().index_put_((a > 2,), torch.tensor(0.0)), 0),
        (lambda a: a.to(torch.float64).to(CUDA), 0),
        (lambda a: torch.where(a > 2, a, 0.0), 0),
        (lambda a: sent(B, CUDA), 0),
        (lambda a: B.to(CUDA), 1),
        (lambda a: B.to(CUDA, non_blocking=True), 1),
        (lambda a: torch.tensor([1.0], device=CUDA), 1),
        (lambda a: a[torch.tensor([1])], 1),
        (lambda a: a[a > 2], 1),
        (lambda a: a.cpu(), 1),
        (lambda a: a.sum().item(), 1),
        (lambda a: bool((a > 2).any()), 1),
        (lambda a: a.nonzero(), 1),
        (torch.unique, 1),
        (lambda a: a.repeat_interleave(torch.tensor([1, 2], device=CUDA), dim=0), 2),
        (lambda a: torch.cuda.synchronize(), 1),
    ],
)
def test_what_cuda_waits_for_is_seen_and_what_it_does_not_is_not(
    asks: Callable[[Tensor], object], waits: int, cuda: Pretending
) -> None:
    a = A.to(CUDA)
    cuda.looked()
    asks(a)
    assert len(cuda.looked()) == waits


def test_a_gpu_that_emulates_bfloat16_multiplies_in_float32() -> None:
    for supported, expected in ((False, torch.float32), (True, torch.bfloat16)):
        with pretending(bfloat16=supported):
            assert FAST_DTYPE(CUDA) == expected


def test_the_numbers_and_gradients_are_the_cpus(cuda: Pretending) -> None:
    def slope(a: Tensor) -> tuple[Tensor, Tensor]:
        weight = a.clone().requires_grad_(True)
        out = torch.relu(weight @ a.T - 1).square().sum()
        out.backward()  # type: ignore[no-untyped-call]
        assert weight.grad is not None
        return out.detach(), weight.grad

    for one, other in zip(slope(A), slope(A.to(CUDA)), strict=True):
        assert isinstance(other, OnDevice)
        assert torch.equal(one, other.cpu())


def test_a_wait_names_the_line_of_megu_that_it_was_called_from(cuda: Pretending) -> None:
    predict(models.build("resnet-compact", 4, 1, 0).to(CUDA), moved(images(8)))
    (wait,) = [wait for wait in cuda.looked() if "predict" in wait.functions]
    assert wait.what == "a copy to the CPU"
    number = int(wait.lines[0].removeprefix("training/loop.py:"))
    assert ".cpu()" in Path(training.__file__).read_text().splitlines()[number - 1]


RECIPES = {
    "sgd": TrainParams(epochs=2, batch_size=16, augment="flip-crop", optimiser="sgd"),
    "adamw": TrainParams(epochs=2, batch_size=16, label_smoothing=0.1),
    "multistep": TrainParams(epochs=2, batch_size=16, augment="none", optimiser="sgd", schedule="multistep", milestones=(1,)),
    "resnet18": TrainParams(epochs=1, batch_size=24, arch="resnet18"),
}


@pytest.mark.parametrize(("recipe", "place"), [*((name, "memory") for name in RECIPES), ("sgd", "disk"), ("adamw", "disk")])
def test_training_has_the_cpus_bits_and_waits_for_nothing(recipe: str, place: str, cuda: Pretending) -> None:
    data, params = images(48), RECIPES[recipe]
    expected = train(data, params, 4, seed=0)
    given = moved(on_disk(data) if place == "disk" else data)
    cuda.looked()
    found = train(given, params, 4, seed=0)
    waits = cuda.looked()
    assert digest(found) == digest(expected)
    assert not in_loops(waits)
    assert [wait for wait in waits if "_not_finite" in wait.functions], "the looks at the losses are seen"


def test_a_wait_in_a_step_would_be_seen(cuda: Pretending, monkeypatch: pytest.MonkeyPatch) -> None:
    params = replace(RECIPES["adamw"], epochs=1)
    for name, value in (("training.loop.sent", lambda tensor, device: tensor.to(device)), ("data.tensors.ImageSet.home", CUDA)):
        data = moved(on_disk(images(48)))
        cuda.looked()
        with monkeypatch.context() as patch:
            patch.setattr(f"megu.{name}", value)
            train(data, params, 4, seed=name.count("."))
        assert in_loops(cuda.looked())


def test_bfloat16_has_the_cpus_bits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    multiply_in(torch.bfloat16, monkeypatch)
    data, params = images(32), replace(RECIPES["sgd"], epochs=1)
    expected = train(data, params, 4, seed=0)
    with pretending(bfloat16=True) as cuda:
        found = train(moved(data), params, 4, seed=0)
        assert digest(found) == digest(expected)
        fits(cuda)


def test_the_vision_transformer_trains_to_the_cpus_weights_and_waits_for_nothing(cuda: Pretending) -> None:
    """Attention is computed by its formula on the one and by a kernel of the CPU on the other."""
    data, params = images(16), TrainParams(arch="vit-tiny", epochs=1, batch_size=16, lr=1e-3, augment="none", optimiser="sgd")
    expected = train(data, params, 4, seed=0)
    found = train(moved(data), params, 4, seed=0)
    fits(cuda)
    for name, entry in found.state_dict().items():
        torch.testing.assert_close(entry.cpu(), expected.state_dict()[name], atol=1e-5, rtol=1e-4)


def test_a_training_that_is_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, cuda: Pretending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    real, path = training.checkpoints.save, tmp_path / "checkpoint.safetensors"

    def save_then_stop(*arguments: Any) -> None:
        real(*arguments)
        if arguments[3] == 4:
            raise KeyboardInterrupt

    for params in (RECIPES["sgd"], RECIPES["adamw"]):
        expected = digest(train(images(48), params, 4, seed=0))
        data = moved(images(48))
        with monkeypatch.context() as patch:
            patch.setattr(training.checkpoints, "save", save_then_stop)
            with pytest.raises(KeyboardInterrupt):
                train(data, params, 4, seed=0, checkpoint=path)
        cuda.looked()
        assert digest(train(data, params, 4, seed=0, checkpoint=path)) == expected
        assert not in_loops(cuda.looked())


def test_predictions_are_the_cpus_and_on_the_cpu(original: nn.Module, cuda: Pretending) -> None:
    there = copy.deepcopy(original).to(CUDA)
    for data in (images(40), on_disk(images(40))):
        expected, found = (predict(model, each, features=True) for model, each in ((original, data), (there, moved(data))))
        assert torch.equal(expected.logits, found.logits)
        assert torch.equal(expected.features, found.features)  # type: ignore[arg-type]


def test_a_users_own_model_answers_there_too(cuda: Pretending) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
    here = foreign.adopt(net, "user.module:net")
    there = foreign.adopt(copy.deepcopy(net).to(CUDA), "user.module:net")
    foreign.check_output(there, "user.module:net", 4, (1, 8, 8))
    assert torch.equal(predict(here, images(8)).logits, predict(there, moved(images(8))).logits)


def test_weights_are_saved_from_the_device_and_loaded_to_it(original: nn.Module, tmp_path: Path, cuda: Pretending) -> None:
    there = copy.deepcopy(original).to(CUDA)
    assert digest(there) == digest(original)
    save_weights(tmp_path / "w.safetensors", there, ModelInfo("resnet-compact", 4, 1))
    assert digest(load_model(tmp_path / "w.safetensors")[0].to(CUDA)) == digest(original)


def test_a_data_set_goes_to_the_device_or_stays_on_disk_where_it_is_too_large(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    data: Dataset = save(
        tmp_path / "d", name="d", classes="abcd", train=(pixels, np.arange(40) % 4), test=(pixels[:4], np.arange(4))
    )
    expected = ImageSet.from_partition(data.train, data.mean, data.std, torch.device("cpu"))
    for memory in (10**9, 1):
        with pretending(memory=memory):
            found = ImageSet.from_partition(data.train, data.mean, data.std, CUDA)
            assert (found.rows is None) == (memory > 1)
            assert found.device == CUDA
            part = found.subset([3, 1, 30]).joined(found.subset(np.array([0])))
            assert torch.equal(part.batch(slice(None)).cpu(), expected.subset([3, 1, 30, 0]).batch(slice(None)))
            mixed = found.subset([3]).joined(moved(expected.subset([5])))
            assert torch.equal(mixed.images.cpu(), expected.subset([3, 5]).images)


def bank(model: nn.Module, steps: int, channels: int = 1) -> NoiseBank:
    return make_noise_bank(model, range(4), (channels, 8, 8), [2], NoiseParams(per_label=3, steps=steps), seed=0)


@pytest.mark.parametrize("arch", ["resnet-compact", "vit-tiny", "flat"])
def test_the_noise_is_the_cpus_and_its_steps_wait_for_nothing(arch: str, cuda: Pretending) -> None:
    """Three channels: the noise lies channels last, and not every model's gradient does."""
    here = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)) if arch == "flat" else models.build(arch, 4, 3, 0, (8, 8))
    there = copy.deepcopy(here).to(CUDA)
    expected = bank(here, 4, channels=3)
    waits = []
    for steps in (2, 4):
        cuda.looked()
        found = bank(there, steps, channels=3)
        waits.append(len(cuda.looked()))
    assert waits[0] == waits[1]
    for one, other in ((found.positive, expected.positive), (found.negative, expected.negative)):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-3 if arch == "vit-tiny" else 0)


def test_the_noise_reaches_its_objectives_in_bfloat16(original: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    multiply_in(torch.bfloat16, monkeypatch)
    formats = set()
    with pretending(bfloat16=True):
        there = copy.deepcopy(original).to(CUDA)
        there.get_submodule("stem")[0].register_forward_hook(lambda module, inputs, output: formats.add(output.dtype))  # type: ignore[index]
        found = bank(there, 60)
    assert formats == {torch.bfloat16}
    with torch.inference_mode():
        for label in range(4):
            answers = torch.softmax(original(torch.from_numpy(found.positive[label])), dim=1)
            assert float(answers[:, label].mean()) > 0.6
        assert float(torch.softmax(original(torch.from_numpy(found.negative[0])), dim=1)[:, 2].mean()) < 0.01


#: Small settings: what is shown does not depend on how well the method forgets.
SMALL: dict[str, dict[str, Any]] = {
    **{name: {"epochs": 2, "batch_size": 16} for name in METHODS},
    "megu": {"steps": 4, "batch_size": 16, "lr": 0.01},
    "retrain": {},
    "unsir": {"noises": 4, "copies": 4, "noise_steps": 2, "per_class": 12, "batch_size": 16},
    "scrub": {"batch_size": 16, "forget_batch_size": 8},
    "ssd": {"batch_size": 16},
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in METHODS),
    *(("megu", changes) for changes in ({"noise_sides": "negative"}, {"noise_share": 0.0}, {"steering": 0.0})),
    *(
        ("megu", changes)
        for changes in ({"lr": "auto", "trial_steps": 2}, {"optimiser": "adam", "lr": 0.001}, {"retain_target": "labels"})
    ),
    ("finetune", {"schedule": "constant"}),
]


@pytest.fixture(scope="module")
def needed(original: nn.Module) -> dict[str, Any]:
    """What the methods are given beside model and data, to forget class 2."""
    train, test = images(64), images(32, seed=1)
    every, held_out = (predict(original, part).logits.numpy() for part in (train, test))
    labels, calibration = train.labels.numpy(), Calibration.of(held_out, test.labels.numpy(), every, train.labels.numpy(), (2,))
    forget = np.flatnonzero(labels == 2)
    return {
        "perturbing": perturb(np.full((4, 4), 0.25), every[forget], labels[forget], (2,), PerturbParams(), calibration),
        "noise": bank(original, 2),
        "fresh": lambda: models.fresh("resnet-compact", 4, 1),
        "recipe": replace(RECIPE, epochs=2),
    }


@pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=lambda value: value if isinstance(value, str) else "-".join(value))
def test_a_method_has_the_cpus_bits_and_its_steps_wait_for_nothing(
    name: str, changes: dict[str, Any], original: nn.Module, needed: dict[str, Any]
) -> None:
    given = context(METHODS[name].params(**{**SMALL[name], **changes}), 4, (2,), **needed)

    def run(model: nn.Module, data: ImageSet) -> str:
        forgotten = np.arange(len(data)) % 4 == 2
        return digest(METHODS[name].run(model, *(data.subset(np.flatnonzero(part)) for part in (forgotten, ~forgotten)), given))

    expected = run(original, images(64))
    with pretending() as cuda:
        model = copy.deepcopy(original).to(CUDA)
        for data in (images(64), on_disk(images(64))):
            there = moved(data)
            cuda.looked()
            assert run(model, there) == expected
            fits(cuda)


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_relearning_takes_the_cpus_steps_and_waits_for_its_looks_alone(
    place: str, original: nn.Module, cuda: Pretending
) -> None:
    lost = copy.deepcopy(original)
    with torch.no_grad():
        lost.head.bias[2] -= 20.0  # type: ignore[union-attr, operator, index]
    forget = images(64).subset(np.flatnonzero(images(64).labels.numpy() == 2))
    forget = on_disk(forget) if place == "disk" else forget
    params = RelearnParams(steps=30, batch_size=8)
    expected = relearn(lost, forget, 90.0, params, seed=0)
    there, given = copy.deepcopy(lost).to(CUDA), moved(forget)
    cuda.looked()
    assert relearn(there, given, 90.0, params, seed=0) == expected
    assert expected is not None
    assert expected > 3
    beside = [wait for wait in cuda.looked() if "accuracy" not in wait.functions and "sample_queries" not in wait.functions]
    assert not beside


def test_what_is_measured_on_the_device_is_waited_for(cuda: Pretending) -> None:
    found, cost = measured(lambda: torch.ones(3, device=CUDA) * 2, CUDA)
    assert found.tolist() == [2.0, 2.0, 2.0]
    assert cost.peak_memory_bytes == 1
    assert "synchronize" in [wait.what for wait in cuda.looked()]
