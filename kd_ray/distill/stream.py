"""Batches of a pack: which samples, in which order, seen how.

Everything is drawn anew for (seed, epoch), so any step of any epoch can be produced without those before it. Data stay resident on the
device as uint8; augmentation works on the whole batch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from kd_ray.data.images import Split
from kd_ray.data.modalities import Data
from kd_ray.data.rows import RowData
from kd_ray.data.texts import TextData
from kd_ray.distill.resident_rows import ResidentRows, resident_rows
from kd_ray.distill.texts import ResidentTexts, arranged, resident_texts
from kd_ray.groups import Groups
from kd_ray.models.text import Tokens
from kd_ray.seeding import integers, shuffled, stream
from kd_ray.sweep.config import Augmentation, Training

PADDING = 4
"""Pixels of zeros around the image before a random crop."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ResidentSplit:
    """A split on the training device."""

    images_NHWC: Tensor
    """uint8, with `PADDING` zeros on every side."""
    labels_N: Tensor
    """int64."""
    scale_C: Tensor
    """Standardisation: pixel · scale + shift."""
    shift_C: Tensor

    def __len__(self) -> int:
        """Number of samples."""
        return self.labels_N.shape[0]

    @property
    def image_size(self) -> int:
        """Side of the images in pixels, without the padding."""
        return self.images_NHWC.shape[1] - 2 * PADDING

    def to(self, device: torch.device) -> "ResidentSplit":
        """A copy on another device."""
        return ResidentSplit(
            images_NHWC=self.images_NHWC.to(device),
            labels_N=self.labels_N.to(device),
            scale_C=self.scale_C.to(device),
            shift_C=self.shift_C.to(device),
        )


Resident = ResidentSplit | ResidentRows | ResidentTexts
"""A split on the training device."""
Inputs = Tensor | Tokens
"""What networks take: images (B, 3, H, W), standardised float32, channels last in memory; rows (B, F); or tokens."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ResidentData:
    """A data set on the training device."""

    train: Resident
    test: Resident
    validation: Resident | None
    num_classes: int
    sensitive_features: Mapping[str, Groups] = field(default_factory=dict)
    """Groups of the training samples, by feature; on the CPU."""


def to_device(data: Data, device: torch.device) -> ResidentData:
    """Copy a data set to the training device, once per worker."""
    if isinstance(data, RowData):
        return ResidentData(
            train=resident_rows(data.train, device),
            test=resident_rows(data.test, device),
            validation=resident_rows(data.validation, device) if data.validation is not None else None,
            num_classes=len(data.class_names),
            sensitive_features=data.train.sensitive_features,
        )
    if isinstance(data, TextData):
        return ResidentData(
            train=resident_texts(data.train, device),
            test=resident_texts(data.test, device),
            validation=resident_texts(data.validation, device) if data.validation is not None else None,
            num_classes=len(data.class_names),
            sensitive_features=data.train.sensitive_features,
        )

    def resident(split: Split) -> ResidentSplit:
        images = torch.as_tensor(split.images_NHWC, device=device)
        std_C = torch.tensor(data.std, dtype=torch.float64)
        mean_C = torch.tensor(data.mean, dtype=torch.float64)
        return ResidentSplit(
            images_NHWC=torch.nn.functional.pad(images, (0, 0, PADDING, PADDING, PADDING, PADDING)),
            labels_N=torch.as_tensor(split.labels_N, device=device),
            scale_C=(1 / (255 * std_C)).float().to(device),
            shift_C=(-mean_C / std_C).float().to(device),
        )

    return ResidentData(
        train=resident(data.train),
        test=resident(data.test),
        validation=resident(data.validation) if data.validation is not None else None,
        num_classes=len(data.class_names),
        sensitive_features=data.train.sensitive_features,
    )


def steps_per_epoch(num_samples: int, batch_size: int) -> int:
    """Optimiser steps of one epoch, the last smaller batch included."""
    return -(-num_samples // batch_size)


class Draw(NamedTuple):
    """What one epoch shows, and how; on the CPU. Drawn from the streams "order" and "views" of (seed, epoch)."""

    samples_N: Tensor
    """Every sample once, in the order of the epoch."""
    views_N3: Tensor
    """Row offset, column offset (0 … 2 · PADDING, PADDING is centred) and flip (0 or 1) for each place of the order."""


class Batch(NamedTuple):
    """Samples as the networks take them, and where they come from."""

    inputs: Inputs
    labels_B: Tensor
    samples_B: Tensor
    """Which samples of the split these are; on the CPU."""
    views_B3: Tensor
    """Which view of each; on the CPU."""

    @property
    def images_BCHW(self) -> Tensor:  # noqa: N802 (a shape suffix)
        """The inputs of a data set of images."""
        assert isinstance(self.inputs, Tensor)
        return self.inputs


def epoch_draw(num_samples: int, augmentation: Augmentation, *, seed: int, epoch: int) -> Draw:
    """The draw of one epoch (from 0)."""
    order_N = torch.from_numpy(shuffled(num_samples, stream(seed, "order", epoch)))
    random = stream(seed, "views", epoch)
    views_N3 = torch.full((num_samples, 3), PADDING)
    views_N3[:, 2] = 0
    if augmentation == "crop_flip":
        views_N3[:, :2] = torch.from_numpy(integers(2 * PADDING + 1, 2 * num_samples, random).reshape(-1, 2))
    if augmentation in ("crop_flip", "flip"):
        views_N3[:, 2] = torch.from_numpy(integers(2, num_samples, random))
    return Draw(order_N, views_N3)


def draw_of(split: Resident, training: Training, *, seed: int, epoch: int) -> Draw:
    """The draw of one epoch of a split, as its samples want it: texts of similar length stand together."""
    draw = epoch_draw(len(split), training.augmentation, seed=seed, epoch=epoch)
    if isinstance(split, ResidentTexts):
        order_N = arranged(split, draw.samples_N, batch_size=training.batch_size, seed=seed, epoch=epoch)
        return Draw(order_N, draw.views_N3)
    return draw


def batches(split: Resident, draw: Draw, *, batch_size: int, start: int = 0) -> Iterator[Batch]:
    """The batches of one epoch from step `start` of it on."""
    device = split.labels_N.device
    samples_N, views_N3 = draw.samples_N.to(device), draw.views_N3.to(device)
    for first in range(start * batch_size, len(split), batch_size):
        part = slice(first, first + batch_size)
        yield Batch(
            augmented(split, samples_N[part], views_N3[part]),
            split.labels_N[samples_N[part]],
            draw.samples_N[part],
            draw.views_N3[part],
        )


def num_views(augmentation: Augmentation) -> int:
    """How many different views of a sample there are."""
    return {"none": 1, "flip": 2, "crop_flip": 2 * (2 * PADDING + 1) ** 2}[augmentation]


def view_numbers(views_N3: Tensor, augmentation: Augmentation) -> Tensor:
    """Each view as a number below `num_views`."""
    rows_N, columns_N, flips_N = views_N3.unbind(1)
    if augmentation == "crop_flip":
        return (rows_N * (2 * PADDING + 1) + columns_N) * 2 + flips_N
    return flips_N


def views_of(numbers_N: Tensor, augmentation: Augmentation) -> Tensor:
    """The views with these numbers, as `Draw` holds them: shape (N, 3)."""
    centre_N = torch.full_like(numbers_N, PADDING)
    if augmentation != "crop_flip":
        return torch.stack([centre_N, centre_N, numbers_N], dim=1)
    places_N, flips_N = numbers_N // 2, numbers_N % 2
    side = 2 * PADDING + 1
    return torch.stack([places_N // side, places_N % side, flips_N], dim=1)


def augmented(split: Resident, chosen_B: Tensor, views_B3: Tensor) -> Inputs:
    """The chosen samples: images cropped, flipped and standardised, float32 (B, 3, H, W) in channels-last layout; rows and texts as they
    are."""
    if isinstance(split, ResidentRows):
        return split.values_NF[chosen_B]
    if isinstance(split, ResidentTexts):
        return split.tokens(chosen_B)
    size = split.image_size
    steps = torch.arange(size, device=chosen_B.device)
    rows_BH = views_B3[:, :1] + steps
    columns_BW = torch.where(views_B3[:, 2:] == 1, steps.flip(0), steps) + views_B3[:, 1:2]
    images_BHWC = split.images_NHWC[chosen_B[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :]]
    return standardised(split, images_BHWC)


def plain_batches(split: Resident, batch_size: int) -> Iterator[tuple[Inputs, Tensor]]:
    """The whole split in order, without augmentation: samples as in `batches`, and labels."""
    if isinstance(split, ResidentRows):
        for first in range(0, len(split), batch_size):
            yield split.values_NF[first : first + batch_size], split.labels_N[first : first + batch_size]
        return
    if isinstance(split, ResidentTexts):
        for first in range(0, len(split), batch_size):
            samples_B = torch.arange(first, min(first + batch_size, len(split)))
            yield split.tokens(samples_B), split.labels_N[samples_B.to(split.labels_N.device)]
        return
    inner = slice(PADDING, PADDING + split.image_size)
    for first in range(0, len(split), batch_size):
        images_BHWC = split.images_NHWC[first : first + batch_size, inner, inner]
        yield standardised(split, images_BHWC), split.labels_N[first : first + batch_size]


def standardised(split: ResidentSplit, images_BHWC: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) → float32 (B, 3, H, W), channels last in memory."""
    return (images_BHWC.float() * split.scale_C + split.shift_C).permute(0, 3, 1, 2)
