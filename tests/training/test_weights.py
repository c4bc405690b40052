from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from megu.core.errors import MeguError
from megu.models import build
from megu.training.weights import ModelInfo, digest, load_model, save_weights, to_bytes

INFO = ModelInfo("resnet-compact", 4, 1)


def test_weights_come_back(tmp_path: Path) -> None:
    model = build("resnet-compact", 4, 1, seed=0)
    save_weights(tmp_path / "a.safetensors", model, INFO)
    loaded, info = load_model(tmp_path / "a.safetensors")
    assert info == INFO
    assert digest(loaded) == digest(model)
    assert not loaded.training
    assert (tmp_path / "a.safetensors").read_bytes() == to_bytes(model, INFO)


def test_the_digest_sees_one_bit() -> None:
    model = build("resnet-compact", 4, 1, seed=0)
    before = digest(model)
    with torch.no_grad():
        model.head.bias[0] = torch.nextafter(model.head.bias[0], torch.tensor(9.0))  # type: ignore[union-attr, index, operator]
    assert digest(model) != before


def test_building_does_not_disturb_other_draws() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    assert digest(build("resnet-compact", 4, 1, seed=1)) != digest(build("resnet-compact", 4, 1, seed=2))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state, "epoch": 3}])
def test_a_state_dictionary_of_torch_is_read_without_running_code(tmp_path: Path, wrap: Any) -> None:
    model = build("resnet-compact", 4, 1, seed=0)
    path = tmp_path / "a.pth"
    torch.save(wrap(model.state_dict()), path)
    with pytest.raises(MeguError, match="does not state its architecture"):
        load_model(path)
    loaded, info = load_model(path, INFO)
    assert info == INFO
    assert digest(loaded) == digest(model)


@pytest.mark.parametrize("content", ["model", "number", "nothing"])
def test_a_pickled_model_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.pt"
    if content == "nothing":
        path.write_bytes(b"nothing")
    else:
        torch.save({"model": torch.nn.Linear(1, 1)} if content == "model" else 3, path)
    with pytest.raises(MeguError) as raised:
        load_model(path, INFO)
    assert "state dictionary" in raised.value.what
    assert "\n" not in str(raised.value)
    if content == "model":
        assert "pickled objects, which are never loaded" in raised.value.what


def test_an_architecture_of_one_size_says_which(tmp_path: Path) -> None:
    info = ModelInfo.of("vit-tiny", 3, (1, 12, 10))
    assert info == ModelInfo("vit-tiny", 3, 1, (12, 10))
    assert ModelInfo.of("resnet18", 3, (1, 12, 10)) == ModelInfo("resnet18", 3, 1)
    save_weights(tmp_path / "a.safetensors", info.build(), info)
    loaded, found = load_model(tmp_path / "a.safetensors")
    assert found == info
    assert loaded(torch.zeros(2, 1, 12, 10)).shape == (2, 3)


def test_a_file_that_is_none_or_does_not_fit_is_said(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(MeguError, match="not a safetensors weights file"):
        load_model(path)
    save_file({"x": torch.zeros(1)}, str(path))
    with pytest.raises(MeguError, match="does not state its architecture"):
        load_model(path)
    save_weights(path, build("resnet-compact", 4, 1, seed=0), ModelInfo("resnet-9000", 4, 1))
    with pytest.raises(MeguError, match="resnet-9000"):
        load_model(path)
    save_weights(path, build("resnet-compact", 4, 1, seed=0), ModelInfo("resnet-compact", 5, 1))
    with pytest.raises(MeguError, match="does not fit"):
        load_model(path)


def written(path: Path, state: dict[str, torch.Tensor]) -> Path:
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({name: tensor.contiguous() for name, tensor in state.items()}, str(path))
    else:
        torch.save(state, path)
    return path


def spoilt(value: float) -> dict[str, torch.Tensor]:
    state = build("resnet-compact", 4, 1, seed=0).state_dict()
    state["head.weight"][0, 1] = value
    return state


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, suffix: str, value: float) -> None:
    path = written(tmp_path / f"a{suffix}", spoilt(value))
    with pytest.raises(MeguError) as raised:
        load_model(path, INFO, "original.weights: mine.pt")
    assert raised.value.what.startswith("original.weights: mine.pt: head.weight has 1 of ")
    assert "not finite" in raised.value.what


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".pt2"])
@pytest.mark.parametrize("content", ["empty", "cut", "no weights", "text"])
def test_a_file_without_weights_is_one_line_that_names_the_users_file(tmp_path: Path, suffix: str, content: str) -> None:
    path = tmp_path / f"a{suffix}"
    if content in ("cut", "no weights"):
        state = {} if content == "no weights" else build("resnet-compact", 4, 1, seed=0).state_dict()
        written(path if suffix != ".pt2" else tmp_path / "a.pt", state)
        whole = (path if suffix != ".pt2" else tmp_path / "a.pt").read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if content == "cut" else whole)
    else:
        path.write_bytes(b"" if content == "empty" else b"weights: 3\n")
    with pytest.raises(MeguError) as raised:
        load_model(path, INFO, "mine")
    assert str(raised.value).startswith("mine ")
    assert "\n" not in str(raised.value)
    assert str(tmp_path) not in str(raised.value)
    if content == "empty":
        assert "it is empty" in raised.value.what


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types_are_converted(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in build("resnet-compact", 4, 1, seed=0).state_dict().items()
    }
    model, _ = load_model(written(tmp_path / "a.safetensors", state), INFO)
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    assert torch.equal(model.get_parameter("head.weight"), state["head.weight"].float())


def test_types_that_would_change_the_numbers_are_refused(tmp_path: Path) -> None:
    state = build("resnet-compact", 4, 1, seed=0).state_dict()
    wrong = {"int8": torch.ones(state["head.weight"].shape, dtype=torch.int8), "complex": torch.ones(3, dtype=torch.complex64)}
    for said, tensor in {**wrong, "inf": torch.full(state["head.weight"].shape, 1e300, dtype=torch.float64)}.items():
        path = written(tmp_path / f"{said}.safetensors", {**state, "head.weight": tensor})
        with pytest.raises(MeguError, match=rf"head\.weight (is {said}|has \d+ of \d+ numbers)"):
            load_model(path, INFO)
    sparse = written(tmp_path / "sparse.pt", {**state, "head.weight": state["head.weight"].to_sparse()})
    with pytest.raises(MeguError, match=r"head\.weight is sparse"):
        load_model(sparse, INFO)
    transposed = written(tmp_path / "shape.pt", {**state, "head.weight": state["head.weight"].T})
    with pytest.raises(MeguError, match=r"does not fit the architecture resnet-compact \(size mismatch for head\.weight"):
        load_model(transposed, INFO)
