"""Labelled rows of numbers in memory: the type of every tabular data set, and how columns become numbers.

The categories of a column, and the mean and deviation of a number, are taken from the training split alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from kd_ray.data.labelled import Cut, check_labels, check_samples, take_groups
from kd_ray.errors import DataError, some
from kd_ray.groups import Groups


@dataclass(frozen=True, kw_only=True, eq=False)
class RowSplit:
    """N labelled rows. Raises ValueError when shapes or dtypes do not match, or a value is not finite."""

    values_NF: npt.NDArray[np.floating]
    """F numbers for each row."""
    labels_N: npt.NDArray[np.int64]
    """Index into the data set's class names."""
    sensitive_features: Mapping[str, Groups] = field(default_factory=dict)
    """Feature name → groups of these N samples; empty where the data set has none."""

    def __post_init__(self) -> None:
        shape = self.values_NF.shape
        if len(shape) != 2 or not np.issubdtype(self.values_NF.dtype, np.floating):
            raise ValueError(f"rows have shape {shape} and dtype {self.values_NF.dtype}, expected (N, F) floats")
        if not np.isfinite(self.values_NF).all():
            raise ValueError("rows have values that are not finite")
        if self.labels_N.shape != shape[:1]:
            raise ValueError(f"labels have shape {self.labels_N.shape}, expected {shape[:1]}")
        check_samples(self.labels_N, self.sensitive_features)

    @property
    def num_inputs(self) -> int:
        """Numbers in a row."""
        return int(self.values_NF.shape[1])

    def __len__(self) -> int:
        """Number of samples N."""
        return int(self.values_NF.shape[0])

    def take(self, indices_M: npt.NDArray[np.integer]) -> "RowSplit":
        """The samples at `indices_M`, in that order, copied."""
        return RowSplit(
            values_NF=self.values_NF[indices_M],
            labels_N=self.labels_N[indices_M],
            sensitive_features=take_groups(self.sensitive_features, indices_M),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class RowData:
    """One tabular data set. Raises ValueError when a label has no class name, or splits and columns do not match."""

    modality: ClassVar[Literal["rows"]] = "rows"
    train: RowSplit
    test: RowSplit
    validation: RowSplit | None = None
    """None where the sweep asks for no validation split."""
    class_names: tuple[str, ...]
    columns: tuple[str, ...]
    """Names of the F numbers: `age`, or `workclass=Private` for a category."""
    is_number_F: npt.NDArray[np.bool_]
    """False for categories, which stay 0 and 1."""
    test_ids: Sequence[str] | None = None
    """Names of the test samples in their source; None where they are those of image files, or row numbers of the test split."""
    train_ids: Sequence[str] | None = None
    """The same of the training samples, before `cut`."""
    notes: tuple[str, ...] = ()
    """What people should know: rows and groups that were left out."""
    source: str = "rows"
    """Where they come from, for messages."""

    def __post_init__(self) -> None:
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        check_labels(splits, self.class_names)
        for name, split in splits.items():
            if split is None or len(split) == 0:
                continue
            if not split.values_NF.shape[1] == len(self.columns) == len(self.is_number_F):
                raise ValueError(
                    f"{name} rows have {split.values_NF.shape[1]} numbers, expected {len(self.columns)} named columns"
                )

    def cut(self, cut: Cut) -> "RowData":
        """See `ImageData.cut`; numbers are standardised by what is left of the training split."""
        train, held_out = cut(self.train)
        return standardised(replace(self, train=train, validation=held_out or self.validation))


@dataclass(frozen=True, kw_only=True, eq=False)
class Column:
    """One column of a table, before it is numbers."""

    name: str
    values: npt.NDArray[np.float64] | Sequence[str]
    """(N,) or (N, D) numbers, or N categories."""


def encoded(
    columns: Sequence[Column], is_train_N: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], tuple[str, ...], npt.NDArray[np.bool_]]:
    """Numbers as they are, and a 0 or 1 for each category of the training rows, in alphabetical order.

    A category that no training row has becomes 0 throughout: no network could have learned what it means. Shapes: (N, F), F names, (F,).
    """
    parts, names, is_number = [], [], []
    for column in columns:
        if isinstance(column.values, np.ndarray):
            values_ND = column.values.reshape(len(is_train_N), -1).astype(np.float64)
            width = values_ND.shape[1]
            names += [column.name] if width == 1 else [f"{column.name}[{d}]" for d in range(width)]
        else:
            texts_N = np.array(column.values, dtype=np.str_)
            categories = np.unique(texts_N[is_train_N])
            values_ND = (texts_N[:, None] == categories[None, :]).astype(np.float64)
            names += [f"{column.name}={category}" for category in categories]
        parts.append(values_ND)
        is_number += [isinstance(column.values, np.ndarray)] * values_ND.shape[1]
    return np.concatenate(parts, axis=1), tuple(names), np.array(is_number, dtype=np.bool_)


def standardised(data: RowData) -> RowData:
    """The same rows as float32, each number less its mean over the training split, in units of its standard deviation there (ddof=0).

    A number that is constant in training, up to rounding, is 0 everywhere, and a note names it: no network could have learned what another
    value means. Raises DataError for a value too far from those of training to be a float32.
    """
    constant_F = data.is_number_F & _is_constant(data.train.values_NF)
    unit_F = _unit(data.train.values_NF)
    values_NF = data.train.values_NF / unit_F
    mean_F, std_F = values_NF.mean(axis=0), values_NF.std(axis=0)
    unit_F = np.where(data.is_number_F, unit_F, 1.0)
    shift_F = np.where(data.is_number_F, mean_F, 0.0)
    scale_F = np.where(data.is_number_F & ~constant_F, std_F, 1.0)

    def scaled(name: str, split: RowSplit) -> RowSplit:
        with np.errstate(over="ignore"):
            far_NF = np.where(constant_F, 0.0, (split.values_NF / unit_F - shift_F) / scale_F)
            values_NF = far_NF.astype(np.float32)
        if (wrong := np.argwhere(~np.isfinite(values_NF))).size:
            n, f = wrong[0]
            raise DataError(
                f"{data.source}: column {data.columns[f]}: {name} row {n + 1} has {split.values_NF[n, f]:g}, too far from the training "
                f"rows (mean {mean_F[f] * unit_F[f]:g}, standard deviation {std_F[f] * unit_F[f]:g}) to be standardised"
            )
        return replace(split, values_NF=values_NF)

    names = [data.columns[f] for f in np.flatnonzero(constant_F)]
    return replace(
        data,
        train=scaled("training", data.train),
        test=scaled("test", data.test),
        validation=scaled("validation", data.validation) if data.validation is not None else None,
        notes=(*data.notes, *([f"constant in the training rows, so 0 everywhere: {some(names)}"] if names else [])),
    )


def _is_constant(values_NF: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Whether the numbers of a column differ by no more than rounding does: 4 units of the precision of their largest.

    The precision is that of float32 for a column of fractions that all are float32 numbers, else that of float64.
    """
    largest_F, range_F = np.abs(values_NF).max(axis=0), np.ptp(values_NF / 2, axis=0)
    with np.errstate(over="ignore"):
        is_float32_F = (values_NF.astype(np.float32) == values_NF).all(axis=0) & (values_NF != np.rint(values_NF)).any(
            axis=0
        )
    precision_F = np.where(is_float32_F, np.finfo(np.float32).eps, np.finfo(np.float64).eps)
    return np.asarray(range_F <= 2 * precision_F * largest_F)


def _unit(values_NF: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """A power of 2 by which a column is divided, so that sums of its squares neither overflow nor vanish; 1 for usual magnitudes."""
    _, exponent_F = np.frexp(np.abs(values_NF).max(axis=0))
    return np.ldexp(1.0, np.where(np.abs(exponent_F) > 300, exponent_F - 1, 0))
