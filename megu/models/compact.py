"""A compact residual network without pre-activation for small images, sized for two CPU cores.

He et al., "Deep residual learning for image recognition", CVPR 2016, basic blocks; a stride-2 stem because at 28 x 28 the
full-resolution layers would take most of the time and gain little.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut; halves the resolution."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride=2, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


class CompactResNet(nn.Module):
    """Stem, two residual blocks, mean over the image, linear head; 290,000 weights for ten grey classes."""

    def __init__(self, num_classes: int, channels: int, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.blocks = nn.Sequential(Block(width, 2 * width), Block(2 * width, 4 * width))
        self.head = nn.Linear(4 * width, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return (B, 4 width), not negative: each is a ReLU's output averaged over the image."""
        out: Tensor = self.blocks(self.stem(images))
        return out.mean(dim=(2, 3))

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.features(images))


def compact_resnet(num_classes: int, channels: int) -> nn.Module:
    return CompactResNet(num_classes, channels)
