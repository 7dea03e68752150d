"""Batches of a pack: which samples, in which order, in which view.

Order and views are drawn from (seed, epoch) alone, so any step of any epoch can be produced without the steps before it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from kd_ray.distill.augmentations import AUGMENTATIONS
from kd_ray.distill.mixing import Mix
from kd_ray.distill.samples.kind import Draw, Inputs, Resident, images_of
from kd_ray.seeding import shuffled, stream
from kd_ray.sweep.training import Augmentation, Training


def steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """Optimiser steps of one epoch, the last smaller batch included."""
    return -(-num_samples // batch_size)


class Batch(NamedTuple):
    """Samples as the networks take them, and where they come from."""

    inputs: Inputs
    labels_B: Tensor
    samples_B: Tensor
    """Which samples of the split these are; on the CPU."""
    views_B: Tensor
    """Number of the view of each; on the CPU."""
    mix: Mix | None = None
    """How the images have been mixed with one another; labels, samples and views are those before."""

    @property
    def images_BCHW(self) -> Tensor:  # noqa: N802 (a shape suffix)
        """The inputs of a data set of images."""
        return images_of(self.inputs)


def epoch_draw(num_samples: int, augmentation: Augmentation, *, seed: int, epoch: int) -> Draw:
    """The draw of one epoch (from 0)."""
    order_N = torch.from_numpy(shuffled(num_samples, stream(seed, "order", epoch)))
    views_N = AUGMENTATIONS[augmentation].draw(num_samples, stream(seed, "views", epoch))
    return Draw(order_N, views_N, augmentation)


def draw_of(split: Resident, training: Training, *, seed: int, epoch: int) -> Draw:
    """The draw of one epoch of a split, as its samples want it: texts of similar length stand together."""
    draw = epoch_draw(len(split), training.augmentation, seed=seed, epoch=epoch)
    order_N = split.epoch_order(draw.samples_N, batch_size=training.batch_size, seed=seed, epoch=epoch)
    return draw._replace(samples_N=order_N)


def batches(split: Resident, draw: Draw, *, batch_size: int, start: int = 0) -> Iterator[Batch]:
    """The batches of one epoch from step `start` of it on.

    Raises:
        DataError: an image that is streamed cannot be used.
    """
    device = split.labels_N.device
    parts = [slice(first, first + batch_size) for first in range(start * batch_size, len(split), batch_size)]
    samples_N, views_N = draw.samples_N.to(device), draw.views_N.to(device)
    inputs = split.inputs_ahead(draw, parts)
    if inputs is None:
        inputs = (split.inputs(samples_N[part], views_N[part], draw.augmentation) for part in parts)
    for part, inputs_B in zip(parts, inputs, strict=True):
        yield Batch(inputs_B, split.labels_N[samples_N[part]], draw.samples_N[part], draw.views_N[part])
