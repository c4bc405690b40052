"""The served form of a model, as code: MLflow stores this file and runs it when the model is loaded. No pickle.

Loaded with ``mlflow.pyfunc.load_model("models:/name@challenger")``; needs torch, numpy and safetensors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from megu.data.tensors import ImageSet
from megu.training.loop import predict
from megu.training.weights import load_model


def load(weights: Path, serving: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return the model and what `serving` says about its input."""
    return load_model(weights)[0], json.loads(serving.read_text(encoding="utf-8"))


def answer(model: nn.Module, serving: dict[str, Any], images: NDArray[Any]) -> NDArray[np.float32]:
    """Return probabilities float32 (N, K) for images uint8 (N, H, W, C)."""
    pixels = torch.from_numpy(np.array(images, dtype=np.uint8)).permute(0, 3, 1, 2)
    mean, std = torch.tensor(serving["mean"]), torch.tensor(serving["std"])
    asked = ImageSet(pixels, torch.zeros(len(pixels), dtype=torch.int64), mean, std)
    probabilities: NDArray[np.float32] = torch.softmax(predict(model, asked).logits, dim=1).numpy()
    return probabilities


def _define() -> None:
    from mlflow.models import set_model
    from mlflow.pyfunc.model import PythonModel

    class Served(PythonModel):
        def load_context(self, context: Any) -> None:
            self.loaded = load(Path(context.artifacts["weights"]), Path(context.artifacts["serving"]))

        # A plain np.ndarray: for this hint MLflow relies on the signature.
        def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None):  # type: ignore[no-untyped-def]
            return answer(*self.loaded, model_input)

    set_model(Served())


# MLflow runs the file under another module name; imported as part of the package, it only provides the functions.
if __name__ != "megu.tracking.served":
    _define()
