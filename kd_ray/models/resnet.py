"""ResNet-18 and ResNet-50 (He et al., "Deep residual learning for image recognition", 2016, table 1), for large or small images.

The stem for small images, as CIFAR versions of these networks have it, is one 3×3 convolution without stride and no pooling. Stages stride
in the 3×3 convolution of a bottleneck, as is usual. Names of the parameters are torchvision's, so that such weights load as they are.
"""

from typing import cast

import torch
from torch import Tensor, nn

from kd_ray.models.stems import check_image_size, has_small_stem


class _Shortcut(nn.Sequential):
    """1×1 convolution where the shape changes (option B)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__(nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _Shortcut(in_channels, width, stride) if stride != 1 or in_channels != width else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Shapes: (B, in_channels, H, W) → (B, width, H / stride, W / stride)."""
        out = torch.relu(self.bn1(self.conv1(x_BCHW)))
        out = self.bn2(self.conv2(out))
        return torch.relu(out + (x_BCHW if self.downsample is None else self.downsample(x_BCHW)))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and a shortcut; the output has four times the width."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        channels = self.expansion * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample = _Shortcut(in_channels, channels, stride) if stride != 1 or in_channels != channels else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Shapes: (B, in_channels, H, W) → (B, 4 width, H / stride, W / stride)."""
        out = torch.relu(self.bn1(self.conv1(x_BCHW)))
        out = torch.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return torch.relu(out + (x_BCHW if self.downsample is None else self.downsample(x_BCHW)))


class ResNet(nn.Module):
    """Four stages of 64, 128, 256 and 512 channels, times the expansion of their blocks."""

    def __init__(
        self, block: type[BasicBlock | Bottleneck], depths: tuple[int, ...], num_classes: int, *, small_stem: bool
    ) -> None:
        super().__init__()
        self.conv1 = (
            nn.Conv2d(3, 64, 3, padding=1, bias=False)
            if small_stem
            else nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        )
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.Identity() if small_stem else nn.MaxPool2d(3, stride=2, padding=1)
        channels = 64
        for number, depth in enumerate(depths, start=1):
            width = 64 * 2 ** (number - 1)
            blocks = []
            for i in range(depth):
                blocks.append(block(channels, width, 2 if number > 1 and i == 0 else 1))
                channels = width * block.expansion
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Shapes: (B, 3, H, W) → logits (B, classes)."""
        out = self.maxpool(torch.relu(self.bn1(self.conv1(images_BCHW))))
        for number in range(1, 5):
            out = self.get_submodule(f"layer{number}")(out)
        return cast(Tensor, self.fc(out.mean(dim=(2, 3))))


def resnet(name: str, num_classes: int, image_size: int) -> nn.Module:
    """`resnet18` or `resnet50` (11.7 and 25.6 M parameters with 1,000 classes), with the stem that the name says or the image asks for.

    Raises ValueError for images that are too small.
    """
    check_image_size(name, image_size)
    small_stem = has_small_stem(name, image_size)
    if name.startswith("resnet18"):
        return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, small_stem=small_stem)
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, small_stem=small_stem)
