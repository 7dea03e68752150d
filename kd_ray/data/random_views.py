"""Augmentations with endless views, one image at a time: crops of any size, and RandAugment. One number determines a view.

Sizes and probabilities are those of torchvision's `RandomResizedCrop` and `RandAugment`, with which the operations agree pixel by pixel
where Pillow does the work; the random numbers are our own, raw draws, so that no library's next version changes a view.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps

AREA = (0.08, 1.0)
"""Least and largest share of the image that a crop takes."""
RATIO = (3 / 4, 4 / 3)
"""Least and largest width over height."""
_TRIES = 10
"""For a crop that lies within the image, before the largest central square is taken."""
NUM_OPERATIONS, MAGNITUDE, NUM_BINS = 2, 9, 31
"""RandAugment applies so many operations, at this of so many strengths from none to the most."""


def view_of(image: Image.Image, number: int, *, size: int, with_operations: bool) -> npt.NDArray[np.uint8]:
    """The view of an RGB image that a number below 2**63 stands for: size × size × 3.

    A random crop (Szegedy et al., "Going deeper with convolutions", CVPR 2015) of 8 to 100 % of the area and a ratio of 3:4 to 4:3, both
    uniform (the ratio in its logarithm), resized (bilinear, antialiased), then flipped with p = 0.5. `with_operations`, RandAugment (Cubuk
    et al., NeurIPS 2020) follows: N = 2 operations of strength M = 9, each drawn uniformly from `OPERATIONS`, its sign at random.
    """
    random = _uniforms(number)
    box = crop_box(image.width, image.height, random)
    view = image.crop(box).resize((size, size), Image.Resampling.BILINEAR)
    if next(random) < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for _ in range(NUM_OPERATIONS if with_operations else 0):
        operation = list(OPERATIONS.values())[int(next(random) * len(OPERATIONS))]
        view = operation(view, 1 if next(random) < 0.5 else -1)
    return np.asarray(view)


def crop_box(width: int, height: int, random: Iterator[float]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a crop: the first of ten that lies within the image, or else the largest central square."""
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    for _ in range(_TRIES):
        area = width * height * (AREA[0] + (AREA[1] - AREA[0]) * next(random))
        ratio = math.exp(low + (high - low) * next(random))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            top, left = int(next(random) * (height - down + 1)), int(next(random) * (width - across + 1))
            return left, top, left + across, top + down
    side = min(width, height)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return left, top, left + side, top + side


def _uniforms(number: int) -> Iterator[float]:
    """Numbers in [0, 1) from the raw draws of a generator that the number seeds."""
    bits = np.random.PCG64(number)
    while True:
        yield from (float(raw >> 11) * 2.0**-53 for raw in bits.random_raw(16).tolist())


def _strength(most: float) -> float:
    return most * MAGNITUDE / (NUM_BINS - 1)


def _moved(image: Image.Image, coefficients: tuple[float, ...]) -> Image.Image:
    """The image under an affine map; pixels from outside the image are black."""
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST)


def _shear_x(image: Image.Image, sign: int) -> Image.Image:
    return _moved(image, (1.0, sign * _strength(0.3), 0.0, 0.0, 1.0, 0.0))


def _shear_y(image: Image.Image, sign: int) -> Image.Image:
    return _moved(image, (1.0, 0.0, 0.0, sign * _strength(0.3), 1.0, 0.0))


def _translate_x(image: Image.Image, sign: int) -> Image.Image:
    return _moved(image, (1.0, 0.0, -int(sign * _strength(150 / 331 * image.width)), 0.0, 1.0, 0.0))


def _translate_y(image: Image.Image, sign: int) -> Image.Image:
    return _moved(image, (1.0, 0.0, 0.0, 0.0, 1.0, -int(sign * _strength(150 / 331 * image.height))))


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance], image: Image.Image, sign: int) -> Image.Image:
    return kind(image).enhance(1.0 + sign * _strength(0.9))


OPERATIONS: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "Identity": lambda image, sign: image,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": lambda image, sign: image.rotate(sign * _strength(30.0), Image.Resampling.NEAREST),
    "Brightness": partial(_enhanced, ImageEnhance.Brightness),
    "Color": partial(_enhanced, ImageEnhance.Color),
    "Contrast": partial(_enhanced, ImageEnhance.Contrast),
    "Sharpness": partial(_enhanced, ImageEnhance.Sharpness),
    "Posterize": lambda image, sign: ImageOps.posterize(image, 8 - round(MAGNITUDE / ((NUM_BINS - 1) / 4))),
    "Solarize": lambda image, sign: ImageOps.solarize(image, math.ceil(255.0 - _strength(255.0))),
    "AutoContrast": lambda image, sign: ImageOps.autocontrast(image),
    "Equalize": lambda image, sign: ImageOps.equalize(image),
}
"""RandAugment's operations at the strength M: (image, sign) → image; those without a direction ignore the sign."""
