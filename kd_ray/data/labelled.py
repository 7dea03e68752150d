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

    @property
    def num_inputs(self) -> int:
        """Side of the images in pixels, numbers in a row, or tokens of the longest text."""

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


def check_samples(labels_N: npt.NDArray[np.int64], sensitive_features: Mapping[str, Groups]) -> None:
    """Raises ValueError unless labels are int64 and each sensitive feature has the groups of as many samples."""
    if labels_N.dtype != np.int64:
        raise ValueError(f"labels have dtype {labels_N.dtype}, expected int64")
    for name, groups in sensitive_features.items():
        if len(groups) != len(labels_N):
            raise ValueError(f"sensitive feature {name!r} has {len(groups)} samples, expected {len(labels_N)}")


def take_groups(sensitive_features: Mapping[str, Groups], indices_M: npt.NDArray[np.integer]) -> dict[str, Groups]:
    """The groups of the samples at `indices_M`, by feature."""
    return {name: groups.take(indices_M) for name, groups in sensitive_features.items()}


S = TypeVar("S", bound=Labelled)
"""A function that takes images, rows or texts and returns the same type."""


class Cut(Protocol):
    """Takes a training split; returns the samples to train on, and those drawn for validation, if any."""

    def __call__(self, train: S) -> tuple[S, S | None]:
        """Samples of the same type."""
