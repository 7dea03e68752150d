"""The columns of a list that are a network's inputs: numbers, lists of numbers, and categories."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kd_ray.data.listed_values import comma_advice, texts_of
from kd_ray.data.row_data import Column
from kd_ray.errors import DataError, some
from kd_ray.sweep.datasets import ListedDataset


@dataclass(frozen=True, kw_only=True)
class Lines:
    """The place of each used row in the list, for messages."""

    path: Path
    rows: Sequence[int]
    """For each row, its number in the list, from 0."""
    line_of: Sequence[int] | None = None
    """For each row of a CSV file, its line, from 1."""

    def place(self, n: int, *, short: bool = False) -> str:
        """The line of row n in a CSV file, or its number in a Parquet file."""
        row = f"row {self.rows[n] + 1}" if self.line_of is None else f"line {self.line_of[self.rows[n]]}"
        return row if short else f"{self.path}, {row}"


def complete_rows(dataset: ListedDataset, path: Path, lines: Lines, table: pa.Table) -> tuple[Sequence[int], list[str]]:
    """The rows that have a value in every input column, and a note on the rows that are left out.

    Raises DataError when rows lack one and the sweep file does not allow it, or all do.
    """
    missing: dict[int, str] = {}
    for name in dataset.inputs:
        for n, value in enumerate(table.column(name).to_pylist()):
            if _is_missing(dataset, name, value):
                missing.setdefault(n, name)
    if not missing:
        return range(table.num_rows), []
    listed = some([f"{missing[n]} ({lines.place(n, short=True)})" for n in sorted(missing)])
    counts = f"{len(missing):,} of {table.num_rows:,} rows"
    if dataset.missing == "refuse":
        raise DataError(
            f"manifest: {path}: {counts} lack a value in {dataset.text or 'one of dataset.columns'}: {listed}; "
            "`dataset.missing: leave_out` leaves these rows out"
        )
    if len(missing) == table.num_rows:
        raise DataError(f"manifest: {path}: none of its {table.num_rows:,} rows has a value in every column")
    kept = [n for n in range(table.num_rows) if n not in missing]
    return kept, [f"{counts} left out, which lack a value: {listed}"]


def input_columns(dataset: ListedDataset, lines: Lines, table: pa.Table) -> tuple[Column, ...]:
    """The columns in the order of the sweep file. Raises DataError for a value that is neither a number nor in a column of categories."""
    columns = []
    for name in dataset.columns:
        values = table.column(name).to_pylist()
        is_list = values and isinstance(values[0], list)
        if name in dataset.categorical:
            if is_list:
                raise DataError(f"manifest: {lines.place(0)}: {name}: a list cannot be a category")
            columns.append(Column(name=name, values=texts_of(table.column(name), f"{lines.path}: {name}")))
        else:
            columns.append(
                Column(name=name, values=_lists(name, lines, values) if is_list else _numbers(name, lines, values))
            )
    return tuple(columns)


def _numbers(name: str, lines: Lines, values: Sequence[Any]) -> npt.NDArray[np.float64]:
    numbers_N = np.empty(len(values))
    for n, value in enumerate(values):
        try:
            numbers_N[n] = float(value)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"manifest: {lines.place(n)}: {name}: {value!r} is not a number"
                + (comma_advice(str(value)) or "; `dataset.categorical` names the columns of categories")
            ) from error
        if not math.isfinite(numbers_N[n]):
            raise DataError(f"manifest: {lines.place(n)}: {name}: {value!r} is not a finite number")
    return numbers_N


def _lists(name: str, lines: Lines, values: Sequence[list[Any]]) -> npt.NDArray[np.float64]:
    length = len(values[0])
    for n, value in enumerate(values):
        if len(value) != length or length == 0:
            raise DataError(
                f"manifest: {lines.place(n)}: {name}: {len(value):,} numbers, and the first row has {length:,}"
            )
        # A missing number within a list is refused, not left out.
        if any(not isinstance(each, int | float) or not math.isfinite(each) for each in value):
            raise DataError(f"manifest: {lines.place(n)}: {name}: has values that are not finite numbers")
    return np.array(values, dtype=np.float64)


def _is_missing(dataset: ListedDataset, name: str, value: Any) -> bool:
    """Whether there is no value; a number that is NaN is none."""
    if isinstance(value, float):
        return math.isnan(value)
    if not isinstance(value, str):
        return value is None
    text = value.strip()
    is_number = bool(dataset.columns) and name not in dataset.categorical
    return not text or text in dataset.missing_values or (is_number and text.lower() == "nan")
