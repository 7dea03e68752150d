"""The properties that images, rows and texts share: labels, groups, and the selection of samples."""

from collections.abc import Mapping, Sequence
from typing import Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from kd_ray.groups import Groups


class Labelled(Protocol):
    """N labelled samples: images, rows or texts."""

    @property
    def labels_N(self) -> npt.NDArray[np.int64]:  # noqa: N802 (a shape suffix)
        """Index into the data set's class names."""

    @property
    def sensitive_features(self) -> Mapping[str, Groups]:
        """Feature name → groups of the samples."""

    def __len__(self) -> int:
        """Number of samples N."""

    def take(self, indices_M: npt.NDArray[np.integer]) -> Self:
        """The samples at `indices_M`, in that order, copied."""


def check_labels(splits: Mapping[str, Labelled | None], class_names: Sequence[str]) -> None:
    """Raises ValueError when a label has no class name."""
    for name, split in splits.items():
        if split is None or len(split) == 0:
            continue
        lowest, highest = int(split.labels_N.min()), int(split.labels_N.max())
        if lowest < 0 or highest >= len(class_names):
            raise ValueError(f"{name} labels lie in {lowest}..{highest}, expected 0..{len(class_names) - 1}")


S = TypeVar("S", bound=Labelled)
"""A function that takes images, rows or texts and returns the same type."""
