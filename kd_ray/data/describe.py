"""Counts of a data set by class and group, and the demographic parity difference of its labels."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from kd_ray.data.families import family_of, load_dataset
from kd_ray.data.family import Loading
from kd_ray.data.labelled import Labelled
from kd_ray.data.leaks import Leak, find_leaks
from kd_ray.data.modalities import Data
from kd_ray.errors import DataError, some
from kd_ray.groups import Groups, intersect, joint_name
from kd_ray.metrics.fairness import fairness_metrics, group_rates
from kd_ray.sweep.classification import Modality
from kd_ray.sweep.datasets import Dataset
from kd_ray.sweep.own_datasets import AUTO


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A data set as its files are, whatever version the sweep names."""

    data: Data
    fingerprint: str | None
    """The `dataset.version` that names exactly these files; None for a set that is generated."""
    refusal: str | None
    """Why a launch would refuse these files; None when it would not."""


@dataclass(frozen=True, kw_only=True)
class GroupCount:
    """Samples of one group."""

    group: str
    n: dict[str, int]
    """By split."""
    test_by_class: dict[str, int]
    """Test samples by class: the cells that rates are computed on."""


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One sensitive feature, or an intersection of several."""

    feature: str
    groups: tuple[GroupCount, ...]
    label_demographic_parity_difference: float | None
    """Of the test labels, one-vs-rest mean over the classes: what a perfect classifier would have. None when it is undefined."""
    num_without_group: int
    """Test samples in no group of the feature."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """Counts of a data set."""

    modality: Modality
    """What the samples are."""
    image_size: int | None = None
    """Side of the images in pixels; None where there are none."""
    num_columns: int | None = None
    """Numbers in a row; None where there are none."""
    num_tokens: int | None = None
    """Tokens of the longest test text; None where there are none."""
    splits: dict[str, int]
    """Samples by split."""
    classes: dict[str, dict[str, int]]
    """Samples by class and split."""
    features: tuple[Feature, ...]
    leaks: tuple[Leak, ...]
    """Samples that stand in two splits."""
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


_SIZE_NAMES: dict[Modality, str] = {"images": "image_size", "rows": "num_columns", "texts": "num_tokens"}
"""The field of `Description` that holds the size of an input."""


def examine(dataset: Dataset, loading: Loading) -> Examined:
    """Load the files as they are, whatever version the sweep names.

    Raises:
        DataError: files are missing, damaged, or cannot be used.
    """
    found = family_of(dataset).fingerprint(dataset, loading)
    # The fingerprint has drawn or decoded the images; without one, they are drawn here.
    load = partial(
        load_dataset,
        root=loading.root,
        processes=loading.processes,
        on_progress=None if found else loading.on_progress,
        resident_bytes=loading.resident_bytes,
    )
    if found is None:
        return Examined(data=load(dataset), fingerprint=None, refusal=None)
    if getattr(dataset, "version", None) == AUTO:
        dataset = dataset.model_copy(update={"version": found})
    try:
        return Examined(data=load(dataset), fingerprint=found, refusal=None)
    except DataError as error:
        as_it_is = dataset.model_copy(update={"version": found})
        if as_it_is == dataset:
            raise
        return Examined(data=load(as_it_is), fingerprint=found, refusal=str(error))


def describe(
    data: Data, features: Sequence[str], intersections: Sequence[Sequence[str]] = (), *, least_joint_group: int = 1
) -> Description:
    """Counts of every split, class, and group of `features` and of `intersections` of them.

    Raises DataError for an intersection that a launch would refuse.
    """
    splits: dict[str, Labelled | None] = {"train": data.train, "validation": data.validation, "test": data.test}
    present = {name: split for name, split in splits.items() if split is not None}
    counts = {name: np.bincount(split.labels_N, minlength=len(data.class_names)) for name, split in present.items()}
    return Description(
        modality=data.modality,
        **{_SIZE_NAMES[data.modality]: data.test.num_inputs},
        splits={name: len(split) for name, split in present.items()},
        classes={
            class_name: {name: int(counts_C[c]) for name, counts_C in counts.items()}
            for c, class_name in enumerate(data.class_names)
        },
        features=tuple(
            _feature(
                joint_name(names),
                {name: _groups(split, names) for name, split in present.items()},
                data,
                least=least_joint_group if len(names) > 1 else 1,
            )
            for names in [*((feature,) for feature in features), *intersections]
        ),
        leaks=find_leaks(data, with_near=True),
        notes=(*data.notes, *small_joint_groups(data.test, intersections, least_joint_group)),
    )


def small_joint_groups(test: Labelled, intersections: Sequence[Sequence[str]], least: int) -> list[str]:
    """A note on each intersection that loses joint groups of fewer than `least` test samples.

    Raises DataError for an intersection that keeps fewer than two groups.
    """
    notes = []
    for names in intersections if least > 1 else ():
        groups = _groups(test, names)
        counts_G = groups.membership_NG.sum(axis=0)
        small = some([f"{groups.names[g]} (n = {counts_G[g]})" for g in np.flatnonzero(counts_G < least)])
        if (counts_G >= least).sum() < 2:
            raise DataError(
                f"intersections: {joint_name(names)} has fewer than two joint groups with at least {least} test samples (too small: "
                f"{small}); remove it from intersections, or lower min_group_size"
            )
        if small:
            notes.append(f"{joint_name(names)}: joint groups with fewer than {least} test samples left out: {small}")
    return notes


def _groups(split: Labelled, names: Sequence[str]) -> Groups:
    return intersect([split.sensitive_features[name] for name in names])


def _feature(feature: str, groups: dict[str, Groups], data: Data, *, least: int) -> Feature:
    """Counts of all groups; the difference of the labels is that of groups with `least` test samples, as in the tables."""
    labels_N, num_classes = data.test.labels_N, len(data.class_names)
    rates = group_rates(labels_N, labels_N, groups["test"], num_classes=num_classes)
    compared = groups["test"].only(np.flatnonzero(rates.n_G >= least))
    of_compared = group_rates(labels_N, labels_N, compared, num_classes=num_classes)
    difference = fairness_metrics(of_compared).macro.label_demographic_parity_difference
    counted = [
        GroupCount(
            group=group,
            n={name: int(each.membership_NG[:, g].sum()) for name, each in groups.items()},
            test_by_class={
                class_name: int(n) for class_name, n in zip(data.class_names, rates.num_positive_GC[g], strict=True)
            },
        )
        for g, group in enumerate(groups["test"].names)
    ]
    return Feature(
        feature=feature,
        groups=tuple(counted),
        label_demographic_parity_difference=None if np.isnan(difference) else float(difference),
        num_without_group=int((~groups["test"].membership_NG.any(axis=1)).sum()),
    )
