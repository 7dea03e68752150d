"""Networks, by name."""

from collections.abc import Callable
from functools import partial

from torch import nn

from kd_ray.models.lenet import lenet5
from kd_ray.models.libraries import library_model
from kd_ray.models.own import own_model
from kd_ray.models.resnet_cifar import resnet_cifar
from kd_ray.models.two_stems import two_stem_network
from kd_ray.sweep.architectures import library_of, own_network

MODELS: dict[str, Callable[[int, int], nn.Module]] = {
    "lenet5": lenet5,
    "resnet20": lambda num_classes, image_size: resnet_cifar(20, num_classes, image_size),
    "resnet32": lambda num_classes, image_size: resnet_cifar(32, num_classes, image_size),
    "resnet44": lambda num_classes, image_size: resnet_cifar(44, num_classes, image_size),
    "resnet56": lambda num_classes, image_size: resnet_cifar(56, num_classes, image_size),
    **{
        name: partial(two_stem_network, name)
        for architecture in ("resnet18", "resnet50", "densenet121", "densenet169")
        for name in (architecture, f"{architecture}-cifar", f"{architecture}-imagenet")
    },
}
"""Constructors: (number of classes, side of the RGB images in pixels) → network whose output is logits (batch × classes)."""


def build_model(name: str, *, num_classes: int, image_size: int) -> nn.Module:
    """A network with fresh weights drawn from torch's current generator; by a library or a factory for
    `timm:NAME`, `torchvision:NAME` and `package.module:function`.

    Raises:
        KeyError: `name` is not in `MODELS`; sweep files are checked against the same names earlier.
        ValueError: it cannot be built for such images.
    """
    if own_network(name) is not None:
        return own_model(name, num_classes, image_size)
    if library_of(name) is not None:
        return library_model(name, num_classes, image_size)
    return MODELS[name](num_classes, image_size)


def count_parameters(model: nn.Module) -> int:
    """Trainable weights and biases."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
