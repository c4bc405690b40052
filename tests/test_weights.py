from __future__ import annotations

from pathlib import Path

import pytest
import torch

from megu.errors import MeguError
from megu.models import MODELS, build
from megu.weights import ModelInfo, digest, load_model, save_weights, to_bytes

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


@pytest.mark.parametrize("arch", MODELS)
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
def test_every_architecture_takes_grey_and_colour(arch: str, channels: int, size: int) -> None:
    model = build(arch, 7, channels, seed=0).eval()
    images = torch.randn(2, channels, size, size)
    features = model.features(images)  # type: ignore[operator]
    assert features.shape[0] == 2
    assert features.ndim == 2
    assert (features >= 0).all()
    torch.testing.assert_close(model(images), model.classify(features))  # type: ignore[operator]
    assert model(images).shape == (2, 7)


def test_building_does_not_disturb_other_draws() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    assert digest(build("resnet-compact", 4, 1, seed=1)) != digest(build("resnet-compact", 4, 1, seed=2))
    assert torch.equal(torch.rand(1), expected)


def test_a_file_that_is_none_or_does_not_fit_is_said(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(MeguError, match="not a safetensors weights file"):
        load_model(path)
    save_file({"x": torch.zeros(1)}, str(path))
    with pytest.raises(MeguError, match="nothing of its architecture"):
        load_model(path)
    save_weights(path, build("resnet-compact", 4, 1, seed=0), ModelInfo("resnet-9000", 4, 1))
    with pytest.raises(MeguError, match="resnet-9000"):
        load_model(path)
    save_weights(path, build("resnet-compact", 4, 1, seed=0), ModelInfo("resnet-compact", 5, 1))
    with pytest.raises(MeguError, match="does not fit"):
        load_model(path)
