"""Train one model with several processes, started by torch's own launcher (``torchrun``), each with its own device.

The batches and their order are those of a single process: each process takes its share of every batch, and the gradients are averaged
before the step. So the weights are those of a single process up to rounding. For that, batch norm needs the statistics of the whole
batch, which torch gathers only on CUDA; on CPUs each process normalises its own share. Random layers (dropout) draw different numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from megu.core.errors import MeguError


@dataclass(frozen=True)
class World:
    """rank: which of the ``size`` processes this is. Only rank 0 writes."""

    rank: int = 0
    size: int = 1

    def share(self, batch: int) -> slice:
        """Return this process' part of a batch; raise `MeguError` when it does not divide evenly: the mean loss would differ."""
        if batch % self.size:
            raise MeguError(
                f"a batch of {batch} does not divide among {self.size} processes",
                f"make train.batch_size a multiple of {self.size}",
            )
        each = batch // self.size
        return slice(self.rank * each, (self.rank + 1) * each)


def world() -> World:
    """Return this process' place in the group; alone unless inside `joined`."""
    if not (dist.is_available() and dist.is_initialized()):
        return World()
    return World(dist.get_rank(), dist.get_world_size())


@contextmanager
def joined(device: str) -> Iterator[torch.device]:
    """Join the processes that the launcher started, and yield this one's device: with "auto" or "cuda" the CUDA device of its own
    local rank, over NCCL; with "cpu" the CPU, over Gloo.

    Raises `MeguError` when no launcher started this process, and for a device that all of them would share.
    """
    if "LOCAL_RANK" not in os.environ:
        raise MeguError(
            "no launcher started this process",
            "torchrun --nproc-per-node 2 -m megu.cli.train_distributed --out model.safetensors",
        )
    if ":" in device:
        raise MeguError(f"device = {device}: every process needs its own", "set device: auto, cuda or cpu")
    cuda = device.startswith("cuda") or (device.startswith("auto") and torch.cuda.is_available())
    local = int(os.environ["LOCAL_RANK"])
    if cuda and local >= torch.cuda.device_count():
        raise MeguError(
            f"process {local} has no CUDA device: this machine has {torch.cuda.device_count()}",
            "lower --nproc-per-node, or set device: cpu",
        )
    mine = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(mine)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield mine
    finally:
        dist.destroy_process_group()


def whole_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Return ``model`` with batch norms that use the statistics of the whole batch, where torch can; names and weights stay the same."""
    if world().size == 1 or device.type != "cuda":
        return model
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return converted


def replicated(model: nn.Module) -> nn.Module:
    """Return the module to call instead of ``model`` in training, so that gradients are averaged over the processes."""
    if world().size == 1:
        return model
    device = next(model.parameters()).device
    return nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
