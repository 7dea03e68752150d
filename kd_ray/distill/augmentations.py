"""Augmentations of images: how the views of an epoch are drawn, and what a view is. Each view of a sample is one number.

Countable views are a crop of the padded image and a flip, applied to a whole batch on the training device. Endless views are made one image
at a time by `data/random_views.py`, because each is a crop of any size of the original image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from kd_ray.data.random_views import view_of
from kd_ray.seeding import integers
from kd_ray.sweep.training import Augmentation

PADDING = 4
"""Pixels of zeros around the image before a random crop."""
_SIDE = 2 * PADDING + 1
"""Positions of a crop in each direction."""

DrawViews = Callable[[int, np.random.Generator], Tensor]
"""(number of samples, random stream) → the number of a view for each sample: int64, (N,)."""


@dataclass(frozen=True, kw_only=True)
class CountableViews:
    """An augmentation with finitely many views of a sample, whose teacher logits fit into a table."""

    num_views: int
    draw: DrawViews
    """Numbers below `num_views`."""
    crops: Callable[[Tensor], Tensor]
    """Numbers (B,) → row offset, column offset and flip (0 or 1): (B, 3). Offset `PADDING` is the centre."""


@dataclass(frozen=True, kw_only=True)
class EndlessViews:
    """An augmentation whose views cannot be counted; a teacher runs for every batch."""

    draw: DrawViews
    """Numbers below 2**63."""
    view: Callable[[Image.Image, int, int], npt.NDArray[np.uint8]]
    """(original image, number, side in pixels) → the view, side × side × 3."""


def _draw_none(count: int, random: np.random.Generator) -> Tensor:
    del random
    return torch.zeros(count, dtype=torch.int64)


def _draw_flips(count: int, random: np.random.Generator) -> Tensor:
    return torch.from_numpy(integers(2, count, random))


def _draw_crops_and_flips(count: int, random: np.random.Generator) -> Tensor:
    offsets_N2 = torch.from_numpy(integers(_SIDE, 2 * count, random).reshape(-1, 2))
    return (offsets_N2[:, 0] * _SIDE + offsets_N2[:, 1]) * 2 + _draw_flips(count, random)


def _draw_endless(count: int, random: np.random.Generator) -> Tensor:
    return torch.from_numpy((random.bit_generator.random_raw(count) >> 1).astype(np.int64))


def _centred(views_B: Tensor) -> Tensor:
    centre_B = torch.full_like(views_B, PADDING)
    return torch.stack([centre_B, centre_B, views_B], dim=1)


def _cropped_and_flipped(views_B: Tensor) -> Tensor:
    positions_B = views_B // 2
    return torch.stack([positions_B // _SIDE, positions_B % _SIDE, views_B % 2], dim=1)


def _view(image: Image.Image, number: int, size: int, *, with_operations: bool) -> npt.NDArray[np.uint8]:
    return view_of(image, number, size=size, with_operations=with_operations)


AUGMENTATIONS: dict[Augmentation, CountableViews | EndlessViews] = {
    "none": CountableViews(num_views=1, draw=_draw_none, crops=_centred),
    "flip": CountableViews(num_views=2, draw=_draw_flips, crops=_centred),
    "crop_flip": CountableViews(num_views=2 * _SIDE**2, draw=_draw_crops_and_flips, crops=_cropped_and_flipped),
    "resized_crop": EndlessViews(draw=_draw_endless, view=partial(_view, with_operations=False)),
    "randaugment": EndlessViews(draw=_draw_endless, view=partial(_view, with_operations=True)),
}


def num_views(augmentation: Augmentation) -> int | None:
    """How many different views of a sample there are; None where they are endless."""
    views = AUGMENTATIONS[augmentation]
    return views.num_views if isinstance(views, CountableViews) else None
