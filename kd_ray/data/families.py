"""Loads the samples of a sweep's `dataset` section: the dict of all families, and the steps that every family shares."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kd_ray.data import (
    adult,
    celeba,
    cifar10,
    cifar100,
    factory,
    hatexplain,
    image_folders,
    listed,
    svhn,
    tiny_imagenet,
    trifeature,
)
from kd_ray.data.family import Family, Loading, OnProgress
from kd_ray.data.image_data import split_off_validation
from kd_ray.data.labelled import S
from kd_ray.data.modalities import Data
from kd_ray.data.row_data import RowSplit
from kd_ray.data.subsets import long_tailed
from kd_ray.data.unicode_forms import alike, in_words
from kd_ray.errors import DataError
from kd_ray.groups import Groups
from kd_ray.shown import control_character
from kd_ray.sweep.datasets import Dataset

FAMILIES: dict[str, Family[Any]] = {
    "trifeature": trifeature.FAMILY,
    "cifar10": cifar10.FAMILY,
    "cifar100": cifar100.FAMILY,
    "svhn": svhn.FAMILY,
    "tiny_imagenet": tiny_imagenet.FAMILY,
    **image_folders.FAMILIES,
    "celeba": celeba.FAMILY,
    "adult": adult.FAMILY,
    "hatexplain": hatexplain.FAMILY,
    "manifest": listed.FAMILY,
    "factory": factory.FAMILY,
}
"""The family of each `dataset.name`."""

CONTENT_VERSION = f"{trifeature.GENERATOR_VERSION}.1"
"""Changes when the code here would load other content for the same settings."""


def family_of(dataset: Dataset) -> Family[Any]:
    """The functions that load this data set."""
    return FAMILIES[dataset.name]


def load_dataset(
    dataset: Dataset,
    root: Path,
    *,
    processes: int = 1,
    on_progress: OnProgress | None = None,
    resident_bytes: int | None = None,
) -> Data:
    """The data set as the sweep describes it: the training split cut to its long tail, then without the samples drawn for validation,
    then rows standardised by the remaining training split. `family.Loading` describes the other arguments.

    Raises:
        DataError: files are missing, damaged, or not the version asked for.
    """
    loading = Loading(root=root, processes=processes, on_progress=on_progress, resident_bytes=resident_bytes)
    data: Data = family_of(dataset).load(dataset, loading)
    if len(data.class_names) != dataset.num_classes:
        raise DataError(
            f"{dataset.name}: {len(data.class_names):,} classes are there, but the sweep file says {dataset.num_classes:,}"
        )
    check_names(dataset.name, data.test.sensitive_features, class_names=data.class_names)
    if len(data.train) == 0 or len(data.test) == 0:
        raise DataError(
            f"{dataset.name}: {len(data.train):,} training and {len(data.test):,} test samples; both are needed"
        )

    def cut(train: S) -> tuple[S, S | None]:
        return _cut(train, dataset)

    data = data.cut(cut)
    if dataset.evaluated_on == "validation":
        if data.validation is None:
            raise DataError(f"{dataset.name}: evaluated_on: validation, but there is no validation split")
        # From here on nothing can read a sample of the test split. A copy, because tensors that share memory are not cached.
        samples = data.validation.take(np.arange(len(data.validation)))
        return replace(data, test=samples, test_ids=None)  # type: ignore[arg-type]  # both splits are of one kind
    return data


def check_names(source: str, features: Mapping[str, Groups], *, class_names: Sequence[str] = ()) -> None:
    """Refuse names with control characters, and two that look the same; nothing that shows or stores names has to think of these.

    Raises:
        DataError: there are any; the message begins with `source`.
    """
    named = [("class", name) for name in class_names] + [("feature", name) for name in features]
    named += [(f"group of {feature}", name) for feature, groups in features.items() for name in groups.names]
    for what, name in named:
        if (character := control_character(name)) is not None:
            raise DataError(
                f"{source}: the {what} {name!r} holds the control character {character}; give it another name"
            )
    together = {"classes": class_names, "features": tuple(features)}
    together |= {f"groups of {feature}": groups.names for feature, groups in features.items()}
    for what, names in together.items():
        if (found := alike(names, names)) is not None:
            raise DataError(f"{source}: the {what} {in_words(*found)}; write both in the Unicode form NFC")


def fingerprint(dataset: Dataset, root: Path, *, processes: int = 1, resident_bytes: int | None = None) -> str | None:
    """The `dataset.version` that names exactly the files that are there; None for a set that is generated.

    Raises:
        DataError: files are missing or damaged.
    """
    return family_of(dataset).fingerprint(
        dataset, Loading(root=root, processes=processes, resident_bytes=resident_bytes)
    )


def _cut(train: S, dataset: Dataset) -> tuple[S, S | None]:
    """The training split after its long tail and without the samples drawn for validation, and those samples."""
    if dataset.long_tail is not None:
        train = long_tailed(train, dataset.long_tail, num_classes=dataset.num_classes)
    if dataset.random_validation is None:
        return train, None
    fraction, seed = dataset.random_validation
    try:
        return split_off_validation(train, fraction=fraction, seed=seed)
    except ValueError as error:
        raise DataError(f"{dataset.name}: validation_fraction: {error}") from error


def training_ids(dataset: Dataset, root: Path, *, processes: int = 1, resident_bytes: int | None = None) -> list[str]:
    """Names of the training samples in their source, in the order in which `load_dataset` has them: of image files, of the user's, or
    numbers in the training split as it was before any were left out. The arguments are those of `load_dataset`.

    Raises:
        DataError: as `load_dataset`.
    """
    loading = Loading(root=root, processes=processes, resident_bytes=resident_bytes)
    data: Data = family_of(dataset).load(dataset, loading)
    files = data.train.files if data.modality == "images" else None
    names = data.train_ids if data.train_ids is not None else files.names() if files is not None else None
    # What is cut away depends on the labels alone, so rows that hold their own number show what is left.
    numbered = RowSplit(values_NF=np.arange(len(data.train), dtype=np.float64)[:, None], labels_N=data.train.labels_N)
    kept_N = _cut(numbered, dataset)[0].values_NF[:, 0].astype(np.int64)
    return [str(n) if names is None else names[n] for n in kept_N]
