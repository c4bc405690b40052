"""torchvision's ViT-B/16; images are resized to its 224 x 224 inside the model. Parameter names are torchvision's, so its weights fit."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from megu.core.errors import MeguError
from megu.core.vision import import_torchvision

_SIDE = 224


def vit_b_16(num_classes: int, channels: int) -> nn.Module:
    """Make the network with fresh weights; existing ones come through ``original.weights``. Grey images are repeated over three channels.

    Raises `MeguError` without torchvision, and for images that are neither grey nor colour.
    """
    if channels not in (1, 3):
        raise MeguError(f"vit-b-16 takes images of 1 or 3 channels, not {channels}", "choose another train.arch")
    try:
        import_torchvision()
        from torchvision.models import VisionTransformer
    except (ImportError, RuntimeError) as error:
        raise MeguError(
            f"vit-b-16 needs torchvision, which cannot be imported ({error})",
            "install the torchvision that belongs to your torch, or choose another train.arch",
        ) from None

    class ViTB16(VisionTransformer):  # type: ignore[misc, unused-ignore]
        def features(self, images: Tensor) -> Tensor:
            """Return (B, 768): the class token after the last layer norm, of either sign."""
            images = images.expand(-1, 3, -1, -1)
            if images.shape[2:] != (_SIDE, _SIDE):
                images = F.interpolate(images, size=(_SIDE, _SIDE), mode="bilinear", align_corners=False)
            patches = self._process_input(images)
            tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1)
            found: Tensor = self.encoder(tokens)[:, 0]
            return found

        def classify(self, features: Tensor) -> Tensor:
            logits: Tensor = self.heads(features)
            return logits

        def forward(self, images: Tensor) -> Tensor:
            return self.classify(self.features(images))

    model: nn.Module = ViTB16(
        image_size=_SIDE, patch_size=16, num_layers=12, num_heads=12, hidden_dim=768, mlp_dim=3072, num_classes=num_classes
    )
    return model
