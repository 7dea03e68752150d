"""Rows of numbers on the training device, and the network that takes what a data set holds."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kd_ray.data.rows import RowSplit


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

    @property
    def num_columns(self) -> int:
        """Numbers in a row."""
        return self.values_NF.shape[1]

    def to(self, device: torch.device) -> "ResidentRows":
        """A copy on another device."""
        return ResidentRows(values_NF=self.values_NF.to(device), labels_N=self.labels_N.to(device))


def resident_rows(split: RowSplit, device: torch.device) -> ResidentRows:
    """Copy a split to the training device."""
    return ResidentRows(
        values_NF=torch.as_tensor(split.values_NF, dtype=torch.float32, device=device),
        labels_N=torch.as_tensor(split.labels_N, device=device),
    )
