"""torchvision's ResNet-18 and -50 (He et al. 2016), DenseNet-121 and -169 (Huang et al. 2017), with a stem for large or small images.

The stem for large images is torchvision's: a 7×7 convolution with stride 2, then pooling. The stem for small images is one 3×3 convolution
without stride and without pooling, as for CIFAR. Names of the weights are torchvision's, so its pretrained weights load as they are.
"""

from typing import Literal

import torch
from torch import nn

from kd_ray.sweep.architectures import ARCHITECTURES, SMALL_IMAGE

_FAN_MODES: dict[str, Literal["fan_in", "fan_out"]] = {
    "resnet18": "fan_out",
    "resnet50": "fan_out",
    "densenet121": "fan_in",
    "densenet169": "fan_in",
}
"""How torchvision scales the random weights of the convolutions of each network."""


def two_stem_network(name: str, num_classes: int, image_size: int) -> nn.Module:
    """`resnet18`, `resnet50`, `densenet121`, `densenet169` (11.7, 25.6, 8.0 and 14.1 M parameters with 1,000 classes), random weights.

    The ending `-cifar` or `-imagenet` of the name chooses the stem. Without an ending the image size chooses it.

    Raises:
        ValueError: the images are too small for the network.
    """
    from torchvision import models

    least = ARCHITECTURES[name].min_image_size
    if image_size < least:
        raise ValueError(f"{name} needs images of at least {least} pixels, got {image_size}")
    architecture = name.partition("-")[0]
    # Without memory: the weights are drawn after the stem is exchanged, so that they depend on the final network only.
    with torch.device("meta"):
        network: nn.Module = models.get_model(architecture, weights=None, num_classes=num_classes)
        if _has_small_stem(name, image_size):
            _exchange_stem(network)
    network.to_empty(device="cpu")
    _draw_weights(network, _FAN_MODES[architecture])
    return network


def _has_small_stem(name: str, image_size: int) -> bool:
    """Decided by the ending of the name, or else by the side of the images in pixels."""
    if name.endswith(("-cifar", "-imagenet")):
        return name.endswith("-cifar")
    return image_size <= SMALL_IMAGE


def _exchange_stem(network: nn.Module) -> None:
    """Put the stem for small images in the place of torchvision's."""
    convolution = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    if hasattr(network, "features"):
        network.features.conv0 = convolution  # type: ignore[union-attr]
        del network.features.pool0  # type: ignore[union-attr]
    else:
        network.conv1 = convolution
        network.maxpool = nn.Identity()


def _draw_weights(network: nn.Module, fan_mode: Literal["fan_in", "fan_out"]) -> None:
    """Initialise as torchvision does: torch's defaults for every layer, then He's normal weights for the convolutions.

    The defaults of the convolutions are overwritten, but they are drawn: the bits of all later draws depend on it.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            layer.reset_parameters()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode=fan_mode, nonlinearity="relu")
    if isinstance(classifier := getattr(network, "classifier", None), nn.Linear):
        nn.init.zeros_(classifier.bias)
