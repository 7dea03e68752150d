"""DenseNet-121 and DenseNet-169 (Huang et al., "Densely connected convolutional networks", 2017, table 1), for large or small images.

Growth rate 32, bottlenecks of 128 channels, compression by half.

The stem for small images is one 3×3 convolution without stride and no pooling. Names of the parameters are torchvision's, so that such
weights load as they are.
"""

from collections import OrderedDict
from typing import cast

import torch
from torch import Tensor, nn

from kd_ray.models.stems import check_image_size, has_small_stem

_GROWTH = 32


class DenseLayer(nn.Module):
    """Batch normalisation, ReLU and a 1×1 convolution to 128 channels; the same with a 3×3 convolution to 32; its input stays in front."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, 4 * _GROWTH, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * _GROWTH)
        self.conv2 = nn.Conv2d(4 * _GROWTH, _GROWTH, 3, padding=1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Shapes: (B, in_channels, H, W) → (B, in_channels + 32, H, W)."""
        out = self.conv1(torch.relu(self.norm1(x_BCHW)))
        out = self.conv2(torch.relu(self.norm2(out)))
        return torch.cat([x_BCHW, out], dim=1)


class DenseNet(nn.Module):
    """Four dense blocks with transitions between them that halve channels and sides."""

    def __init__(self, depths: tuple[int, ...], num_classes: int, *, small_stem: bool) -> None:
        super().__init__()
        channels = 2 * _GROWTH
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["conv0"] = (
            nn.Conv2d(3, channels, 3, padding=1, bias=False)
            if small_stem
            else nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        )
        parts["norm0"], parts["relu0"] = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        if not small_stem:
            parts["pool0"] = nn.MaxPool2d(3, stride=2, padding=1)
        for number, depth in enumerate(depths, start=1):
            layers: OrderedDict[str, nn.Module] = OrderedDict(
                (f"denselayer{i + 1}", DenseLayer(channels + i * _GROWTH)) for i in range(depth)
            )
            parts[f"denseblock{number}"] = nn.Sequential(layers)
            channels += depth * _GROWTH
            if number < len(depths):
                parts[f"transition{number}"] = _transition(channels)
                channels //= 2
        parts["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(parts)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Shapes: (B, 3, H, W) → logits (B, classes)."""
        out = torch.relu(self.features(images_BCHW))
        return cast(Tensor, self.classifier(out.mean(dim=(2, 3))))


def _transition(channels: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict[str, nn.Module](
            norm=nn.BatchNorm2d(channels),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
            pool=nn.AvgPool2d(2, stride=2),
        )
    )


def densenet(name: str, num_classes: int, image_size: int) -> nn.Module:
    """`densenet121` or `densenet169` (8.0 and 14.1 M parameters with 1,000 classes); the stem follows the name or the image.

    Raises ValueError for images that are too small.
    """
    check_image_size(name, image_size)
    depths = (6, 12, 24, 16) if name.startswith("densenet121") else (6, 12, 32, 32)
    return DenseNet(depths, num_classes, small_stem=has_small_stem(name, image_size))
