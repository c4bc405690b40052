"""ResNet-18 with a stem for small images, the network of the paper's CIFAR tables.

He et al., "Deep residual learning for image recognition", CVPR 2016. The ImageNet stem (7 x 7, stride 2, pooling) would leave 8 x 8
of a 32 x 32 image; this one is a 3 x 3 convolution of stride 1. Parameter names are torchvision's, so the weights of its other layers fit.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

_WIDTHS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is the identity unless the shape changes."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        same = stride == 1 and channels == out
        self.downsample = (
            None if same else nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        inner = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(inner)) + shortcut)


class ResNet18(nn.Module):
    """Four stages of two basic blocks, mean over the image, linear head; 11.2 million weights."""

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, _WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        before = _WIDTHS[0]
        for number, width in enumerate(_WIDTHS, 1):
            blocks = nn.Sequential(BasicBlock(before, width, 1 if number == 1 else 2), BasicBlock(width, width, 1))
            self.add_module(f"layer{number}", blocks)
            before = width
        self.fc = nn.Linear(before, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return (B, 512), not negative: each is a ReLU's output averaged over the image."""
        out = F.relu(self.bn1(self.conv1(images)))
        for number in range(1, len(_WIDTHS) + 1):
            out = self.get_submodule(f"layer{number}")(out)
        return out.mean(dim=(2, 3))

    def classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.fc(features)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.features(images))
