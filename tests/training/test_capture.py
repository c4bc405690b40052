"""Steps that are recorded: the same bits as steps that are not, whatever changes from one to the next (`recording` is the graph)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from method_fixtures import original, request
from recording import RecordedGraph
from tiny import images
from torch import Tensor, nn

from megu.core import device
from megu.core.device import CPU
from megu.core.progress import watching
from megu.core.seeds import start
from megu.evaluation import relearning
from megu.evaluation.params import RelearnParams
from megu.training import capture
from megu.training import loop as training
from megu.training.capture import WARM_UP, Captured, eagerly, recordable
from megu.training.loop import Objective, TrainParams, optimise, train
from megu.training.weights import digest
from megu.unlearning.methods import METHODS

__all__ = ["original"]

MODULES = (
    "megu.training.loop",
    "megu.unlearning.methods.common",
    "megu.unlearning.noise",
    "megu.evaluation.relearning",
    "megu.evaluation.deep",
)


class Notes:
    """Whoever reads the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage_starts(self, name: str, title: str) -> None: ...

    def stage_ends(self, name: str, *, hit: bool, seconds: float, says: str) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(autouse=True)
def recorder(monkeypatch: pytest.MonkeyPatch) -> list[RecordedGraph]:
    """The CPU can be recorded, with CUDA's fused optimisers; the graphs that were made."""
    torch.set_num_threads(1)
    made: list[RecordedGraph] = []

    def graph(device: torch.device) -> RecordedGraph:
        made.append(RecordedGraph())
        return made[-1]

    for module in MODULES:
        monkeypatch.setattr(f"{module}.fused", lambda model: True)
    for module in (capture, training):
        monkeypatch.setattr(module, "recordable", lambda device: True)
    monkeypatch.setattr(capture, "graph_on", graph)
    monkeypatch.setattr(capture, "WORTH", 5)
    monkeypatch.setattr(device, "fast_dtype", lambda device: torch.float32)
    return made


RECIPES = {
    "AdamW, one cycle": TrainParams(epochs=3, batch_size=16, augment="flip-crop"),
    "SGD, multistep": TrainParams(epochs=3, batch_size=16, optimiser="sgd", schedule="multistep", milestones=(1,), lr=0.05),
    "vit": TrainParams(arch="vit-tiny", epochs=2, batch_size=16, lr=1e-3, augment="none"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recorded_training_has_the_bits_of_one_that_is_not(name: str, recorder: list[RecordedGraph]) -> None:
    """The rate, the batches and what is drawn for them are others at every step."""
    found = digest(train(images(96), RECIPES[name], 4, seed=0))
    assert len(recorder) == 1
    with eagerly():
        assert digest(train(images(96), RECIPES[name], 4, seed=0)) == found
    assert len(recorder) == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_recorded_method_has_the_bits_of_one_that_is_not(
    method: str, original: nn.Module, recorder: list[RecordedGraph]
) -> None:
    found = digest(METHODS[method].run(original, *request(original, method)))
    assert recorder, "something was recorded"
    with eagerly():
        assert digest(METHODS[method].run(original, *request(original, method))) == found


def test_recorded_relearning_counts_the_steps_of_one_that_is_not(original: nn.Module, recorder: list[RecordedGraph]) -> None:
    """Its steps and its looks are recorded, each for itself; the looks in two shapes, since the last batch is smaller."""
    lost = copy.deepcopy(original)
    with torch.no_grad():
        lost.head.bias[2] -= 20.0  # type: ignore[union-attr, operator, index]
    forget = images(64).subset(torch.nonzero(images(64).labels == 2).flatten())
    shown, params = len(forget) - 3, RelearnParams(steps=40, batch_size=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relearning, "LOOKED_AT", shown)
        found = relearning.relearn(lost, forget, 90.0, params, seed=0)
        assert len(recorder) == 3
        with eagerly():
            assert relearning.relearn(lost, forget, 90.0, params, seed=0) == found
    assert found is not None
    assert found > WARM_UP + 1
    assert len(recorder) == 3


def test_a_training_that_is_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorder: list[RecordedGraph]
) -> None:
    params, path = replace(RECIPES["AdamW, one cycle"], epochs=4), tmp_path / "checkpoint.safetensors"
    expected = digest(train(images(96), params, 4, seed=0))
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    real = training.checkpoints.save

    def save_then_stop(*arguments: Any) -> None:
        real(*arguments)
        if arguments[3] == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.checkpoints, "save", save_then_stop)
        with pytest.raises(KeyboardInterrupt):
            train(images(96), params, 4, seed=0, checkpoint=path)
    assert digest(train(images(96), params, 4, seed=0, checkpoint=path)) == expected
    assert len(recorder) == 3


def test_a_training_that_is_compiled_on_the_way_is_recorded_anew_and_goes_on(recorder: list[RecordedGraph]) -> None:
    """With a compiler that changes nothing: no step is taken twice, and none left out."""
    start_weights, looks = nn.Linear(3, 1), list[int]()

    def trained() -> str:
        model = copy.deepcopy(start_weights)

        def looked(done: int) -> bool:
            looks.append(done)
            return done == 100

        objective = Objective(
            lambda step: (torch.full((2, 3), 0.01 * step),), lambda values: model(values).square().mean(), looked
        )
        optimise(model, torch.optim.AdamW(model.parameters(), fused=True), objective, lambda step: 0.01, 230, seed=0)
        return digest(model)

    found = trained()
    assert (len(recorder), looks) == (2, [50, 100, 150, 200])
    with eagerly():
        assert trained() == found


class Sum:
    """Work that adds up what it is given, in place, and counts how often Python ran."""

    def __init__(self) -> None:
        self.total, self.ran = torch.zeros(()), 0

    def __call__(self, values: Tensor) -> Tensor:
        self.ran += 1
        self.total.add_(values.sum())
        return self.total * 1


def test_each_shape_is_recorded_for_itself_and_every_answer_is_its_own(recorder: list[RecordedGraph]) -> None:
    work = Sum()
    take = Captured(work, nn.Identity(), CPU, 20, "sum")
    answers, expected = [], []
    for step in range(20):
        values = torch.full((4 if step % 5 else 3,), float(step))
        answers.append(take(values))
        expected.append((expected[-1] if expected else 0.0) + float(values.sum()))
    assert [float(answer) for answer in answers] == expected
    assert len(recorder) == 2
    # To warm up, and to be recorded; the other shape is met four times.
    assert work.ran == 2 * (WARM_UP + 1)


def test_a_few_calls_are_not_worth_a_recording(recorder: list[RecordedGraph]) -> None:
    take = Captured(Sum(), nn.Identity(), CPU, 4, "sum")
    for _ in range(10):
        take(torch.ones(1))
    assert not recorder


class Counting(nn.Module):
    """A model that has another factor every second call, by a number of Python."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.calls = nn.Parameter(torch.ones(())), 0

    def forward(self, values: Tensor) -> Tensor:
        self.calls += 1
        return self.weight * values * (self.calls % 2)


class Reading(nn.Module):
    """A model that asks the device for a value."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, values: Tensor) -> Tensor:
        return self.weight * values * float(values.sum())


class Drawing(nn.Module):
    """A model that draws on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, values: Tensor) -> Tensor:
        return self.weight * values * float(torch.rand(()) > 0.5)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Counting, "the model's Python state changes from step to step"),
        (Drawing, "random numbers are drawn on the CPU in its steps"),
        (Reading, "operation not permitted when stream is capturing"),
    ],
)
def test_a_model_that_cannot_be_recorded_is_trained_as_it_is_and_one_line_says_why(
    kind: Callable[[], Any], why: str, recorder: list[RecordedGraph]
) -> None:
    def trained() -> float:
        model = kind()
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
        objective = Objective(lambda step: (torch.full((2,), 0.1 * step),), lambda values: model(values).sum())
        optimise(model, optimiser, objective, lambda step: 0.01 * (step + 1), 12, seed=0, label="retrain")
        return float(model.weight.detach())

    notes = Notes()
    with watching(notes):
        found = trained()
    assert notes.notes == [f"retrain: not recorded as a CUDA graph, so slower: {why}"]
    with eagerly():
        assert trained() == found


def test_generators_that_another_thread_starts_are_no_reason_to_give_up(recorder: list[RecordedGraph]) -> None:
    """As the steps of another training do in a runner of threads, in the midst of this one's."""
    others: list[Thread] = []

    def work(values: Tensor) -> Tensor:
        others.append(Thread(target=start, args=(len(others),)))
        others[-1].start()
        others[-1].join(timeout=0.05)
        return values * 2

    take, notes = Captured(work, nn.Identity(), CPU, 20, "retrain"), Notes()
    with watching(notes):
        answers = [float(take(torch.tensor(float(step)))) for step in range(8)]
    for other in others:
        other.join(timeout=10)
        assert not other.is_alive()
    assert answers == [2.0 * step for step in range(8)]
    assert (len(recorder), notes.notes) == (1, [])


def test_only_cuda_is_recorded() -> None:
    assert not recordable(CPU)
