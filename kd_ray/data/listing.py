"""Reads the list of a user's own samples, a CSV or Parquet file with a row for each sample: an image, columns of numbers and categories
or a text, a label, and any number of sensitive features.

Paths of images are relative to the folder of the list and must stay below the data root. Images may have any size and any 8-bit mode. Every
row is used or named: a row that cannot be used is refused with its line, unless the sweep file says that it may be left out.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kd_ray.data.image_data import random_parts
from kd_ray.data.listed_columns import Lines, complete_rows, input_columns
from kd_ray.data.listed_images import check_leaks, image_column, image_files, is_below, without_structs
from kd_ray.data.listed_values import comma_advice, former_words, read_list, suspicious, texts_in_lists, texts_of
from kd_ray.data.prepared import Sources
from kd_ray.data.row_data import Column
from kd_ray.data.unicode_forms import alike, in_words
from kd_ray.errors import DataError, count_of, some
from kd_ray.groups import Groups
from kd_ray.seeding import stream
from kd_ray.shown import control_character
from kd_ray.sweep.datasets import Bins, ListedDataset

SPLITS = {"train": 0, "validation": 1, "test": 2}
"""The codes of `Listing.split_N`."""
NO_SPLIT = -1
"""The code of a sample that is left out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """The list, checked: one label, split, group and input for each row that is used."""

    labels_N: npt.NDArray[np.int64]
    split_N: npt.NDArray[np.int64]
    """0 train, 1 validation, 2 test."""
    features: dict[str, Groups]
    inputs: Sources | tuple[Column, ...] | list[str]
    """Images, columns, or texts."""
    ids: Sequence[str]
    """A name of each row: its id, its image file as written in the list, or its number."""
    facts: Mapping[str, str]
    """SHA-256 of the list, and whether its values mean something else than to older versions of kd_ray; part of the fingerprint."""
    notes: tuple[str, ...]


def read_listing(dataset: ListedDataset, root: Path, *, has_new_groups: bool | None = None) -> Listing:
    """The list, checked; images are not decoded yet. Raises DataError for a list or a row that cannot be used.

    `has_new_groups` says whether values of features mean something else than to older versions of kd_ray; left out, they are looked at.
    """
    path = root / dataset.path
    if not is_below(path, root):
        raise DataError(f"manifest: {dataset.path} leads out of the data root {root}; it must be below it")
    named = [dataset.target, *([dataset.split] if dataset.split is not None else []), *dataset.features]
    others = [dataset.id] if dataset.id is not None else []
    read = read_list(path, list(dict.fromkeys([*dataset.inputs, *named, *others])))
    table = read.table
    if table.num_rows == 0:
        raise DataError(f"manifest: {path} has no rows")
    facts = _facts(dataset, path, table, has_new_groups)
    table = without_structs(dataset, table)
    lines, notes = Lines(path=path, rows=range(table.num_rows), line_of=read.line_of), list[str]()
    inputs: Sources | None = None
    if dataset.modality != "images":
        kept, notes = complete_rows(dataset, path, lines, table)
        lines = Lines(path=path, rows=kept, line_of=read.line_of)
    elif pa.types.is_string(kind := table.schema.field(dataset.image).type) or pa.types.is_large_string(kind):
        lines, inputs, notes = image_files(dataset, root, path, table, read.line_of, facts)
    else:
        inputs = image_column(dataset, lines, table, facts)
    table = table.take(list(lines.rows))
    values = {
        name: _without_control_characters(lines, name, texts_of(table.column(name), f"{path}: {name}"))
        for name in named
        if name not in dataset.features
    }
    labels_N = _labels(dataset, lines, values[dataset.target])
    split_N = _split_codes(dataset, lines, values, len(labels_N))
    if inputs is not None:
        check_leaks(lines, inputs.names, split_N)
    features = {name: _groups(dataset, lines, name, table.column(name)) for name in dataset.features}
    texts = texts_of(table.column(dataset.text), f"{path}: {dataset.text}") if dataset.text is not None else None
    columns = input_columns(dataset, lines, table) if dataset.columns else None
    shown = {name: list(groups.names) for name, groups in features.items()}
    shown |= {name: texts_of(table.column(name), f"{path}: {name}") for name in dataset.categorical}
    return Listing(
        labels_N=labels_N,
        split_N=split_N,
        features=features,
        inputs=inputs or texts or columns or (),
        ids=_ids(dataset, lines, table, inputs),
        facts=facts,
        notes=(*notes, *(note for name, found in shown.items() for note in suspicious(name, found))),
    )


def _ids(dataset: ListedDataset, lines: Lines, table: pa.Table, inputs: Sources | None) -> Sequence[str]:
    """See `Listing.ids`. Raises DataError for an id that is missing, or that two rows have."""
    if dataset.id is None:
        if inputs is not None and inputs.folder is not None:
            return texts_of(table.column(dataset.image), f"{lines.path}: {dataset.image}")
        return [str(row) for row in lines.rows]
    ids = texts_of(table.column(dataset.id), f"{lines.path}: {dataset.id}")
    place_of: dict[str, int] = {}
    for n, name in enumerate(_without_control_characters(lines, dataset.id, ids)):
        if not name or name in place_of:
            what = "is empty" if not name else f"{name!r} is also in {lines.place(place_of[name], short=True)}"
            raise DataError(f"manifest: {lines.place(n)}: {dataset.id}: {what}; each row needs an id of its own")
        place_of[name] = n
    return ids


def _facts(dataset: ListedDataset, path: Path, table: pa.Table, has_new_groups: bool | None) -> dict[str, str]:
    """See `Listing.facts`. Lists that mean what they meant keep their fingerprint, and with it all trials."""
    of_features = {bins.column for bins in dataset.bins} - {dataset.target}
    edges = {bins.column: bins.edges for bins in dataset.bins}

    def is_new(name: str) -> bool:
        kind = table.column(name).type
        if any(float(f"{edge:g}") != edge for edge in edges.get(name, ())):
            return True
        if pa.types.is_nested(kind) or pa.types.is_float32(kind) or pa.types.is_float16(kind):
            return True
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return True
        has_words = name not in of_features and name != dataset.target
        return has_words and former_words(texts_of(table.column(name), f"{path}: {name}"))

    inputs = {*dataset.categorical, dataset.target}
    if has_new_groups is None:
        has_new_groups = any(map(is_new, dataset.features))
    return {"list": _digest(path), **({"values": "2"} if has_new_groups or any(map(is_new, inputs)) else {})}


def _labels(dataset: ListedDataset, lines: Lines, texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Class indices. Raises DataError for a row without a label, or with one that is not among the classes."""
    bins = next((bins for bins in dataset.bins if bins.column == dataset.target), None)
    if bins is not None:
        codes_N = _bin_codes(lines, bins, texts, dataset.missing_values)
    else:
        index = {label: c for c, label in enumerate(dataset.classes)}
        codes_N = np.array([index.get(text, -1) for text in texts], dtype=np.int64)
    if (wrong_M := np.flatnonzero(codes_N < 0)).size:
        counts = Counter(texts[int(n)] or "no label" for n in wrong_M)
        listed = some([f"{text} ({count:,} ×)" for text, count in counts.most_common()])
        valid = some(dataset.class_names)
        outside = (
            f"{count_of(len(wrong_M), 'row')} {'is' if len(wrong_M) == 1 else 'are'} in none of the classes ({valid})"
        )
        raise DataError(
            f"manifest: {lines.place(int(wrong_M[0]))}: {dataset.target}: {outside}: "
            f"{listed}{_other_form(counts, dataset.class_names)}"
        )
    return codes_N


def _other_form(labels: Iterable[str], classes: Sequence[str]) -> str:
    """What to do where labels look like classes and are other characters, as the end of a message."""
    if (found := alike((label for label in labels if label not in classes), classes)) is None:
        return ""
    return (
        f"; of the list and of `dataset.classes`, {in_words(*found)}: write both in the Unicode form NFC, or copy the "
        "label from the list"
    )


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


def _groups(dataset: ListedDataset, lines: Lines, name: str, column: pa.ChunkedArray) -> Groups:
    """The groups of each sample in one feature: those of a list, or the parts between separators. A row without a value is in none."""
    bins = next((bins for bins in dataset.bins if bins.column == name), None)
    place = f"{lines.path}: {name}"
    if bins is not None:
        return Groups.from_codes(_bin_codes(lines, bins, texts_of(column, place), dataset.missing_values), bins.names)
    parts = texts_in_lists(column, place)
    if parts is None:
        separator = dataset.separator
        parts = [
            [part.strip() for part in (text.split(separator) if separator else [text])]
            for text in texts_of(column, place)
        ]
    _without_control_characters(lines, name, ["".join(row) for row in parts])
    none = {"", *dataset.missing_values}
    kept = [[part for part in row if part not in none] for row in parts]
    return Groups.from_lists(kept, sorted({part for row in kept for part in row}))


def _bin_codes(lines: Lines, bins: Bins, texts: Sequence[str], missing: Sequence[str] = ()) -> npt.NDArray[np.int64]:
    """The bin of each number; -1 where there is none. Raises DataError for a text that is no number."""
    numbers_N = np.full(len(texts), np.nan)
    for n, text in enumerate(texts):
        if not text.strip() or text in missing:
            continue
        try:
            numbers_N[n] = float(text)
        except ValueError as error:
            raise DataError(
                f"manifest: {lines.place(n)}: {bins.column}: {text!r} is not a number, and it has bins"
                + (comma_advice(text) or "; `dataset.missing_values` names texts that mean that there is none")
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
        features[feature] = groups.only(kept)
    return features, notes


def empty_classes(dataset: ListedDataset, listing: Listing) -> list[str]:
    """A note on the classes without training or test samples."""
    notes = []
    for split in ("train", "test"):
        counts_C = np.bincount(listing.labels_N[listing.split_N == SPLITS[split]], minlength=dataset.num_classes)
        if empty := [dataset.class_names[c] for c in np.flatnonzero(counts_C == 0)]:
            notes.append(f"classes without {split} samples: {some(empty)}")
    return notes


def _without_control_characters(lines: Lines, column: str, texts: list[str]) -> list[str]:
    """The texts. Raises DataError for one that holds a control character."""
    for n, text in enumerate(texts):
        if (character := control_character(text)) is not None:
            raise DataError(f"manifest: {lines.place(n)}: {column}: {text!r} holds the control character {character}")
    return texts


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
