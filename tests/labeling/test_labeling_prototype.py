"""The prototype labeler on another device: the CPU's scores, and how far TF32 takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pretend_cuda import CUDA, pretending
from torch import Tensor
from torch.overrides import TorchFunctionMode

from megu.core.stages import Device
from megu.data.arrays import Dataset
from megu.labeling import ask_about
from megu.labeling.protocol import Question
from megu.labeling.prototype import PrototypeLabeler, PrototypeParams
from tasks.labeling import APART, LABELING

Scores = NDArray[np.float64]
#: What the labeler's documentation promises of a score on CUDA.
TOLERANCE = 0.01
SIZE = 64


@pytest.fixture(scope="module")
def question(fashion_mnist: Dataset) -> Question:
    return ask_about(fashion_mnist, 2, 3, seed=0)


@pytest.fixture(scope="module")
def expected(question: Question) -> Scores:
    """The CPU's."""
    return PrototypeLabeler(image_size=SIZE).judge(question).q


class InTF32(TorchFunctionMode):
    """Convolutions of what is left of their operands with ten bits of mantissa, summed in float32: what TF32 hardware does."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d:
            self.convolutions += 1
            args = (rounded(args[0]), rounded(args[1]), *args[2:])
        return func(*args, **(kwargs or {}))


def rounded(values: Tensor) -> Tensor:
    """To the nearest number that TF32 has: the last 13 of float32's 23 bits of mantissa are zero."""
    bits = values.contiguous().view(torch.int32)
    return ((bits + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)


def test_tf32_has_ten_bits_of_mantissa() -> None:
    given = torch.tensor([1.0, 1 + 2**-10, 1 + 2**-12, 1 + 2**-11 + 2**-20, -3.0])
    assert rounded(given).tolist() == [1.0, 1 + 2**-10, 1.0, 1 + 2**-10, -3.0]


def test_scores_in_tf32_are_the_cpus_within_the_tolerance(question: Question, expected: Scores) -> None:
    with InTF32() as multiplied:
        found = PrototypeLabeler(image_size=SIZE).judge(question).q
    assert multiplied.convolutions > 40
    apart = np.abs(found - expected).max()
    assert 0 < apart < TOLERANCE


def test_it_judges_on_the_device_that_it_is_given(question: Question, expected: Scores) -> None:
    with pretending() as cuda:
        found = PrototypeLabeler(image_size=SIZE, device=CUDA).judge(question).q
    assert "convolution" in " ".join(cuda.operations)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("stage", [LABELING, APART])
def test_a_judgement_is_named_by_the_class_of_its_device(stage: Any) -> None:
    parts = [stage.parts({"params": PrototypeParams(), "device": Device(name)}) for name in ("cpu", "cuda", "cuda:1")]
    assert [found["device class"] for found in parts] == ["cpu", "cuda", "cuda"]
