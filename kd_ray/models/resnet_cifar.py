"""ResNets for CIFAR (He et al. 2016, section 4.2): three stages of 16, 32 and 64 channels, parameter-free shortcuts (option A).

Names of the parameters are those of the widely used public weights of these networks, so that such weights can be loaded.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut; where the shape changes, the shortcut subsamples and pads channels with zeros."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.new_channels = channels - in_channels

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Shapes: (B, in_channels, H, W) → (B, channels, H / stride, W / stride)."""
        out = torch.relu(self.bn1(self.conv1(x_BCHW)))
        out = self.bn2(self.conv2(out))
        shortcut = x_BCHW
        if self.stride != 1 or self.new_channels:
            before = self.new_channels // 2
            shortcut = functional.pad(
                x_BCHW[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.new_channels - before)
            )
        return torch.relu(out + shortcut)


class ResNetCifar(nn.Module):
    """ResNet of 6n + 2 layers for small images."""

    def __init__(self, blocks_per_stage: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks_per_stage, stride=1)
        self.layer2 = _stage(16, 32, blocks_per_stage, stride=2)
        self.layer3 = _stage(32, 64, blocks_per_stage, stride=2)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Shapes: (B, 3, H, W) → logits (B, classes)."""
        out = torch.relu(self.bn1(self.conv1(images_BCHW)))
        out = self.layer3(self.layer2(self.layer1(out)))
        return cast(Tensor, self.linear(out.mean(dim=(2, 3))))


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


def resnet_cifar(depth: int, num_classes: int, image_size: int) -> nn.Module:
    """ResNet-20, 32, 44 or 56 (0.27, 0.46, 0.66, 0.85 M parameters with 10 classes). Any image size of 4 pixels or more."""
    if (depth - 2) % 6:
        raise ValueError(f"depth {depth} is not 6n + 2")
    if image_size < 4:
        raise ValueError(f"image_size {image_size} is below 4")
    return ResNetCifar((depth - 2) // 6, num_classes)
