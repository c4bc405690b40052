"""Streams of randomness from one seed."""

from __future__ import annotations

from hashlib import blake2b

import torch


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream ``names`` of a run; unrelated for different names, the same on every machine."""
    digest = blake2b("/".join([str(seed), *map(str, names)]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for the stream. Draws are made on the CPU and moved, so they are the same whatever the device."""
    return torch.Generator().manual_seed(derive(seed, *names))
