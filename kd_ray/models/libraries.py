"""Networks that timm or torchvision builds, by their names there; with random weights, and a head for the classes of the data set.

Weights are never fetched here: those of a teacher come from the file that the sweep names.
"""

from typing import Any

import torch
from torch import nn

from kd_ray.models.own import own_model
from kd_ray.sweep.architectures import library_of


def library_model(name: str, num_classes: int, image_size: int) -> nn.Module:
    """`timm:NAME` or `torchvision:NAME`, for square RGB images of that side.

    Raises ValueError when the library is not installed, has no such network, or cannot build it for these images and classes.
    """
    found = library_of(name)
    assert found is not None
    library, inner = found
    build = {"timm": _timm, "torchvision": _torchvision}[library]
    try:
        return build(inner, num_classes, image_size)
    except ImportError as error:
        # torchvision comes with kd_ray.
        raise ValueError(f"{name}: {error}; `pip install 'kd_ray[models]'` installs timm") from error
    except Exception as error:  # a constructor may raise anything about a size it does not take
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{name}: {library} cannot build it for {image_size} pixels: {reason}") from error


def check_model(name: str, *, num_classes: int, image_size: int, trains: bool) -> None:
    """Build a network and let it look at two blank images, in training mode if it `trains`.

    Raises ValueError when it cannot be built, cannot take such images, gives something else than logits, or draws random numbers in
    training mode: its dropout does not follow the seed of a trial, so two runs of a trial would differ.
    """
    build = library_model if library_of(name) else own_model
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = build(name, num_classes, image_size).train(trains)
        before = torch.get_rng_state()
        try:
            logits = model(torch.zeros(2, 3, image_size, image_size))
        except Exception as error:  # layers may raise anything about a size they do not take
            raise ValueError(f"{name} cannot take images of {image_size} pixels: {error}") from error
        draws = not torch.equal(before, torch.get_rng_state())
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, num_classes):
        what = f"shape {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"{name} gives {what} for two images, expected logits of shape (2, {num_classes})")
    if draws:
        raise ValueError(
            f"{name} has dropout or stochastic depth, which does not follow a trial's seed; it can be a teacher with pretrained weights"
        )


def _timm(name: str, num_classes: int, image_size: int) -> nn.Module:
    import timm

    settings: dict[str, Any] = {}
    # Transformers are built for one size of image; convolutional networks do not take the argument.
    if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
        settings["img_size"] = image_size
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, **settings)
    return model


def _torchvision(name: str, num_classes: int, image_size: int) -> nn.Module:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise ValueError(f"it has no classifier of this name; it has {', '.join(models.list_models(module=models))}")
    settings: dict[str, Any] = {}
    if name.startswith("vit_"):
        settings["image_size"] = image_size
    model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **settings)
    return model
