"""Every architecture, ours and the user's: shapes, features, noise, and what is said of a model that does not fit."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import images
from torch import nn

from megu import models
from megu.core import plugins
from megu.core.errors import MeguError
from megu.models import MODELS, build, parameters
from megu.models.vit import PATCH
from megu.training.loop import TrainParams, predict, train
from megu.training.weights import ModelInfo, digest, load_model, save_weights
from megu.unlearning.noise import NoiseParams, make_noise_bank

SMALL = [arch for arch in MODELS if arch != "vit-b-16"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("arch", SMALL)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 9, 14)])
def test_every_architecture_takes_grey_and_colour(arch: str, shape: tuple[int, int, int]) -> None:
    model = build(arch, 7, shape[0], seed=0, image_size=shape[1:]).eval()
    inputs = torch.randn(2, *shape)
    features = model.features(inputs)  # type: ignore[operator]
    assert features.shape[0] == 2
    assert features.ndim == 2
    torch.testing.assert_close(model(inputs), model.classify(features))  # type: ignore[operator]
    assert model(inputs).shape == (2, 7)
    if arch.startswith("resnet"):
        assert (features >= 0).all()


@pytest.mark.parametrize("arch", SMALL)
def test_noise_and_features_work_for_every_architecture(arch: str) -> None:
    data = images(8, channels=3)
    model = build(arch, 4, 3, seed=0, image_size=(8, 8)).eval()
    before = digest(model)
    bank = make_noise_bank(model, range(4), data.shape, [1], NoiseParams(per_label=2, steps=2), seed=0)
    assert bank.positive.shape == (4, 2, 3, 8, 8)
    assert bank.negative.shape == (1, 2, 3, 8, 8)
    assert digest(model) == before
    found = predict(model, data, features=True, batch_size=3)
    assert found.features is not None
    assert found.features.shape[0] == 8
    with torch.inference_mode():
        torch.testing.assert_close(model.classify(found.features), found.logits)  # type: ignore[operator]


@pytest.mark.parametrize("arch", ["resnet18", "vit-tiny"])
def test_a_training_gives_the_same_bits_again(arch: str) -> None:
    params = TrainParams(arch=arch, epochs=1, batch_size=8)
    first, again = (digest(train(images(16), params, 4, seed=0)) for _ in range(2))
    assert first == again


def test_resnet18_is_the_known_network() -> None:
    """The weights of a ResNet-18 with a CIFAR stem for ten colour classes, counted by hand.

    stem 3*64*9 + 128; layer1 4 (64*64*9 + 128); layer2..4, each of width w: (w/2 + 3 w) w 9 + w/2 w + 5 * 2 w; head 512 * 10 + 10.
    """
    expected = 3 * 64 * 9 + 128 + 4 * (64 * 64 * 9 + 128) + 512 * 10 + 10
    expected += sum((w // 2 + 3 * w) * w * 9 + w // 2 * w + 5 * 2 * w for w in (128, 256, 512))
    assert expected == 11_173_962
    assert parameters("resnet18", 10, 3, (32, 32)) == expected
    assert sum(p.numel() for p in build("resnet18", 10, 3, seed=0).parameters()) == expected
    stem = build("resnet18", 10, 3, seed=0).get_submodule("conv1")
    assert isinstance(stem, nn.Conv2d)
    assert (stem.kernel_size, stem.stride) == ((3, 3), (1, 1))


def test_resnet18s_layers_have_torchvisions_names() -> None:
    from megu.core.vision import import_torchvision

    import_torchvision()
    from torchvision.models import resnet18

    theirs = resnet18(num_classes=10).state_dict()
    ours = build("resnet18", 10, 3, seed=0).state_dict()
    assert list(ours) == list(theirs)
    assert {name for name in ours if ours[name].shape != theirs[name].shape} == {"conv1.weight"}


@given(height=st.integers(4, 13), width=st.integers(4, 13))
@settings(max_examples=8)
def test_the_vits_tokens_cover_the_image(height: int, width: int) -> None:
    model = build("vit-tiny", 2, 1, seed=0, image_size=(height, width))
    positions = model.get_parameter("positions")
    assert positions.shape[1] == -(-height // PATCH) * -(-width // PATCH) + 1
    picture = torch.randn(1, 1, height, width, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.features(picture).square().sum(), picture)  # type: ignore[operator]
    assert (gradient != 0).all(), "every pixel is seen"


@pytest.mark.slow
def test_vit_b_16_is_torchvisions_with_our_methods() -> None:
    from megu.core.vision import import_torchvision

    torchvision = import_torchvision()
    model = build("vit-b-16", 5, 1, seed=0).eval()
    theirs = torchvision.models.vit_b_16(num_classes=5).eval()
    theirs.load_state_dict(model.state_dict())
    picture = torch.randn(1, 1, 12, 12)
    large = torch.nn.functional.interpolate(picture.expand(-1, 3, -1, -1), size=(224, 224), mode="bilinear")
    with torch.no_grad():
        features = model.features(picture)  # type: ignore[operator]
        torch.testing.assert_close(model(picture), theirs(large))
        torch.testing.assert_close(model.classify(features), theirs(large))  # type: ignore[operator]
    assert features.shape == (1, 768)
    assert parameters("vit-b-16", 1000, 3, (32, 32)) == 86_567_656, "the number torchvision states"
    with pytest.raises(MeguError, match="1 or 3 channels"):
        build("vit-b-16", 5, 2, seed=0)


MINE = """
import torch
from torch import nn
from mine import helper

class Plain(nn.Module):
    def __init__(self, num_classes, channels):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(channels, helper.WIDTH, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(helper.WIDTH, 6), nn.ReLU(), nn.Linear(6, num_classes))
    def forward(self, x):
        return self.classifier(self.features(x))

class Own(nn.Module):
    def __init__(self, num_classes, channels):
        super().__init__()
        self.body = nn.Conv2d(channels, helper.WIDTH, 3)
        self.head = nn.Linear(helper.WIDTH, num_classes)
    def features(self, x):
        return self.body(x).mean(dim=(2, 3))
    def classify(self, features):
        return self.head(features) / 2
    def forward(self, x):
        return self.classify(self.features(x))

class Softmax(Plain):
    def forward(self, x):
        return super().forward(x).softmax(1)

def build(num_classes, channels): return Plain(num_classes, channels)
def own(num_classes, channels): return Own(num_classes, channels)
def ten(num_classes, channels): return Plain(10, channels)
def grey(num_classes, channels): return Plain(num_classes, 1)
def softmax(num_classes, channels): return Softmax(num_classes, channels)
def convolutional(num_classes, channels): return nn.Conv2d(channels, num_classes, 3)
def number(num_classes, channels): return 3
def broken(num_classes, channels): raise RuntimeError("no\\nmodel today")
def flat(num_classes, channels): return nn.Sequential(nn.Flatten(), nn.Linear(channels * 64, 5), nn.ReLU(), nn.Linear(5, num_classes))
CONSTANT = 3
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package in the working directory, where the console script would not look by itself."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("")
    (tmp_path / "mine" / "helper.py").write_text("WIDTH = 8\n")
    (tmp_path / "mine" / "models.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        monkeypatch.delitem(sys.modules, name)
    yield tmp_path / "mine"
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]


def test_a_model_without_our_methods_gets_them(mine: Path) -> None:
    data = images(8, channels=3)
    model = build("mine.models:build", 4, 3, seed=0, image_size=(8, 8)).eval()
    found = predict(model, data, features=True)
    assert found.features is not None
    assert found.features.shape == (8, 6), "what the last of its two linear layers receives"
    with torch.inference_mode():
        torch.testing.assert_close(model.classify(found.features), model(data.batch(slice(None))))  # type: ignore[operator]
    assert set(model.state_dict()) == {
        f"{name}.{kind}" for name in ("features.0", "classifier.1", "classifier.3") for kind in ("weight", "bias")
    }, "its state keeps its names"
    assert digest(copy.deepcopy(model)) == digest(model) == digest(build("mine.models:build", 4, 3, 0, (8, 8)))
    assert make_noise_bank(model, range(4), data.shape, [1], NoiseParams(per_label=1, steps=2), seed=0).positive.shape[0] == 4


def test_a_model_with_our_methods_is_taken_as_it_is(mine: Path) -> None:
    model = build("mine.models:own", 4, 3, seed=0, image_size=(8, 8))
    assert type(model).__name__ == "Own"
    assert predict(model, images(8, channels=3), features=True).features.shape == (8, 8)  # type: ignore[union-attr]


def test_a_users_model_trains_and_resumes_by_its_own_names(mine: Path, tmp_path: Path) -> None:
    params = TrainParams(arch="mine.models:build", epochs=1, batch_size=4)
    trained = train(images(8), params, 4, seed=0, checkpoint=tmp_path / "c")
    assert digest(trained) == digest(train(images(8), params, 4, seed=0))


def test_a_users_model_of_one_image_size_comes_back_from_its_file(mine: Path, tmp_path: Path) -> None:
    info = ModelInfo.of("mine.models:flat", 4, (3, 8, 8))
    model = info.build(seed=1)
    save_weights(tmp_path / "a.safetensors", model, info)
    loaded, found = load_model(tmp_path / "a.safetensors")
    assert found == info
    assert digest(loaded) == digest(model)
    with pytest.raises(MeguError, match="cannot take an image of 3 x 9 x 9"):
        build("mine.models:flat", 4, 3, seed=0, image_size=(9, 9))


@pytest.mark.parametrize(
    ("arch", "said"),
    [
        ("mine.models:ten", "answers 10 classes, the data set has 4"),
        ("mine.models:grey", "cannot take an image of 3 x 8 x 8"),
        ("mine.models:softmax", "does not end in its last linear layer (classifier.3)"),
        ("mine.models:convolutional", "has no nn.Linear"),
        ("mine.models:number", "gave a int, not a torch.nn.Module"),
        ("mine.models:broken", "failed (RuntimeError: no model today)"),
        ("mine.models:CONSTANT", "has no function 'CONSTANT'"),
        ("mine.models:absent", "has no function 'absent'"),
        ("mine.absent:build", "mine.absent cannot be imported (ModuleNotFoundError"),
        ("nowhere:build", "nowhere cannot be imported"),
        ("resnet-9000", "there is no architecture 'resnet-9000'"),
    ],
)
def test_a_model_that_cannot_be_used_gets_one_line(mine: Path, arch: str, said: str) -> None:
    with pytest.raises(MeguError) as raised:
        build(arch, 4, 3, seed=0, image_size=(8, 8))
    assert said in raised.value.what
    assert raised.value.fix
    assert "\n" not in str(raised.value)


def test_a_users_code_is_in_the_cache_key_with_what_it_imports(mine: Path) -> None:
    from tasks.original import TRAINED

    def parts(arch: str) -> dict[str, object]:
        return TRAINED.parts({"params": TrainParams(arch=arch)})

    before = parts("mine.models:build")
    assert {"code mine.models", "code mine.helper"} <= set(before)
    assert not [name for name in parts("resnet18") if name.startswith("code mine")]
    (mine / "helper.py").write_text("WIDTH = 16  # wider\n")
    changed = {name for name, value in parts("mine.models:build").items() if before.get(name) != value}
    assert changed == {"code mine.helper"}


def test_an_installed_package_brings_an_architecture(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = EntryPoints(
        [
            EntryPoint("theirs", "mine.models:build", "megu.models"),
            EntryPoint("wrong", "mine.models:CONSTANT", "megu.models"),
            EntryPoint("resnet18", "mine.models:ten", "megu.models"),
        ]
    )
    monkeypatch.setattr(plugins, "entry_points", lambda group: entries.select(group=group))
    monkeypatch.syspath_prepend(str(mine.parent))
    assert models.names() == [*MODELS, "theirs", "wrong"]
    assert TrainParams(arch="theirs").arch == "theirs"
    assert build("theirs", 4, 3, seed=0, image_size=(8, 8)).classify(torch.zeros(1, 6)).shape == (1, 4)  # type: ignore[operator]
    assert type(build("resnet18", 4, 3, seed=0)).__name__ == "ResNet18", "a plugin cannot take a built-in's name"
    assert "mine.models" in " ".join(TrainParams(arch="theirs").code())
    with pytest.raises(MeguError, match="not a function of"):
        build("wrong", 4, 3, seed=0)
