"""Images, rows or texts of the user's own, listed in a CSV or Parquet file: a row for each, with an image, columns of numbers and
categories (`manifest_columns`) or a text, a label, and any number of sensitive columns.

Paths of images are relative to the list's folder and must stay below the data root; links that lie there are followed. Images may have
any size and any 8-bit mode: the central square of each is resized, once per node (`prepared`). Every row is used or named: what cannot be
used is refused, with its line, unless the sweep file says that it may be left out.
"""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv, parquet

from kd_ray.data.images import ImageData, Split, random_parts
from kd_ray.data.manifest_columns import NONE, complete_rows, input_columns
from kd_ray.data.normalization import NORMALIZATIONS
from kd_ray.data.originals import fingerprint_of_digests
from kd_ray.data.prepared import OnProgress, Sources, files_below, prepare, some
from kd_ray.data.rows import Column, RowData, RowSplit, encoded
from kd_ray.data.texts import TextData, TextSplit, tokenised
from kd_ray.errors import DataError
from kd_ray.groups import Groups
from kd_ray.seeding import stream
from kd_ray.sweep.datasets import Bins, ManifestDataset

_SPLITS = {"train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True, kw_only=True)
class _Lines:
    """Where the rows that are used stand, for messages."""

    path: Path
    rows: Sequence[int]
    """For each row, its number in the list, from 0."""

    def place(self, n: int, *, short: bool = False) -> str:
        """Where row n stands: a line of a CSV file that has no line breaks in its values."""
        row = f"line {self.rows[n] + 2}" if self.path.suffix == ".csv" else f"row {self.rows[n] + 1}"
        return row if short else f"{self.path}, {row}"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rows:
    """The list, checked."""

    labels_N: npt.NDArray[np.int64]
    split_N: npt.NDArray[np.int64]
    """0 train, 1 validation, 2 test."""
    features: dict[str, Groups]
    inputs: Sources | tuple[Column, ...] | list[str]
    """Images, columns, or texts."""
    digest: str
    """SHA-256 of the list."""
    notes: tuple[str, ...]


def fingerprint(
    dataset: ManifestDataset,
    *,
    root: Path,
    processes: int = 1,
    on_progress: OnProgress | None = None,
    resident_bytes: int | None = None,
) -> str:
    """16 hex digits that stand for the list and the images. Raises DataError for whatever `load` does not take."""
    rows = _read(dataset, root)
    if not isinstance(rows.inputs, Sources):
        return _fingerprint_of_rows(rows)
    return prepare(
        root,
        "manifest",
        rows.inputs,
        size=_side(dataset),
        processes=processes,
        on_progress=on_progress,
        resident_bytes=resident_bytes,
    ).fingerprint


def load(
    dataset: ManifestDataset,
    *,
    root: Path,
    processes: int = 1,
    on_progress: OnProgress | None = None,
    resident_bytes: int | None = None,
) -> ImageData | RowData | TextData:
    """The listed samples, in the order of the list, in their splits; rows are not standardised yet.

    Raises DataError for a list, row or image that cannot be used, a feature without two groups, and another version than `dataset` names.
    """
    rows = _read(dataset, root)
    prepared = None
    if isinstance(rows.inputs, Sources):
        prepared = prepare(
            root,
            "manifest",
            rows.inputs,
            size=_side(dataset),
            processes=processes,
            on_progress=on_progress,
            resident_bytes=resident_bytes,
        )
    found = prepared.fingerprint if prepared else _fingerprint_of_rows(rows)
    if dataset.version != found:
        what = (
            f"is not version {dataset.version}" if dataset.version else "needs a version, which stands for its contents"
        )
        raise DataError(
            f"manifest: {root / dataset.path} {what}; to use it as it is, write in the sweep file "
            f"`dataset.version: {found!r}`"
        )
    features, notes = _large_groups(rows, dataset.min_group_size)
    notes = [*rows.notes, *notes, *_empty_classes(dataset, rows)]
    if isinstance(rows.inputs, list):
        return _text_data(dataset, root, rows, rows.inputs, features, tuple(notes))
    if prepared is None or not isinstance(rows.inputs, Sources):
        assert not isinstance(rows.inputs, Sources)
        return _row_data(dataset, rows, rows.inputs, features, tuple(notes))

    def split(name: str) -> Split:
        chosen_M = np.flatnonzero(rows.split_N == _SPLITS[name])
        groups = {feature: each.take(chosen_M) for feature, each in features.items()}
        return prepared.split(chosen_M, rows.labels_N[chosen_M], groups)

    mean, std = NORMALIZATIONS[dataset.normalization]
    return ImageData(
        train=split("train"),
        validation=split("validation") if (rows.split_N == _SPLITS["validation"]).any() else None,
        test=split("test"),
        class_names=dataset.class_names,
        mean=mean,
        std=std,
        notes=tuple(notes),
    )


def _row_data(
    dataset: ManifestDataset,
    rows: _Rows,
    columns: tuple[Column, ...],
    features: dict[str, Groups],
    notes: tuple[str, ...],
) -> RowData:
    values_NF, names, is_number_F = encoded(columns, rows.split_N == _SPLITS["train"])
    every = RowSplit(values_NF=values_NF, labels_N=rows.labels_N, sensitive_features=features)
    chosen = {name: np.flatnonzero(rows.split_N == code) for name, code in _SPLITS.items()}
    return RowData(
        train=every.take(chosen["train"]),
        validation=every.take(chosen["validation"]) if len(chosen["validation"]) else None,
        test=every.take(chosen["test"]),
        class_names=dataset.class_names,
        columns=names,
        is_number_F=is_number_F,
        notes=notes,
    )


def _text_data(
    dataset: ManifestDataset,
    root: Path,
    rows: _Rows,
    texts: list[str],
    features: dict[str, Groups],
    notes: tuple[str, ...],
) -> TextData:
    assert dataset.tokenizer is not None
    numbers = tokenised(
        root,
        "manifest",
        texts,
        tokenizer=dataset.tokenizer,
        version=dataset.tokenizer_version,
        max_length=dataset.max_length,
    )
    every = TextSplit(
        ids_NL=numbers.ids_NL, lengths_N=numbers.lengths_N, labels_N=rows.labels_N, sensitive_features=features
    )
    chosen = {name: np.flatnonzero(rows.split_N == code) for name, code in _SPLITS.items()}
    return TextData(
        train=every.take(chosen["train"]),
        validation=every.take(chosen["validation"]) if len(chosen["validation"]) else None,
        test=every.take(chosen["test"]),
        class_names=dataset.class_names,
        notes=notes,
    )


def _fingerprint_of_rows(rows: _Rows) -> str:
    return fingerprint_of_digests({"list": rows.digest})


def _side(dataset: ManifestDataset) -> int:
    assert dataset.size is not None  # checked with the sweep file: only images have one
    return dataset.size


def _read(dataset: ManifestDataset, root: Path) -> _Rows:
    """Everything but the images themselves."""
    path = root / dataset.path
    if not _is_below(path, root):
        raise DataError(f"manifest: {dataset.path} leads out of the data root {root}; it must be below it")
    table = _table(dataset, path)
    digest = _digest(path)
    lines, notes = _Lines(path=path, rows=range(table.num_rows)), list[str]()
    inputs: Sources | None = None
    if dataset.modality != "images":
        kept, notes = complete_rows(dataset, path, lines.place, table)
        lines = _Lines(path=path, rows=kept)
    elif pa.types.is_string(kind := table.schema.field(dataset.image).type) or pa.types.is_large_string(kind):
        lines, inputs, notes = _image_files(dataset, root, path, table, digest)
    else:
        inputs = _image_column(dataset, lines, table, digest)
    table = table.take(list(lines.rows))
    words = _texts(table.column(dataset.text)) if dataset.text is not None else None
    named = [dataset.target, *dataset.features, *([dataset.split] if dataset.split is not None else [])]
    values = {name: _texts(table.column(name)) for name in named}
    labels_N = _labels(dataset, lines, values[dataset.target])
    split_N = _split_codes(dataset, lines, values, len(labels_N))
    if inputs is not None:
        _check_leaks(lines, inputs.names, split_N)
    return _Rows(
        labels_N=labels_N,
        split_N=split_N,
        features={name: _groups(dataset, lines, name, values[name]) for name in dataset.features},
        inputs=inputs or words or input_columns(dataset, lines.place, table),
        digest=digest,
        notes=tuple(notes),
    )


def _table(dataset: ManifestDataset, path: Path) -> pa.Table:
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


def _image_files(
    dataset: ManifestDataset, root: Path, path: Path, table: pa.Table, digest: str
) -> tuple[_Lines, Sources, list[str]]:
    """The rows whose image exists, their images by path below the root, and what was left out."""
    every = _Lines(path=path, rows=range(table.num_rows))
    found, names, missing = [], [], []
    for n, name in enumerate(table.column(dataset.image).to_pylist()):
        if not name or not _is_below(path.parent / name, root):
            what = f"{name!r} leads out of the data root {root}" if name else "there is no path"
            raise DataError(f"manifest: {every.place(n)}: {dataset.image}: {what}")
        full = os.path.normpath(path.parent / name)
        if Path(full).is_file():
            found.append(n)
            names.append(os.path.relpath(full, os.path.normpath(root)))
        else:
            missing.append(f"{name} ({every.place(n, short=True)})")
    if missing and dataset.missing == "refuse":
        raise DataError(
            f"manifest: {path}: {len(missing):,} of {table.num_rows:,} image files do not exist: {some(missing)}; "
            "`dataset.missing: leave_out` goes on without them"
        )
    if not found:
        raise DataError(f"manifest: {path}: none of its {table.num_rows:,} image files exists")
    notes = [f"{len(missing):,} of {table.num_rows:,} rows left out, their image files do not exist: {some(missing)}"]
    images = files_below(Path(os.path.normpath(root)), names, {"list": digest})
    return _Lines(path=path, rows=found), images, notes if missing else []


def _image_column(dataset: ManifestDataset, lines: _Lines, table: pa.Table, digest: str) -> Sources:
    """Images that stand in the list itself."""
    column = table.column(dataset.image)
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if is_list and pa.types.is_uint8(kind.value_type):
        # A header makes them a picture that the one decoder reads.
        size = _side(dataset)
        header, length = f"P6 {size} {size} 255\n".encode(), 3 * size**2
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        header, length = b"", None
    else:
        raise DataError(
            f"manifest: {lines.path}: column {dataset.image!r} is {kind}; expected paths, encoded images (binary), or lists of uint8"
        )

    def read(n: int) -> bytes:
        value = column[n].as_py()
        if value is None or (length is not None and len(value) != length):
            what = (
                "there is none" if value is None else f"{len(value):,} bytes, expected 3 · {dataset.size}² = {length:,}"
            )
            raise DataError(f"manifest: {lines.place(n)}: {dataset.image}: {what}")
        return header + bytes(value)

    names = [f"row {n + 1}" for n in range(table.num_rows)]
    return Sources(names=names, read=read, stamp=f"{digest} {dataset.image}", lists={"list": digest})


def _labels(dataset: ManifestDataset, lines: _Lines, texts: Sequence[str]) -> npt.NDArray[np.int64]:
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
    dataset: ManifestDataset, lines: _Lines, values: dict[str, list[str]], count: int
) -> npt.NDArray[np.int64]:
    """0 train, 1 validation, 2 test for each row."""
    if dataset.split is None:
        assert dataset.test_fraction is not None
        try:
            _, test_M = random_parts(count, fraction=dataset.test_fraction, rng=stream(dataset.split_seed, "split"))
        except ValueError as error:
            raise DataError(f"manifest: test_fraction: {error}") from error
        split_N = np.full(count, _SPLITS["train"])
        split_N[test_M] = _SPLITS["test"]
        return split_N
    for n, text in enumerate(values[dataset.split]):
        if text not in _SPLITS:
            raise DataError(f"manifest: {lines.place(n)}: {dataset.split}: {text!r} is not one of {', '.join(_SPLITS)}")
    split_N = np.array([_SPLITS[text] for text in values[dataset.split]], dtype=np.int64)
    if dataset.validation_fraction > 0 and (split_N == _SPLITS["validation"]).any():
        raise DataError(f"manifest: {lines.path} has validation rows, so validation_fraction must be 0")
    return split_N


def _check_leaks(lines: _Lines, names: Sequence[str], split_N: npt.NDArray[np.int64]) -> None:
    """Raises DataError when one image is in two splits."""
    first: dict[str, int] = {}
    for n, name in enumerate(names):
        other = first.setdefault(name, n)
        if split_N[other] != split_N[n]:
            raise DataError(
                f"manifest: {lines.place(n)}: the image of {lines.place(other, short=True)} again, in another split"
            )


def _groups(dataset: ManifestDataset, lines: _Lines, name: str, texts: Sequence[str]) -> Groups:
    """Who belongs to which group of one feature; a row without a value belongs to none."""
    bins = next((bins for bins in dataset.bins if bins.column == name), None)
    if bins is not None:
        return Groups.from_codes(_bin_codes(lines, bins, texts), bins.names)
    parts = [
        [part.strip() for part in (text.split(dataset.separator) if dataset.separator else [text])] for text in texts
    ]
    kept = [[part for part in row if part.lower() not in NONE] for row in parts]
    return Groups.from_lists(kept, sorted({part for row in kept for part in row}))


def _bin_codes(lines: _Lines, bins: Bins, texts: Sequence[str]) -> npt.NDArray[np.int64]:
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


def _large_groups(rows: _Rows, least: int) -> tuple[dict[str, Groups], list[str]]:
    """The features without groups that have fewer than `least` test samples, and what that leaves out."""
    is_test_N = rows.split_N == _SPLITS["test"]
    features, notes = {}, []
    for feature, groups in rows.features.items():
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


def _empty_classes(dataset: ManifestDataset, rows: _Rows) -> list[str]:
    """What people should know of classes that cannot be learned or measured."""
    notes = []
    for split in ("train", "test"):
        counts_C = np.bincount(rows.labels_N[rows.split_N == _SPLITS[split]], minlength=dataset.num_classes)
        if empty := [dataset.class_names[c] for c in np.flatnonzero(counts_C == 0)]:
            notes.append(f"classes without {split} samples: {some(empty)}")
    return notes


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


def _is_below(path: Path, root: Path) -> bool:
    """Whether a path stays below the root as it is written."""
    top, full = os.path.normpath(root), os.path.normpath(path)
    return os.path.commonpath([Path(top).absolute(), Path(full).absolute()]) == str(Path(top).absolute())
