"""Images on the training device.

Images stay resident on the device as uint8, and augmentation works on the whole batch; or they stay in their files, and the threads of a
`Loader` decode each batch once for the whole pack. Both give the same batches to the last bit. Augmentations with endless views always use
the loader.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from kd_ray.data.decoding import decoded, picture
from kd_ray.data.files import ImageFiles
from kd_ray.data.image_data import ImageData, Split
from kd_ray.distill.augmentations import AUGMENTATIONS, PADDING, CountableViews, EndlessViews
from kd_ray.distill.image_loader import BlockRequest, Loader
from kd_ray.distill.samples.kind import Draw, PixelRange
from kd_ray.metrics.individual import Pairs, choose_pairs
from kd_ray.models import build_model
from kd_ray.sweep.training import Augmentation

PAIR_IMAGE_SIZE = 32
"""Images are averaged to at most this side before distances between them are taken."""
_PAIR_BLOCK = 100
"""Images whose features are computed together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ResidentImages:
    """A split on the training device, with its images or, where they are streamed, without them."""

    images_NHWC: Tensor
    """uint8, with `PADDING` zeros on every side; of no image where they are streamed."""
    labels_N: Tensor
    """int64."""
    mean: tuple[float, ...]
    """Per channel, for pixels in 0..1: standardised = (pixel / 255 − mean) / std."""
    std: tuple[float, ...]
    """Per channel, for pixels in 0..1."""
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

    @cached_property
    def scale_C(self) -> Tensor:  # noqa: N802 (a shape suffix)
        """Standardised = pixel · scale + shift, for pixels in 0..255."""
        return (1 / (255 * torch.tensor(self.std, dtype=torch.float64))).float().to(self.labels_N.device)

    @cached_property
    def shift_C(self) -> Tensor:  # noqa: N802 (a shape suffix)
        """See `scale_C`."""
        mean_C, std_C = (torch.tensor(each, dtype=torch.float64) for each in (self.mean, self.std))
        return (-mean_C / std_C).float().to(self.labels_N.device)

    @property
    def pixels(self) -> PixelRange:
        """See `Resident`."""
        return PixelRange(self.shift_C.view(3, 1, 1), 255 * self.scale_C.view(3, 1, 1))

    def to(self, device: torch.device) -> "ResidentImages":
        """A copy on another device."""
        return replace(self, images_NHWC=self.images_NHWC.to(device), labels_N=self.labels_N.to(device))

    def inputs(self, samples_B: Tensor, views_B: Tensor, augmentation: Augmentation) -> Tensor:
        """See `Resident`: standardised, float32 (B, 3, H, W) in channels-last layout."""
        views = AUGMENTATIONS[augmentation]
        if self.is_streamed or isinstance(views, EndlessViews):
            views_B = views_B.cpu()
            return _finished(self, self.loader.block(_request(self, samples_B.cpu(), views_B, views)), views_B, views)
        if views.num_views == 1:
            return standardised(self, _without_padding(self.images_NHWC).index_select(0, samples_B))
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

    def pairs(self) -> Pairs:
        """See `Resident`: the distance is between standardised pixels, averaged to at most 32 × 32."""
        mean_C, std_C = torch.tensor(self.mean).view(3, 1, 1), torch.tensor(self.std).view(3, 1, 1)
        features = []
        # A block at a time: a split of large images as float would take four times its memory.
        for images_BHWC, _ in plain_pixels(self, _PAIR_BLOCK):
            images_BCHW = images_BHWC.cpu().permute(0, 3, 1, 2).float()
            if images_BCHW.shape[-1] > PAIR_IMAGE_SIZE:
                images_BCHW = torch.nn.functional.adaptive_avg_pool2d(images_BCHW, PAIR_IMAGE_SIZE)
            features.append(((images_BCHW / 255 - mean_C) / std_C).flatten(1))
        return choose_pairs(torch.cat(features).numpy())

    def network(self, name: str, num_classes: int) -> nn.Module:
        """See `Resident`."""
        return build_model(name, num_classes=num_classes, image_size=self.image_size)


class ImageKind:
    """See `SampleKind`."""

    def resident(self, data: ImageData, split: Split, device: torch.device, loader: Loader) -> ResidentImages:
        """See `SampleKind`: images get a border of zeros, and stay in their files where the data set says so."""
        images = torch.as_tensor(split.images_NHWC, device=device)
        return ResidentImages(
            images_NHWC=torch.nn.functional.pad(images, (0, 0, PADDING, PADDING, PADDING, PADDING)),
            labels_N=torch.as_tensor(split.labels_N, device=device),
            mean=data.mean,
            std=data.std,
            files=split.files,
            loader=loader,
        )

    def tensors(self, splits: Mapping[str, ResidentImages], root: Path) -> dict[str, Tensor]:
        """See `SampleKind`: mean, std and the names of files are the same in all splits, so they are kept once."""
        train = splits["train"]
        found = {
            "mean": torch.tensor(train.mean, dtype=torch.float64),
            "std": torch.tensor(train.std, dtype=torch.float64),
        }
        if train.files is not None:
            # Relative to the root, which may be another path on the next machine.
            folder = os.path.relpath(train.files.folder, root).encode()
            found["files.folder"] = torch.tensor(list(folder), dtype=torch.uint8)
            found["files.crop"] = torch.tensor(train.files.crop or 0)
            found["files.text"] = torch.from_numpy(np.array(train.files.text))
        for name, split in splits.items():
            found |= {f"{name}.images": split.images_NHWC, f"{name}.labels": split.labels_N}
            if split.files is not None:
                found[f"{name}.starts"] = torch.from_numpy(split.files.starts_N)
                found[f"{name}.ends"] = torch.from_numpy(split.files.ends_N)
        return found

    def mapped(self, tensors: Mapping[str, Tensor], name: str, root: Path, loader: Loader) -> ResidentImages:
        """See `SampleKind`."""
        files = None
        if "files.text" in tensors:
            files = ImageFiles(
                folder=Path(os.path.normpath(root / bytes(tensors["files.folder"].tolist()).decode())),
                crop=int(tensors["files.crop"]) or None,
                text=tensors["files.text"].numpy(),
                starts_N=tensors[f"{name}.starts"].numpy(),
                ends_N=tensors[f"{name}.ends"].numpy(),
            )
        return ResidentImages(
            images_NHWC=tensors[f"{name}.images"],
            labels_N=tensors[f"{name}.labels"],
            mean=tuple(tensors["mean"].tolist()),
            std=tuple(tensors["std"].tolist()),
            files=files,
            loader=loader,
        )

    def random(self, labels_N: Tensor, size: int, generator: torch.Generator) -> ResidentImages:
        """See `SampleKind`: squares of `size` pixels."""
        side = size + 2 * PADDING
        return ResidentImages(
            images_NHWC=torch.randint(256, (len(labels_N), side, side, 3), dtype=torch.uint8, generator=generator),
            labels_N=labels_N,
            mean=(0.5, 0.5, 0.5),
            std=(1.0, 1.0, 1.0),
        )


def _plain_request(split: ResidentImages, samples_B: Tensor) -> BlockRequest:
    """The images of these samples of a streamed split, on the CPU, as they would be resident."""
    files, size, samples = split.files, split.image_size, samples_B.tolist()
    assert files is not None
    return BlockRequest(count=len(samples), side=size, image=lambda i: decoded(files, samples[i], size=size))


def _request(
    split: ResidentImages, samples_B: Tensor, views_B: Tensor, views: CountableViews | EndlessViews
) -> BlockRequest:
    """The images of these samples, on the CPU: each in its endless view, or else as they would be resident."""
    if isinstance(views, CountableViews):
        return _plain_request(split, samples_B)
    make, numbers, size = views.view, views_B.tolist(), split.image_size
    original = _originals(split, samples_B)
    return BlockRequest(count=len(numbers), side=size, image=lambda i: make(original(i), numbers[i], size))


def _originals(split: ResidentImages, samples_B: Tensor) -> Callable[[int], Image.Image]:
    """Sample i of these at its own size, or, in a set without files, as it is resident."""
    if (files := split.files) is not None:
        numbers = samples_B.tolist()
        return lambda i: picture(files, numbers[i])
    images_BHWC = _without_padding(split.images_NHWC)[samples_B.to(split.images_NHWC.device)].cpu().numpy()
    return lambda i: Image.fromarray(images_BHWC[i])


def _finished(
    split: ResidentImages, block_BHWC: Tensor, views_B: Tensor, views: CountableViews | EndlessViews
) -> Tensor:
    """A block from the loader as the networks take it."""
    device = split.labels_N.device
    block_BHWC = block_BHWC.to(device)
    if isinstance(views, EndlessViews):
        return standardised(split, block_BHWC)
    padded_BHWC = torch.nn.functional.pad(block_BHWC, (0, 0, PADDING, PADDING, PADDING, PADDING))
    every_B = torch.arange(len(padded_BHWC), device=device)
    return _cropped(split, padded_BHWC, every_B, views.crops(views_B.to(device)))


def _cropped(split: ResidentImages, padded_NHWC: Tensor, chosen_B: Tensor, crops_B3: Tensor) -> Tensor:
    """The chosen ones of some padded images, cropped, flipped and standardised."""
    size = split.image_size
    steps = torch.arange(size, device=chosen_B.device)
    rows_BH = crops_B3[:, :1] + steps
    columns_BW = torch.where(crops_B3[:, 2:] == 1, steps.flip(0), steps) + crops_B3[:, 1:2]
    rows_BHR = padded_NHWC[chosen_B[:, None], rows_BH].flatten(2)
    bytes_BR = (3 * columns_BW[:, :, None] + torch.arange(3, device=chosen_B.device)).flatten(1)
    images_BHWC = rows_BHR.gather(2, bytes_BR[:, None].expand(-1, size, -1)).view(-1, size, size, 3)
    return standardised(split, images_BHWC)


def plain_pixels(split: ResidentImages, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
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
    images_NHWC = _without_padding(split.images_NHWC)
    for first in starts:
        yield images_NHWC[first : first + batch_size], split.labels_N[first : first + batch_size]


def _without_padding(padded_NHWC: Tensor) -> Tensor:
    return padded_NHWC[:, PADDING:-PADDING, PADDING:-PADDING]


def standardised(split: ResidentImages, images_BHWC: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) → float32 (B, 3, H, W), channels last in memory; on a GPU contiguous, where weights decide the layout."""
    # Pixel rows of W · 3 numbers: three numbers at a time are too few for vector instructions.
    width = images_BHWC.shape[2]
    rows_BHR = images_BHWC.float().flatten(2) * split.scale_C.repeat(width) + split.shift_C.repeat(width)
    images_BCHW = rows_BHR.view(images_BHWC.shape).permute(0, 3, 1, 2)
    return images_BCHW.contiguous() if images_BCHW.is_cuda else images_BCHW
