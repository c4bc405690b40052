"""A small vision transformer for small images: patches of 4 x 4, so a 32 x 32 image is 64 of them and a class token.

Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021, with the width and heads of DeiT-Ti (Touvron et al., ICML 2021), nine
layers, layer norm first.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 4
_WIDTH = 192
_HEADS = 3
_LAYERS = 9


class Layer(nn.Module):
    """Self-attention, then a perceptron of four times the width, each after a layer norm and with a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        # (B, T, 3 width) -> three times (B, heads, T, width / heads)
        q, k, v = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.out(attended)
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed


class TinyViT(nn.Module):
    """Patches with learned positions, nine layers, the class token normalised, linear head; 4.0 million weights.

    image_size: height and width in pixels, for which the positions are made; sides not divisible by 4 are padded with zeros.
    """

    def __init__(self, num_classes: int, channels: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.image_size = image_size
        self.patches = nn.Conv2d(channels, _WIDTH, PATCH, stride=PATCH)
        count = -(-image_size[0] // PATCH) * -(-image_size[1] // PATCH)
        self.token = nn.Parameter(torch.zeros(1, 1, _WIDTH))
        self.positions = nn.Parameter(torch.empty(1, count + 1, _WIDTH).normal_(std=0.02))
        self.layers = nn.Sequential(*(Layer(_WIDTH, _HEADS) for _ in range(_LAYERS)))
        self.norm = nn.LayerNorm(_WIDTH)
        self.head = nn.Linear(_WIDTH, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return (B, 192): the class token after the last layer norm, of either sign."""
        bottom, right = (-side % PATCH for side in images.shape[2:])
        patches = self.patches(F.pad(images, (0, right, 0, bottom))).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), patches], dim=1) + self.positions
        normalised: Tensor = self.norm(self.layers(tokens)[:, 0])
        return normalised

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.features(images))
