from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import images

from megu.core import device
from megu.core.device import CPU, device_class, fused, measured, resolve, sent, set_deterministic
from megu.core.errors import MeguError
from megu.core.stages import Device, Stage
from megu.training.loop import TrainParams, train
from megu.training.weights import digest


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process' mode is put back afterwards."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    benchmark, deterministic = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = benchmark, deterministic
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def mode() -> tuple[bool, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )


def test_a_cuda_device_comes_in_the_mode_that_is_asked_for(two_gpus: None) -> None:
    assert resolve("cuda:1 deterministic") == torch.device("cuda:1")
    assert mode() == (True, True, False)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert resolve("auto") == torch.device("cuda")
    assert mode() == (False, False, False)
    with pytest.raises(MeguError, match=r"^device = cuda:2: this machine has 2 CUDA devices"):
        resolve("cuda:2 deterministic")


def test_a_cpu_is_in_no_other_mode() -> None:
    before = mode()
    assert resolve("cpu deterministic") == CPU
    assert mode() == before


def test_the_class_of_a_device_is_what_results_depend_on(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [device_class(name) for name in ("cpu", "cuda:1", "auto", "cuda:0 deterministic", "auto deterministic")] == [
        "cpu",
        "cuda",
        "cuda",
        "cuda deterministic",
        "cuda deterministic",
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_class("auto") == device_class("auto deterministic") == device_class("cpu deterministic") == "cpu"


def test_the_mode_of_a_cuda_device_is_in_the_key_of_a_result() -> None:
    stage = Stage("one", "One", lambda project, device: None)  # type: ignore[arg-type, return-value]
    parts = [stage.parts({"device": Device.of(name, yes)}) for name, yes in (("cuda:1", True), ("cuda", True), ("cuda", False))]
    assert parts[0] == parts[1] != parts[2]
    assert stage.parts({"device": Device.of("cpu", True)}) == stage.parts({"device": Device.of("cpu", False)})


def test_training_needs_no_operation_without_a_deterministic_form_and_gives_the_same_bits(two_gpus: None) -> None:
    torch.set_num_threads(1)
    params = TrainParams(epochs=1, batch_size=16, augment="flip-crop")
    expected = digest(train(images(), params, 4, seed=0))
    set_deterministic(True)
    assert digest(train(images(), params, 4, seed=0)) == expected


def test_the_peak_of_memory_is_what_the_work_held_and_not_what_came_before() -> None:
    size = 300_000_000
    _, first = measured(lambda: torch.ones(size, dtype=torch.uint8).sum(), CPU)
    _, second = measured(lambda: None, CPU)
    assert first.peak_memory_bytes > size
    if Path("/proc/self/clear_refs").exists():
        assert first.peak_memory_bytes - second.peak_memory_bytes > 0.8 * size
    assert first.seconds > second.seconds > 0


def test_where_the_system_does_not_say_the_peak_is_that_of_the_whole_process(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cost = measured(lambda: None, CPU)

    def absent(*arguments: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    monkeypatch.setattr(Path, "write_text", absent)
    assert measured(lambda: None, CPU)[1].peak_memory_bytes >= cost.peak_memory_bytes * 0.9


def test_optimisers_are_fused_on_cuda_alone() -> None:
    model = torch.nn.Linear(1, 1)
    assert not fused(model)
    assert not fused(torch.nn.ReLU()), "without weights too"

    class Elsewhere(torch.nn.Module):
        def parameters(self, recurse: bool = True):  # type: ignore[no-untyped-def]
            yield type("OnCuda", (), {"device": torch.device("cuda", 0)})()

    assert fused(Elsewhere())


def test_what_is_sent_to_cuda_goes_through_pinned_memory_without_waiting() -> None:
    calls: list[object] = []

    class Spied:
        def pin_memory(self) -> Spied:
            calls.append("pinned")
            return self

        def to(self, where: torch.device, non_blocking: bool = False) -> Spied:
            calls.append((where.type, non_blocking))
            return self

    sent(Spied(), torch.device("cuda"))  # type: ignore[arg-type]
    sent(Spied(), CPU)  # type: ignore[arg-type]
    assert calls == ["pinned", ("cuda", True), ("cpu", False)]


def test_products_are_fast_only_where_the_hardware_is(monkeypatch: pytest.MonkeyPatch) -> None:
    a = torch.ones(2, 2)
    for dtype in (torch.bfloat16, torch.float32):
        monkeypatch.setattr(device, "fast_dtype", lambda where, dtype=dtype: dtype)
        with device.fast(CPU):
            assert (a @ a).dtype == dtype
