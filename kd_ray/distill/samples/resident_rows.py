"""Rows of numbers on the training device."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kd_ray.data.row_data import RowData, RowSplit
from kd_ray.distill.image_loader import Loader
from kd_ray.distill.samples.kind import Draw
from kd_ray.metrics.individual import Pairs, choose_pairs
from kd_ray.models.mlp import mlp
from kd_ray.sweep.training import Augmentation

_COLUMNS = 100
"""Numbers in a random row: only the data tell how many there are, and the time of a perceptron hardly depends on it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ResidentRows:
    """A split of rows on the training device."""

    values_NF: Tensor
    """float32, standardised."""
    labels_N: Tensor
    """int64."""

    def __len__(self) -> int:
        """Number of samples."""
        return self.labels_N.shape[0]

    is_streamed = False
    pixels = None

    @property
    def num_columns(self) -> int:
        """Numbers in a row."""
        return self.values_NF.shape[1]

    def to(self, device: torch.device) -> "ResidentRows":
        """A copy on another device."""
        return ResidentRows(values_NF=self.values_NF.to(device), labels_N=self.labels_N.to(device))

    def inputs(self, samples_B: Tensor, views_B: Tensor, augmentation: Augmentation) -> Tensor:
        """See `Resident`: rows have no views."""
        del views_B, augmentation
        return self.values_NF[samples_B]

    def inputs_ahead(self, draw: Draw, parts: Sequence[slice]) -> None:
        """See `Resident`: nothing to prepare."""

    def epoch_order(self, order_N: Tensor, *, batch_size: int, seed: int, epoch: int) -> Tensor:
        """See `Resident`: the random one."""
        del batch_size, seed, epoch
        return order_N

    def teacher_order(self, samples_M: Tensor) -> Tensor:
        """See `Resident`: as they are."""
        return torch.arange(len(samples_M))

    def plain_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Resident`."""
        for first in range(0, len(self), batch_size):
            yield self.values_NF[first : first + batch_size], self.labels_N[first : first + batch_size]

    def pairs(self) -> Pairs:
        """See `Resident`: the distance is between standardised numbers and categories."""
        return choose_pairs(self.values_NF.cpu().numpy())

    def network(self, name: str, num_classes: int) -> nn.Module:
        """See `Resident`."""
        return mlp(name, num_classes, self.num_columns)


class RowKind:
    """See `SampleKind`."""

    def resident(self, data: RowData, split: RowSplit, device: torch.device, loader: Loader) -> ResidentRows:
        """See `SampleKind`."""
        del data, loader
        return ResidentRows(
            values_NF=torch.as_tensor(split.values_NF, dtype=torch.float32, device=device),
            labels_N=torch.as_tensor(split.labels_N, device=device),
        )

    def tensors(self, splits: Mapping[str, ResidentRows], root: Path) -> dict[str, Tensor]:
        """See `SampleKind`."""
        del root
        rows = {f"{name}.rows": split.values_NF for name, split in splits.items()}
        return rows | {f"{name}.labels": split.labels_N for name, split in splits.items()}

    def mapped(self, tensors: Mapping[str, Tensor], name: str, root: Path, loader: Loader) -> ResidentRows:
        """See `SampleKind`."""
        del root, loader
        return ResidentRows(values_NF=tensors[f"{name}.rows"], labels_N=tensors[f"{name}.labels"])

    def random(self, labels_N: Tensor, size: int, generator: torch.Generator) -> ResidentRows:
        """See `SampleKind`: 100 numbers a row."""
        del size
        return ResidentRows(values_NF=torch.randn(len(labels_N), _COLUMNS, generator=generator), labels_N=labels_N)
