"""Which beginning a network has: many come with one for large images and one for small ones."""

from kd_ray.sweep.architectures import ARCHITECTURES, SMALL_IMAGE


def has_small_stem(name: str, image_size: int) -> bool:
    """By the name (`…-cifar`, `…-imagenet`), else by the side of the images in pixels."""
    if name.endswith(("-cifar", "-imagenet")):
        return name.endswith("-cifar")
    return image_size <= SMALL_IMAGE


def check_image_size(name: str, image_size: int) -> None:
    """Raises ValueError for images that are too small for the network."""
    least = ARCHITECTURES[name].min_image_size
    if image_size < least:
        raise ValueError(f"{name} needs images of at least {least} pixels, got {image_size}")
