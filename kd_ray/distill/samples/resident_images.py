"""Batches of a pack: which samples, in which order, seen how.

Everything is drawn anew for (seed, epoch), so any step of any epoch can be produced without those before it. Data stay resident on the
device as uint8, and augmentation works on the whole batch; or they stay in their files, and each batch is decoded once for the whole pack,
by the threads of a `Loader`. Both give the same batches to the last bit. Augmentations with endless views always go through the loader.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from kd_ray.data.decoding import decoded, picture
from kd_ray.data.files import ImageFiles
from kd_ray.data.images import Split
from kd_ray.data.modalities import Data
from kd_ray.data.rows import RowData
from kd_ray.data.texts import TextData
from kd_ray.distill.augmentations import AUGMENTATIONS, PADDING, CountableViews, EndlessViews
from kd_ray.distill.image_loader import BlockRequest, Loader
from kd_ray.distill.mixing import Mix
from kd_ray.distill.samples.kind import Draw, Inputs, Resident
from kd_ray.distill.samples.resident_rows import resident_rows
from kd_ray.distill.samples.resident_texts import resident_texts
from kd_ray.groups import Groups
from kd_ray.models import build_model
from kd_ray.seeding import shuffled, stream
from kd_ray.sweep.training import Augmentation, Training


@dataclass(frozen=True, kw_only=True, eq=False)
class ResidentSplit:
    """A split on the training device, with its images or, where they are streamed, without them."""

    images_NHWC: Tensor
    """uint8, with `PADDING` zeros on every side; of no image where they are streamed."""
    labels_N: Tensor
    """int64."""
    scale_C: Tensor
    """Standardisation: pixel · scale + shift."""
    shift_C: Tensor
    files: ImageFiles | None = None
    """Where the images come from, if each comes from a file of its own."""
    loader: Loader = field(default_factory=Loader)
    """Decodes what is not resident."""

    def __len__(self) -> int:
        """Number of samples."""
        return self.labels_N.shape[0]

    @property
    def is_streamed(self) -> bool:
        """Whether the images stay in their files."""
        return len(self.images_NHWC) < len(self)

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
            files=self.files,
            loader=self.loader,
        )

    def inputs(self, samples_B: Tensor, views_B: Tensor, augmentation: Augmentation) -> Tensor:
        """See `Resident`: standardised, float32 (B, 3, H, W) in channels-last layout."""
        views = AUGMENTATIONS[augmentation]
        if self.is_streamed or isinstance(views, EndlessViews):
            views_B = views_B.cpu()
            return _finished(self, self.loader.block(_request(self, samples_B.cpu(), views_B, views)), views_B, views)
        return _cropped(self, self.images_NHWC, samples_B, views.crops(views_B))

    def inputs_ahead(self, draw: Draw, parts: Sequence[slice]) -> Iterator[Tensor] | None:
        """See `Resident`: images that are streamed, or have endless views, are made by the loader's threads."""
        views = AUGMENTATIONS[draw.augmentation]
        if not self.is_streamed and isinstance(views, CountableViews):
            return None
        requests = (_request(self, draw.samples_N[part], draw.views_N[part], views) for part in parts)
        blocks = zip(parts, self.loader.blocks(requests), strict=True)
        return (_finished(self, block_BHWC, draw.views_N[part], views) for part, block_BHWC in blocks)

    def epoch_order(self, order_N: Tensor, *, batch_size: int, seed: int, epoch: int) -> Tensor:
        """See `Resident`: the random one."""
        del batch_size, seed, epoch
        return order_N

    def teacher_order(self, samples_M: Tensor) -> Tensor:
        """See `Resident`: as they are."""
        return torch.arange(len(samples_M))

    def plain_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Resident`."""
        for images_BHWC, labels_B in plain_pixels(self, batch_size):
            yield standardised(self, images_BHWC), labels_B

    def network(self, name: str, num_classes: int) -> nn.Module:
        """See `Resident`."""
        return build_model(name, num_classes=num_classes, image_size=self.image_size)


@dataclass(frozen=True, kw_only=True, eq=False)
class ResidentData:
    """A data set on the training device."""

    train: Resident
    test: Resident
    validation: Resident | None
    num_classes: int
    sensitive_features: Mapping[str, Groups] = field(default_factory=dict)
    """Groups of the training samples, by feature; on the CPU."""


def to_device(data: Data, device: torch.device, *, loader: Loader | None = None) -> ResidentData:
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
    loader = loader or Loader()

    def resident(split: Split) -> ResidentSplit:
        images = torch.as_tensor(split.images_NHWC, device=device)
        std_C = torch.tensor(data.std, dtype=torch.float64)
        mean_C = torch.tensor(data.mean, dtype=torch.float64)
        return ResidentSplit(
            images_NHWC=torch.nn.functional.pad(images, (0, 0, PADDING, PADDING, PADDING, PADDING)),
            labels_N=torch.as_tensor(split.labels_N, device=device),
            scale_C=(1 / (255 * std_C)).float().to(device),
            shift_C=(-mean_C / std_C).float().to(device),
            files=split.files,
            loader=loader,
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
        assert isinstance(self.inputs, Tensor)
        return self.inputs


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


def _plain_request(split: ResidentSplit, samples_B: Tensor) -> BlockRequest:
    """The images of these samples of a streamed split, on the CPU, as they would be resident."""
    files, size, samples = split.files, split.image_size, samples_B.tolist()
    assert files is not None
    return BlockRequest(count=len(samples), side=size, image=lambda i: decoded(files, samples[i], size=size))


def _request(
    split: ResidentSplit, samples_B: Tensor, views_B: Tensor, views: CountableViews | EndlessViews
) -> BlockRequest:
    """The images of these samples, on the CPU: each in its endless view, or else as they would be resident."""
    if isinstance(views, CountableViews):
        return _plain_request(split, samples_B)
    make, numbers, size = views.view, views_B.tolist(), split.image_size
    original = _originals(split, samples_B)
    return BlockRequest(count=len(numbers), side=size, image=lambda i: make(original(i), numbers[i], size))


def _originals(split: ResidentSplit, samples_B: Tensor) -> Callable[[int], Image.Image]:
    """Sample i of these at its own size, or, in a set without files, as it is resident."""
    if (files := split.files) is not None:
        numbers = samples_B.tolist()
        return lambda i: picture(files, numbers[i])
    inner = slice(PADDING, PADDING + split.image_size)
    images_BHWC = split.images_NHWC[samples_B.to(split.images_NHWC.device), inner, inner].cpu().numpy()
    return lambda i: Image.fromarray(images_BHWC[i])


def _finished(
    split: ResidentSplit, block_BHWC: Tensor, views_B: Tensor, views: CountableViews | EndlessViews
) -> Tensor:
    """A block from the loader as the networks take it."""
    device = split.labels_N.device
    block_BHWC = block_BHWC.to(device)
    if isinstance(views, EndlessViews):
        return standardised(split, block_BHWC)
    padded_BHWC = torch.nn.functional.pad(block_BHWC, (0, 0, PADDING, PADDING, PADDING, PADDING))
    every_B = torch.arange(len(padded_BHWC), device=device)
    return _cropped(split, padded_BHWC, every_B, views.crops(views_B.to(device)))


def _cropped(split: ResidentSplit, padded_NHWC: Tensor, chosen_B: Tensor, crops_B3: Tensor) -> Tensor:
    """The chosen ones of some padded images, cropped, flipped and standardised."""
    size = split.image_size
    steps = torch.arange(size, device=chosen_B.device)
    rows_BH = crops_B3[:, :1] + steps
    columns_BW = torch.where(crops_B3[:, 2:] == 1, steps.flip(0), steps) + crops_B3[:, 1:2]
    images_BHWC = padded_NHWC[chosen_B[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :]]
    return standardised(split, images_BHWC)


def plain_pixels(split: ResidentSplit, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The images of a whole split in order, as uint8 (B, H, W, 3), and labels.

    Raises:
        DataError: an image that is streamed cannot be used.
    """
    starts = range(0, len(split), batch_size)
    if split.is_streamed:
        every_N = torch.arange(len(split))
        requests = (_plain_request(split, every_N[first : first + batch_size]) for first in starts)
        for first, block_BHWC in zip(starts, split.loader.blocks(requests), strict=True):
            labels_B = split.labels_N[first : first + batch_size]
            yield block_BHWC.to(labels_B.device), labels_B
        return
    inner = slice(PADDING, PADDING + split.image_size)
    for first in starts:
        yield split.images_NHWC[first : first + batch_size, inner, inner], split.labels_N[first : first + batch_size]


def standardised(split: ResidentSplit, images_BHWC: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) → float32 (B, 3, H, W), channels last in memory."""
    return (images_BHWC.float() * split.scale_C + split.shift_C).permute(0, 3, 1, 2)
