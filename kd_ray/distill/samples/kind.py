"""What training asks of a split on its device, whatever its samples are. Images, rows and texts each have one class that answers.

resident_images.py ResidentSplit   images
resident_rows.py   ResidentRows    rows of numbers
resident_texts.py  ResidentTexts   texts
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from kd_ray.models.text_classifier import Tokens
from kd_ray.sweep.training import Augmentation

Inputs = Tensor | Tokens
"""What networks take: images (B, 3, H, W), standardised float32, channels last in memory; rows (B, F); or tokens."""


class Draw(NamedTuple):
    """The order and the views of one epoch; on the CPU. Drawn from the streams "order" and "views" of (seed, epoch)."""

    samples_N: Tensor
    """Every sample once, in the order of the epoch."""
    views_N: Tensor
    """Number of the view of each place of the order."""
    augmentation: Augmentation
    """What the numbers mean."""


class Resident(Protocol):
    """A split on the training device."""

    @property
    def labels_N(self) -> Tensor:  # noqa: N802 (a shape suffix)
        """int64."""

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

    def network(self, name: str, num_classes: int) -> nn.Module:
        """A network of that name for these samples, with fresh weights from torch's current generator."""
