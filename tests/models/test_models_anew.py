"""A user's function has to make its networks anew: a retrain that begins with what saw the forgotten images is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import images
from torch import nn

from megu import models
from megu.core.errors import MeguError
from megu.models import ARCHITECTURES, anew, build
from megu.training.loop import TrainParams, train
from megu.training.retrain import retrain
from megu.training.weights import ModelInfo, digest
from megu.unlearning.methods.common import fresh_model
from megu.unlearning.methods.context import Context

SOURCE = """
import math, pathlib
import numpy as np
import torch
from torch import nn

def net(num_classes, channels):
    body = nn.Conv2d(channels, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*body, nn.Linear(6, num_classes))

ONE = net(4, 1)
def module_level(k, c): return ONE

KEPT = []
def first_call(k, c):
    if not KEPT: KEPT.append(net(k, c))
    made = net(k, c); made.load_state_dict(KEPT[0].state_dict()); return made

def closure():
    state = {}
    def build(k, c):
        made = net(k, c)
        made.load_state_dict(state.setdefault("kept", made.state_dict()))
        return made
    return build
in_closure = closure()

BY_SEED = {}
def by_seed(k, c):  # a copy of the network, as it is by now, that this seed made before
    import copy
    if torch.initial_seed() in BY_SEED: return copy.deepcopy(BY_SEED[torch.initial_seed()])
    return BY_SEED.setdefault(torch.initial_seed(), net(k, c))

FILE = pathlib.Path(__file__).with_name("weights")
def from_torch(k, c):
    made = net(k, c); made.load_state_dict(torch.load(f"{FILE}.pt")); return made
def from_safetensors(k, c):
    from safetensors.torch import load_file
    made = net(k, c); made.load_state_dict(load_file(f"{FILE}.safetensors")); return made
def from_numpy(k, c):
    made = net(k, c); found = np.load(f"{FILE}.npz")
    made.load_state_dict({name: torch.from_numpy(found[name]) for name in found}); return made

def reseeded(k, c):
    torch.manual_seed(0); return net(k, c)
def of_the_clock(k, c):
    generator = torch.Generator(); generator.seed()
    made = net(k, c)
    with torch.no_grad(): made[0].weight.normal_(generator=generator)
    return made
def statistics(k, c):
    made = net(k, c); made[1].running_mean.copy_(torch.arange(6.0)); return made
class Tables(nn.Module):  # a network without a parameter but its head
    def __init__(self, k, c):
        super().__init__()
        self.register_buffer("weight", torch.randn(50, 64 * c, generator=torch.Generator().manual_seed(1)))
        self.head = nn.Linear(50, k)
    def forward(self, x): return self.head(torch.relu(x.flatten(1) @ self.weight.T))
def tables(k, c): return Tables(k, c)

def backbone(k, c, frozen=True):
    made = net(k, c)
    with torch.no_grad(): made[0].weight.copy_(torch.linspace(-1, 1, made[0].weight.numel()).sin().view_as(made[0].weight))
    made[0].weight.requires_grad_(not frozen)
    return made
def tuned(k, c): return backbone(k, c, False)

class Honest(nn.Module):  # a fixed table of positions, an identity, constants, draws of NumPy
    def __init__(self, k, c):
        super().__init__()
        self.mix = nn.Linear(64 * c, 64 * c); nn.init.eye_(self.mix.weight)
        self.scale = nn.Parameter(1e-6 * torch.ones(64 * c))
        self.drawn = nn.Parameter(torch.from_numpy(np.random.randn(64 * c).astype("float32")))
        self.register_buffer("positions", torch.arange(64.0 * c).sin())
        self.register_buffer("mask", torch.ones(3, 3).tril(), persistent=False)
        self.head = nn.Linear(64 * c, k)
    def forward(self, x): return self.head(self.mix(x.flatten(1) + self.positions) * self.scale + self.drawn)
def honest(k, c): return Honest(k, c)
def dropping(k, c): return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64 * c, k))
"""

CHEATS = {
    "module_level": "are one tensor",
    "first_call": "the same for every seed",
    "in_closure": "the same for every seed",
    "by_seed": "changes with the network made before",
    "from_torch": "come from a file",
    "from_safetensors": "come from a file",
    "from_numpy": "come from a file",
    "reseeded": "it sets the random seed itself",
    "of_the_clock": ": 0.weight differs from call to call with the same seed",
    "statistics": ": 1.running_mean is the same for every seed",
    "tables": ": weight is the same for every seed",
    "backbone": ": 0.weight is the same for every seed",
    "tuned": ": 0.weight is the same for every seed",
}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    import numpy as np
    from safetensors.torch import save_file

    (tmp_path / "cheats.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("cheats", None)
    state = {name: value.detach() for name, value in models.foreign.find("cheats:net")(4, 1).state_dict().items()}
    torch.save(state, tmp_path / "weights.pt")
    save_file(state, tmp_path / "weights.safetensors")
    np.savez(tmp_path / "weights.npz", **{name: value.numpy() for name, value in state.items()})
    yield tmp_path
    del sys.modules["cheats"]


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_function_that_cheats_is_refused_by_name_in_one_line(mine: Path, cheat: str) -> None:
    with pytest.raises(MeguError) as raised:
        build(f"cheats:{cheat}", 4, 1, seed=0, image_size=(8, 8))
    assert raised.value.what.startswith(f"train.arch: cheats:{cheat} makes no new network: ")
    assert CHEATS[cheat] in raised.value.what
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("cheat", ["module_level", "from_torch", "by_seed"])
@pytest.mark.parametrize("where", ["original or shadow", "reference", "method retrain", "bad teacher"])
def test_no_way_to_a_new_network_goes_around_it(mine: Path, cheat: str, where: str) -> None:
    data, recipe = images(16), TrainParams(arch=f"cheats:{cheat}", epochs=1, batch_size=8)
    fresh = ModelInfo.of(recipe.arch, 4, data.shape).fresh
    ways = {
        "original or shadow": lambda: train(data, recipe, 4, seed=0),
        "reference": lambda: retrain(data, recipe, 4, seed=0),
        "method retrain": lambda: retrain(data, recipe, 4, seed=0, fresh=fresh),
        "bad teacher": lambda: fresh_model(
            Context(params=None, seed=0, num_classes=4, fresh=fresh), "bad", torch.device("cpu")
        ),
    }
    with pytest.raises(MeguError, match="makes no new network"):
        ways[where]()


def test_what_no_seed_decides_is_fine_where_it_is_no_weight(mine: Path) -> None:
    first, again, other = (build("cheats:honest", 4, 1, seed=seed, image_size=(8, 8)) for seed in (3, 3, 4))
    assert digest(first) == digest(again) != digest(other)
    assert not torch.equal(first.get_parameter("model.drawn"), other.get_parameter("model.drawn"))


@pytest.mark.parametrize("arch", ["backbone", "tuned"])
def test_declared_weights_are_taken_but_not_all_of_them(mine: Path, arch: str) -> None:
    made = [build(f"cheats:{arch}", 4, 1, seed=seed, image_size=(8, 8), pretrained=True) for seed in (0, 1)]
    assert torch.equal(*(model.get_parameter("model.0.weight") for model in made))
    assert not torch.equal(*(model.get_parameter("model.5.weight") for model in made))
    for cheat in ("module_level", "by_seed", "from_torch", "reseeded"):
        with pytest.raises(MeguError, match="makes no new network"):
            build(f"cheats:{cheat}", 4, 1, seed=0, image_size=(8, 8), pretrained=True)


def test_weights_of_the_original_are_refused_however_they_came(mine: Path) -> None:
    original, model = (build("cheats:net", 4, 1, seed=seed, image_size=(8, 8)) for seed in (0, 1))
    anew.refuse_provided(model, original.state_dict(), "mine", pretrained=False)
    with torch.no_grad():
        model.get_parameter("model.5.weight").copy_(original.get_parameter("model.5.weight"))
    with pytest.raises(MeguError, match=r"5\.weight is the given model's"):
        anew.refuse_provided(model, original.state_dict(), "mine", pretrained=False)
    anew.refuse_provided(model, original.state_dict(), "mine", pretrained=True)
    model.load_state_dict(original.state_dict())
    with pytest.raises(MeguError, match=r"and \d more is the given model's"):
        anew.refuse_provided(model, original.state_dict(), "mine", pretrained=True)


@pytest.mark.parametrize("arch", [name for name in ARCHITECTURES if name != "vit-b-16"])
def test_our_own_architectures_hold_to_it(arch: str) -> None:
    def make() -> nn.Module:
        return models.blank(arch, 4, 1, (8, 8))

    models.seeded(lambda: _checked(make), 0)
    assert not models.draws(models.seeded(make, 0), (1, 8, 8))


def _checked(make):  # type: ignore[no-untyped-def]
    model = make()
    anew.check(make, model, "ours", pretrained=False)
    return model


def test_a_model_that_draws_in_training_is_known(mine: Path) -> None:
    for arch, draws in (("cheats:dropping", True), ("cheats:net", False)):
        model = build(arch, 4, 1, seed=0, image_size=(8, 8))
        before = digest(model)
        assert models.draws(model, (1, 8, 8)) is draws
        assert digest(model) == before
