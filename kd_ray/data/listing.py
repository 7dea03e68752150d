"""Reads the list of a user's own samples, a CSV or Parquet file with a row for each sample: an image, columns of numbers and categories
or a text, a label, and any number of sensitive features.

Paths of images are relative to the folder of the list and must stay below the data root. Images may have any size and any 8-bit mode. Every
row is used or named: a row that cannot be used is refused with its line, unless the sweep file says that it may be left out.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv, parquet

from kd_ray.data.image_data import random_parts
from kd_ray.data.listed_columns import NONE, Lines, complete_rows, input_columns
from kd_ray.data.listed_images import check_leaks, image_column, image_files, is_below
from kd_ray.data.prepared import Sources
from kd_ray.data.row_data import Column
from kd_ray.errors import DataError, some
from kd_ray.groups import Groups
from kd_ray.seeding import stream
from kd_ray.shown import control_character
from kd_ray.sweep.datasets import Bins, ListedDataset

SPLITS = {"train": 0, "validation": 1, "test": 2}
"""The codes of `Listing.split_N`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """The list, checked: one label, split, group and input for each row that is used."""

    labels_N: npt.NDArray[np.int64]
    split_N: npt.NDArray[np.int64]
    """0 train, 1 validation, 2 test."""
    features: dict[str, Groups]
    inputs: Sources | tuple[Column, ...] | list[str]
    """Images, columns, or texts."""
    digest: str
    """SHA-256 of the list."""
    notes: tuple[str, ...]


def read_listing(dataset: ListedDataset, root: Path) -> Listing:
    """The list, checked; images are not decoded yet. Raises DataError for a list or a row that cannot be used."""
    path = root / dataset.path
    if not is_below(path, root):
        raise DataError(f"manifest: {dataset.path} leads out of the data root {root}; it must be below it")
    table = _table(dataset, path)
    digest = _digest(path)
    lines, notes = Lines(path=path, rows=range(table.num_rows)), list[str]()
    inputs: Sources | None = None
    if dataset.modality != "images":
        kept, notes = complete_rows(dataset, path, lines, table)
        lines = Lines(path=path, rows=kept)
    elif pa.types.is_string(kind := table.schema.field(dataset.image).type) or pa.types.is_large_string(kind):
        lines, inputs, notes = image_files(dataset, root, path, table, digest)
    else:
        inputs = image_column(dataset, lines, table, digest)
    table = table.take(list(lines.rows))
    words = _texts(table.column(dataset.text)) if dataset.text is not None else None
    named = [dataset.target, *dataset.features, *([dataset.split] if dataset.split is not None else [])]
    values = {name: _names(lines, name, _texts(table.column(name))) for name in named}
    labels_N = _labels(dataset, lines, values[dataset.target])
    split_N = _split_codes(dataset, lines, values, len(labels_N))
    if inputs is not None:
        check_leaks(lines, inputs.names, split_N)
    return Listing(
        labels_N=labels_N,
        split_N=split_N,
        features={name: _groups(dataset, lines, name, values[name]) for name in dataset.features},
        inputs=inputs or words or input_columns(dataset, lines, table),
        digest=digest,
        notes=tuple(notes),
    )


def _table(dataset: ListedDataset, path: Path) -> pa.Table:
    """The columns that the data set uses, as text where the list is a CSV file."""
    others = [dataset.target, *([dataset.split] if dataset.split is not None else []), *dataset.features]
    wanted = [*dataset.inputs, *others]
    try:
        if path.suffix == ".parquet":
            present = parquet.read_schema(path).names
        else:
            options = csv.ParseOptions(newlines_in_values=True)
            with csv.open_csv(path, parse_options=options) as reader:
                present = reader.schema.names
        for name in wanted:
            if present.count(name) != 1:
                what = "has no" if name not in present else "has more than one"
                raise DataError(f"manifest: {path} {what} column {name!r}; its columns: {', '.join(present)}")
        wanted = list(dict.fromkeys(wanted))
        if path.suffix == ".parquet":
            table = parquet.read_table(path, columns=wanted)
        else:
            types = csv.ConvertOptions(include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()))
            table = csv.read_csv(path, parse_options=options, convert_options=types)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"manifest: {path} cannot be read: {error}") from error
    if table.num_rows == 0:
        raise DataError(f"manifest: {path} has no rows")
    return table


def _labels(dataset: ListedDataset, lines: Lines, texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Class indices. Raises DataError for a row without a label, or with one that is not among the classes."""
    bins = next((bins for bins in dataset.bins if bins.column == dataset.target), None)
    if bins is not None:
        codes_N = _bin_codes(lines, bins, texts)
    else:
        index = {label: c for c, label in enumerate(dataset.classes)}
        codes_N = np.array([index.get(text, -1) for text in texts], dtype=np.int64)
    if (wrong_M := np.flatnonzero(codes_N < 0)).size:
        counts = Counter(texts[int(n)] or "no label" for n in wrong_M)
        listed = some([f"{text} ({count:,} ×)" for text, count in counts.most_common()])
        valid = some(dataset.class_names)
        raise DataError(
            f"manifest: {lines.place(int(wrong_M[0]))}: {dataset.target}: {len(wrong_M):,} rows are in none of the classes ({valid}): "
            f"{listed}"
        )
    return codes_N


def _split_codes(
    dataset: ListedDataset, lines: Lines, values: dict[str, list[str]], count: int
) -> npt.NDArray[np.int64]:
    """0 train, 1 validation, 2 test for each row."""
    if dataset.split is None:
        assert dataset.test_fraction is not None
        try:
            _, test_M = random_parts(count, fraction=dataset.test_fraction, rng=stream(dataset.split_seed, "split"))
        except ValueError as error:
            raise DataError(f"manifest: test_fraction: {error}") from error
        split_N = np.full(count, SPLITS["train"])
        split_N[test_M] = SPLITS["test"]
        return split_N
    for n, text in enumerate(values[dataset.split]):
        if text not in SPLITS:
            raise DataError(f"manifest: {lines.place(n)}: {dataset.split}: {text!r} is not one of {', '.join(SPLITS)}")
    split_N = np.array([SPLITS[text] for text in values[dataset.split]], dtype=np.int64)
    if dataset.validation_fraction > 0 and (split_N == SPLITS["validation"]).any():
        raise DataError(f"manifest: {lines.path} has validation rows, so validation_fraction must be 0")
    return split_N


def _groups(dataset: ListedDataset, lines: Lines, name: str, texts: Sequence[str]) -> Groups:
    """The groups of each sample in one feature; a row without a value is in no group."""
    bins = next((bins for bins in dataset.bins if bins.column == name), None)
    if bins is not None:
        return Groups.from_codes(_bin_codes(lines, bins, texts), bins.names)
    parts = [
        [part.strip() for part in (text.split(dataset.separator) if dataset.separator else [text])] for text in texts
    ]
    kept = [[part for part in row if part.lower() not in NONE] for row in parts]
    return Groups.from_lists(kept, sorted({part for row in kept for part in row}))


def _bin_codes(lines: Lines, bins: Bins, texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """The bin of each number; -1 where there is none. Raises DataError for a text that is no number."""
    numbers_N = np.full(len(texts), np.nan)
    for n, text in enumerate(texts):
        if text.strip().lower() in NONE:
            continue
        try:
            numbers_N[n] = float(text)
        except ValueError as error:
            raise DataError(
                f"manifest: {lines.place(n)}: {bins.column}: {text!r} is not a number, and it has bins"
            ) from error
    return np.where(np.isnan(numbers_N), -1, np.searchsorted(bins.edges, numbers_N, side="right")).astype(np.int64)


def large_groups(listing: Listing, least: int) -> tuple[dict[str, Groups], list[str]]:
    """The features without groups of fewer than `least` test samples, and a note on each feature that loses a group."""
    is_test_N = listing.split_N == SPLITS["test"]
    features, notes = {}, []
    for feature, groups in listing.features.items():
        counts_G = groups.membership_NG[is_test_N].sum(axis=0)
        kept = np.flatnonzero(counts_G >= least)
        small = [f"{groups.names[g]} (n = {counts_G[g]})" for g in np.flatnonzero(counts_G < least)]
        if small:
            notes.append(f"{feature}: groups with fewer than {least} test samples left out: {some(small)}")
        if len(kept) < 2:
            left = ", ".join(groups.names[g] for g in kept) or "none"
            raise DataError(
                f"manifest: feature {feature} has fewer than two groups with at least {least} test samples (left: {left}; "
                f"too small: {some(small) or 'none'}); remove it from features, or lower min_group_size"
            )
        features[feature] = Groups(
            names=tuple(groups.names[g] for g in kept), membership_NG=groups.membership_NG[:, kept]
        )
    return features, notes


def empty_classes(dataset: ListedDataset, listing: Listing) -> list[str]:
    """A note on the classes without training or test samples."""
    notes = []
    for split in ("train", "test"):
        counts_C = np.bincount(listing.labels_N[listing.split_N == SPLITS[split]], minlength=dataset.num_classes)
        if empty := [dataset.class_names[c] for c in np.flatnonzero(counts_C == 0)]:
            notes.append(f"classes without {split} samples: {some(empty)}")
    return notes


def _names(lines: Lines, column: str, texts: list[str]) -> list[str]:
    """The texts, if none holds a control character."""
    for n, text in enumerate(texts):
        if (character := control_character(text)) is not None:
            raise DataError(f"manifest: {lines.place(n)}: {column}: {text!r} holds the control character {character}")
    return texts


def _texts(column: pa.ChunkedArray) -> list[str]:
    """Values as text; what is missing is empty, and 1.0 is "1"."""
    return [_text(value) for value in column.to_pylist()]


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
