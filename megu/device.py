"""The device setting: one word in the configuration, the same code on CPU and CUDA."""

from __future__ import annotations

import torch

from megu.errors import MeguError


def resolve(setting: str) -> torch.device:
    """The device for "auto" (CUDA when there, else CPU), "cpu", "cuda" or "cuda:N".

    Raises `MeguError` when CUDA is asked for and not there.
    """
    if setting == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(setting)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise MeguError(
            f"device = {setting}: this machine has {torch.cuda.device_count()} CUDA devices", "set device: auto or cpu"
        )
    return device


def device_class(device: torch.device) -> str:
    """ "cpu" or "cuda": what results may depend on."""
    return device.type


def fast_dtype(device: torch.device) -> torch.dtype:
    """The number format of the forward pass in training: bfloat16 where the hardware multiplies it, else float32.

    On CPUs without AVX512-BF16 or AMX bfloat16 is emulated and several times slower than float32.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
