"""Check that a user's function makes a new network: every weight drawn from the seed, nothing from an earlier network, nothing from a file.

A retrain that starts from weights that saw the forgotten images is not a retrain, and no later measurement would show it. So the
function is called three times: as configured, with another seed, and with that seed again after the second network was changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from megu.core.errors import MeguError
from megu.core.seeds import derive, positions, process_wide
from megu.models.foreign import Adopted

#: The buffers of a normalisation layer that training fills.
STATISTICS = ("running_mean", "running_var")

ELSEWHERE = "declare weights that were pretrained elsewhere and never saw this data set with train.pretrained=true"


def check(make: Callable[[], nn.Module], model: nn.Module, arch: str, pretrained: bool) -> None:
    """Compare ``model``, which ``make`` has just made, with two more that it makes.

    pretrained: declares that some parameters are the same for every seed; others still have to be drawn.

    Raises `MeguError` for a function that returns the same network again, whose networks stay connected, that draws numbers which no
    seed determines, or that gives the same weights for every seed; it names the tensors.
    """
    seed, after = derive(0, "anew"), positions()
    with process_wide(seed):
        other = make()
        reseeded = any(one == another for one, another in zip(positions(), after, strict=True))
    if any(tensor.is_meta for tensor in model.parameters()):
        return
    model, other = _own(model), _own(other)
    first, second = _numbers(model), _numbers(other)
    if shared := _shared(first, second):
        raise _refusal(arch, f"{_named(shared)} of two networks are one tensor", "make a new network in every call")
    second = {name: tensor.detach().clone() for name, tensor in second.items()}
    _as_if_trained(other)
    with process_wide(seed):
        third = _numbers(_own(make()))
    if again := [name for name, tensor in third.items() if name not in second or not same(tensor, second[name])]:
        changed = _numbers(other)
        if any(name in changed and same(third[name], changed[name]) for name in again):
            raise _refusal(
                arch,
                f"{_named(again)} changes with the network made before",
                "make a new network in every call",
            )
        raise _refusal(
            arch,
            f"{_named(again)} differs from call to call with the same seed",
            "draw with torch's, NumPy's or Python's own generator",
        )
    _refuse_same(first, second, model, arch, pretrained, reseeded)


def _refuse_same(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], model: nn.Module, arch: str, pretrained: bool, reseeded: bool
) -> None:
    parameters = {name for name, _ in model.named_parameters()}
    equal = [name for name, tensor in first.items() if learnt(tensor) and name in second and same(tensor, second[name])]
    tables = [name for name in equal if name not in parameters and not _statistic(model, name)]
    drawn = sum(tensor.numel() for name, tensor in first.items() if name in parameters and name not in equal and learnt(tensor))
    found = [name for name in equal if name not in tables]
    # A table of numbers (positions, filters) is not a weight, but a network that consists mostly of such tables is refused.
    if sum(first[name].numel() for name in tables) > drawn:
        found += tables
    if not found:
        return
    why = "it sets the random seed itself" if reseeded else "they come from a file, or from a network made before"
    if not pretrained:
        what = f"{_named(found)} {'is' if len(found) == 1 else 'are'} the same for every seed ({why})"
        raise _refusal(arch, what, f"draw all weights and set no seed; {ELSEWHERE}")
    if all(name in equal for name in parameters if first[name].ndim > 1):
        what = f"no weight differs from seed to seed ({why})"
        raise _refusal(arch, what, "pretrained or not, the layer that answers this data set's classes has to be new")


def refuse_provided(model: nn.Module, given: Mapping[str, Tensor], arch: str, pretrained: bool) -> None:
    """Raise `MeguError` when a new network has weights of a provided model. given: the state of that model.

    pretrained: some may be equal (those that neither training changed), but not all.
    """
    weights = {name: tensor for name, tensor in _own(model).named_parameters() if learnt(tensor)}
    equal = [name for name, tensor in weights.items() if name in given and same(tensor, given[name])]
    if equal and (not pretrained or len(equal) == len(weights)):
        raise _refusal(
            arch, f"{_named(equal)} is the given model's", "draw all weights: a retrain must not start from another model's"
        )


def learnt(tensor: Tensor) -> bool:
    """Return whether a tensor can be the result of training or of a random draw: floating point, with more than two different values.

    Constants, identities and masks cannot.
    """
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return False
    flat = tensor.detach().flatten()
    others = flat[flat != flat[0]]
    return bool(len(others)) and bool((others != others[0]).any())


def same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal to the bit, NaN included."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    one, other = (tensor.detach().cpu().contiguous().flatten().view(torch.uint8) for tensor in (one, other))
    return torch.equal(one, other)


def _own(model: nn.Module) -> nn.Module:
    """Return the user's own model, whose names its state uses."""
    return model.model if isinstance(model, Adopted) else model


def _numbers(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, including buffers that are not in the state."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _shared(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> list[str]:
    held = {tensor.untyped_storage().data_ptr() for tensor in first.values() if tensor.numel()}
    return [name for name, tensor in second.items() if tensor.numel() and tensor.untyped_storage().data_ptr() in held]


def _statistic(model: nn.Module, name: str) -> bool:
    """Return whether a buffer belongs to a layer that keeps running statistics."""
    owner = model.get_submodule(name.rpartition(".")[0])
    return any(isinstance(getattr(owner, each, None), Tensor) for each in STATISTICS)


@torch.no_grad()
def _as_if_trained(model: nn.Module) -> None:
    """Change in place what training would change."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.add_(1)


def _named(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _refusal(arch: str, what: str, fix: str) -> MeguError:
    return MeguError(f"train.arch: {arch} makes no new network: {what}", fix)
