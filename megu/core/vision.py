"""torchvision, imported only when it is needed: it takes seconds, and not every machine has it."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import torch


def import_torchvision() -> Any:
    """Import torchvision, even a CUDA build of it with a CPU torch, which lacks the schemas of two operators."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[module]
    torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")
