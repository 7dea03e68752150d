"""The interface of a kind of sample: images, rows and texts each have one module with two classes that fulfil it.

`Resident` is a split on its device, `SampleKind` makes one. No other module depends on the type of a split.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import singledispatch
from pathlib import Path
from typing import NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from kd_ray.distill.image_loader import Loader
from kd_ray.metrics.individual import Pairs
from kd_ray.models.text_classifier import Tokens
from kd_ray.sweep.training import Augmentation

Inputs = Tensor | Tokens
"""What networks take: images (B, 3, H, W), standardised float32, on a CPU channels last in memory; rows (B, F); or tokens."""

_LEAST_ROWS = 32


class Draw(NamedTuple):
    """The order and the views of one epoch; on the CPU. Drawn from the streams "order" and "views" of (seed, epoch)."""

    samples_N: Tensor
    """Every sample once, in the order of the epoch."""
    views_N: Tensor
    """Number of the view of each place of the order."""
    augmentation: Augmentation
    """What the numbers mean."""


class PixelRange(NamedTuple):
    """Standardised values of pixels, (3, 1, 1) each."""

    low: Tensor
    """Of black."""
    width: Tensor
    """From black to white."""


class Resident(Protocol):
    """A split on the training device."""

    @property
    def labels_N(self) -> Tensor:  # noqa: N802 (a shape suffix)
        """int64."""

    @property
    def is_streamed(self) -> bool:
        """Whether samples stay in their files and are read batch by batch."""

    @property
    def pixels(self) -> PixelRange | None:
        """The range of the inputs of images; None for other samples."""

    def __len__(self) -> int:
        """Number of samples."""

    def to(self, device: torch.device) -> Self:
        """A copy on another device."""

    def inputs(self, samples_B: Tensor, views_B: Tensor, augmentation: Augmentation) -> Inputs:
        """These samples as networks take them, each in its view. Indices and views are on the device of the split.

        Raises:
            DataError: an image cannot be read.
        """

    def inputs_ahead(self, draw: Draw, parts: Sequence[slice]) -> Iterator[Inputs] | None:
        """The inputs of each part of an epoch, prepared ahead by threads; None where `inputs` needs no preparation."""

    def epoch_order(self, order_N: Tensor, *, batch_size: int, seed: int, epoch: int) -> Tensor:
        """The order of an epoch, from a random one."""

    def teacher_order(self, samples_M: Tensor) -> Tensor:
        """Positions that sort these samples, so that neighbours can be shown to a teacher together; on the CPU, (M,)."""

    def plain_batches(self, batch_size: int) -> Iterator[tuple[Inputs, Tensor]]:
        """The whole split in order, without augmentation: inputs and labels.

        Raises:
            DataError: an image cannot be read.
        """

    def pairs(self) -> Pairs:
        """Pairs of samples for individual fairness, with their Euclidean distances.

        The choice of features is ours: the paper does not state its distance and pairs (see `metrics/individual.py`).

        Raises:
            DataError: an image cannot be read.
        """

    def network(self, name: str, num_classes: int) -> nn.Module:
        """A network of that name for these samples, with fresh weights from torch's current generator."""


D_contra = TypeVar("D_contra", contravariant=True)
S_contra = TypeVar("S_contra", contravariant=True)
R = TypeVar("R")


class SampleKind(Protocol[D_contra, S_contra, R]):
    """Makes the splits of one kind: D_contra is the type of its data sets, S_contra of their splits, R of a split on a device."""

    def resident(self, data: D_contra, split: S_contra, device: torch.device, loader: Loader) -> R:
        """A copy of a split of the data set on a device. The loader decodes images that stay in their files."""

    def tensors(self, splits: Mapping[str, R], root: Path) -> dict[str, Tensor]:
        """The splits as tensors for a file. The labels of split NAME are `NAME.labels`; paths are relative to the data root."""

    def mapped(self, tensors: Mapping[str, Tensor], name: str, root: Path, loader: Loader) -> R:
        """The split of that name, from the tensors of such a file."""

    def random(self, labels_N: Tensor, size: int, generator: torch.Generator) -> R:
        """A split of random samples with these labels. `size` is the side of images or the length of texts."""


def images_of(inputs: Inputs) -> Tensor:
    """The inputs of a data set of images, with the type that says so."""
    assert isinstance(inputs, Tensor)
    return inputs


@singledispatch
def steady_logits(inputs: Inputs, model: nn.Module) -> Tensor:
    """Logits (B, C) of a network. On the CPU those of a sample are the same to the last bit in every batch."""
    del model
    raise TypeError(f"no kind of sample has inputs of type {type(inputs).__name__}")


@steady_logits.register
def _(inputs: Tensor, model: nn.Module) -> Tensor:
    """A small batch is filled up: with few rows, the matrix product of the last layer rounds differently."""
    count = len(inputs)
    if count < _LEAST_ROWS:
        inputs = inputs[places_of_filled(count, inputs.device)]
        if inputs.ndim == 4 and not inputs.is_cuda:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
    logits: Tensor = model(inputs)
    return logits[:count]


def places_of_filled(count: int, device: torch.device) -> Tensor:
    """Indices that repeat `count` rows until there are enough of them."""
    return torch.arange(max(count, _LEAST_ROWS), device=device) % count
