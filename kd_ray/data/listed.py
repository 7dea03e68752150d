"""Images, rows or texts of the user's own, listed in a CSV or Parquet file: the family `manifest` of data sets.

`listing` reads and checks the list, `listed_images` and `listed_columns` its inputs.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kd_ray.data.family import Family, Loading
from kd_ray.data.image_data import ImageData
from kd_ray.data.listed_images import image_side
from kd_ray.data.listing import NO_SPLIT, SPLITS, Listing, empty_classes, large_groups, read_listing
from kd_ray.data.modalities import Data
from kd_ray.data.normalization import moments_of
from kd_ray.data.originals import fingerprint_of_digests
from kd_ray.data.prepared import Prepared, Sources, prepare
from kd_ray.data.row_data import Column, RowData, RowSplit, encoded
from kd_ray.data.text_data import TextData, TextSplit, tokenised
from kd_ray.errors import DataError, some
from kd_ray.groups import Groups
from kd_ray.sweep.datasets import ListedDataset


def fingerprint(dataset: ListedDataset, loading: Loading) -> str:
    """16 hex digits that stand for the list and the images. Raises DataError for a list that `load` refuses."""
    listing = read_listing(dataset, loading.root)
    return _fingerprint(listing, _prepared(dataset, loading, listing))


def files(dataset: ListedDataset, root: Path) -> tuple[str, ...]:
    """The list, and the image files that it names. Raises DataError for a list that `load` refuses."""
    inputs = read_listing(dataset, root).inputs
    images = inputs.names if isinstance(inputs, Sources) and inputs.folder is not None else ()
    return (dataset.path, *images)


def load(dataset: ListedDataset, loading: Loading) -> Data:
    """The listed samples, in the order of the list, in their splits; rows are not standardised yet.

    Raises DataError for a list, row or image that cannot be used, a feature without two groups, and another version than `dataset` names.
    """
    listing = read_listing(dataset, loading.root)
    prepared = _prepared(dataset, loading, listing)
    found = _fingerprint(listing, prepared)
    if dataset.version != found and not _is_version_with_other_groups(dataset, loading):
        what = (
            f"is not version {dataset.version}" if dataset.version else "needs a version, which stands for its contents"
        )
        raise DataError(
            f"manifest: {loading.root / dataset.path} {what}; to use it as it is, write in the sweep file "
            f"`dataset.version: {found!r}`"
        )
    if prepared is not None and prepared.unusable:
        listing = _without_unusable(listing, prepared)
    features, small = large_groups(listing, dataset.min_group_size)
    notes = (*listing.notes, *small, *empty_classes(dataset, listing))
    if prepared is not None:
        return _image_data(dataset, listing, prepared, features, notes)
    if isinstance(listing.inputs, list):
        return _text_data(dataset, loading, listing, listing.inputs, features, notes)
    assert isinstance(listing.inputs, tuple)
    return _row_data(dataset, listing, loading.root / dataset.path, listing.inputs, features, notes)


def _is_version_with_other_groups(dataset: ListedDataset, loading: Loading) -> bool:
    """Whether the list had this version when it was asked for with other features: new types of values change the fingerprint."""
    if dataset.version is None:
        return False
    listings = (read_listing(dataset, loading.root, has_new_groups=is_new) for is_new in (False, True))
    return any(_fingerprint(it, _prepared(dataset, loading, it)) == dataset.version for it in listings)


def _prepared(dataset: ListedDataset, loading: Loading, listing: Listing) -> Prepared | None:
    """The decoded images; None for rows and texts."""
    if not isinstance(listing.inputs, Sources):
        return None
    skips_unusable = dataset.missing == "leave_out"
    return prepare("manifest", listing.inputs, loading, size=image_side(dataset), skips_unusable=skips_unusable)


def _without_unusable(listing: Listing, prepared: Prepared) -> Listing:
    """The same list with the samples in no split whose images cannot be used, and a note on them."""
    assert isinstance(listing.inputs, Sources)
    numbers = sorted(prepared.unusable)
    if len(numbers) == len(listing.labels_N):
        raise DataError(f"manifest: none of the {len(numbers):,} images can be used; the first: {prepared.unusable[0]}")
    split_N = listing.split_N.copy()
    split_N[numbers] = NO_SPLIT
    listed = some([f"{listing.inputs.names[n]} ({prepared.unusable[n]})" for n in numbers])
    note = f"{len(numbers):,} of {len(split_N):,} rows left out, their images cannot be used: {listed}"
    return replace(listing, split_N=split_N, notes=(*listing.notes, note))


def _fingerprint(listing: Listing, prepared: Prepared | None) -> str:
    return prepared.fingerprint if prepared else fingerprint_of_digests(listing.facts)


def _image_data(
    dataset: ListedDataset, listing: Listing, prepared: Prepared, features: dict[str, Groups], notes: tuple[str, ...]
) -> ImageData:
    splits = {}
    for name, code in SPLITS.items():
        chosen_M = np.flatnonzero(listing.split_N == code)
        groups = {feature: each.take(chosen_M) for feature, each in features.items()}
        splits[name] = prepared.split(chosen_M, listing.labels_N[chosen_M], groups)
    mean, std = moments_of(dataset.normalization)
    return ImageData(
        train=splits["train"],
        validation=splits["validation"] if len(splits["validation"]) else None,
        test=splits["test"],
        class_names=dataset.class_names,
        mean=mean,
        std=std,
        notes=notes,
        test_ids=_ids(listing, "test"),
        train_ids=_ids(listing, "train"),
    )


def _row_data(
    dataset: ListedDataset,
    listing: Listing,
    path: Path,
    columns: Sequence[Column],
    features: dict[str, Groups],
    notes: tuple[str, ...],
) -> RowData:
    values_NF, names, is_number_F = encoded(columns, listing.split_N == SPLITS["train"])
    every = RowSplit(values_NF=values_NF, labels_N=listing.labels_N, sensitive_features=features)
    splits = {name: every.take(np.flatnonzero(listing.split_N == code)) for name, code in SPLITS.items()}
    return RowData(
        train=splits["train"],
        validation=splits["validation"] if len(splits["validation"]) else None,
        test=splits["test"],
        class_names=dataset.class_names,
        columns=names,
        is_number_F=is_number_F,
        notes=notes,
        test_ids=_ids(listing, "test"),
        train_ids=_ids(listing, "train"),
        source=f"manifest: {path}",
    )


def _ids(listing: Listing, split: str) -> list[str]:
    return [listing.ids[int(n)] for n in np.flatnonzero(listing.split_N == SPLITS[split])]


def _text_data(
    dataset: ListedDataset,
    loading: Loading,
    listing: Listing,
    texts: Sequence[str],
    features: dict[str, Groups],
    notes: tuple[str, ...],
) -> TextData:
    assert dataset.tokenizing is not None
    numbers = tokenised(loading.root, "manifest", texts, dataset.tokenizing)
    every = TextSplit(
        ids_NL=numbers.ids_NL, lengths_N=numbers.lengths_N, labels_N=listing.labels_N, sensitive_features=features
    )
    splits = {name: every.take(np.flatnonzero(listing.split_N == code)) for name, code in SPLITS.items()}
    return TextData(
        train=splits["train"],
        validation=splits["validation"] if len(splits["validation"]) else None,
        test=splits["test"],
        class_names=dataset.class_names,
        notes=notes,
        test_ids=_ids(listing, "test"),
        train_ids=_ids(listing, "train"),
    )


FAMILY = Family[ListedDataset](load=load, fingerprint=fingerprint, files=files, can_stream=True)
