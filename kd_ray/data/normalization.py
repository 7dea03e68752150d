"""Channel means and deviations that standardise pixels, by the name a sweep file gives them."""

from kd_ray.sweep.own_datasets import Normalization

Moments = tuple[tuple[float, float, float], tuple[float, float, float]]
"""(mean, std) per channel, for pixels in 0..1."""

NORMALIZATIONS: dict[str, Moments] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Name → (mean, std) per channel, for pixels in 0..1: of the training images of CIFAR-10, CIFAR-100 and SVHN; the ones usual for ImageNet;
and 0.5 throughout."""


def moments_of(normalization: str | Normalization) -> Moments:
    """Those of the name, or those that a sweep file gives."""
    if isinstance(normalization, Normalization):
        return normalization.mean, normalization.std
    return NORMALIZATIONS[normalization]
