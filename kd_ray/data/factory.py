"""Data from a function in a package of yours, found among the entry points that installed distributions declare for it.

A sweep file or a store can name any path, so a path alone must not make anything run: only what a distribution offers under the entry-point
group `kd_ray.datasets` is imported, and only where data are loaded (launches, workers, `kd-ray data`). The function is called as
`function(root, parameters)`, with the data root and the sweep file's `dataset.parameters`, and returns an `OwnData`.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kd_ray import offered
from kd_ray.data.family import Family, Loading
from kd_ray.data.image_data import ImageData, Split
from kd_ray.data.normalization import moments_of
from kd_ray.data.row_data import Column, RowData, RowSplit, encoded
from kd_ray.errors import DataError
from kd_ray.groups import Groups
from kd_ray.sweep.datasets import FactoryDataset

GROUP = "kd_ray.datasets"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnData:
    """N labelled samples, as a function of yours returns them. Raises ValueError when shapes, dtypes or splits do not match."""

    inputs: npt.NDArray[Any]
    """Images: uint8 of shape (N, size, size, 3), RGB. Rows: finite numbers of shape (N, F), which kd_ray standardises by the training
    split; make categories a column of 0 and 1 each."""
    labels_N: npt.NDArray[np.integer]
    """Index into the sweep file's `dataset.classes`."""
    split_N: Sequence[str]
    """`train`, `validation` or `test` for each sample."""
    features: Mapping[str, Sequence[str | Sequence[str]]] = field(default_factory=dict)
    """For each of the sweep file's `dataset.features`, the group of every sample, or a list of its groups, which may be empty."""

    def __post_init__(self) -> None:
        count = len(self.inputs)
        if not (self.inputs.ndim == 4 and self.inputs.dtype == np.uint8 and self.inputs.shape[3] == 3):
            is_rows = self.inputs.ndim == 2 and self.inputs.dtype.kind in "fiub" and self.inputs.shape[1] > 0
            if not is_rows or not np.isfinite(self.inputs).all():
                raise ValueError(
                    f"inputs have shape {self.inputs.shape} and dtype {self.inputs.dtype}, expected uint8 images (N, size, size, 3) or "
                    "finite numbers (N, F)"
                )
        if self.labels_N.shape != (count,) or self.labels_N.dtype.kind not in "iu":
            raise ValueError(
                f"labels have shape {self.labels_N.shape} and dtype {self.labels_N.dtype}, expected ({count},) integers"
            )
        for what, values in (("split_N", self.split_N), *self.features.items()):
            if len(values) != count:
                raise ValueError(f"{what} has {len(values)} values, expected {count}")
        for name, groups in self.features.items():
            for value in groups:
                if not isinstance(value, str) and not all(isinstance(group, str) for group in _listed(value)):
                    raise ValueError(
                        f"feature {name!r} has {value!r}, expected the name of a group, or a list of names"
                    )
        if unknown := sorted(set(self.split_N) - set(SPLITS)):
            raise ValueError(f"split_N has {unknown[0]!r}, expected {', '.join(SPLITS)}")


def fingerprint(dataset: FactoryDataset, loading: Loading) -> str:
    """16 hex digits of a digest of the result of the function. Raises DataError for a result that `load` refuses."""
    return _digest(_called(dataset, loading.root))


def load(dataset: FactoryDataset, loading: Loading) -> ImageData | RowData:
    """The samples that the function returns, in their splits; rows are not standardised yet.

    Raises DataError when no installed distribution offers the function, it fails, returns something else than the sweep file says, or
    another version than `dataset` names.
    """
    own = _called(dataset, loading.root)
    found = _digest(own)
    if dataset.version != found:
        what = f"is not version {dataset.version}" if dataset.version else "needs a version, which stands for it"
        raise DataError(
            f"factory: what {dataset.function} returns {what}; to use it as it is, write in the sweep file "
            f"`dataset.version: {found!r}`"
        )
    split_N = np.array(own.split_N, dtype=np.str_)
    chosen = {name: np.flatnonzero(split_N == name) for name in SPLITS}
    labels_N = own.labels_N.astype(np.int64)
    features = {name: _groups(own.features[name]) for name in dataset.features}
    has_validation = dataset.returns_validation
    test_ids, train_ids = ([str(n) for n in chosen[name]] for name in ("test", "train"))
    if dataset.samples == "images":
        mean, std = moments_of(dataset.normalization)
        images = Split(images_NHWC=own.inputs, labels_N=labels_N, sensitive_features=features)
        return ImageData(
            train=images.take(chosen["train"]),
            validation=images.take(chosen["validation"]) if has_validation else None,
            test=images.take(chosen["test"]),
            class_names=dataset.classes,
            mean=mean,
            std=std,
            test_ids=test_ids,
            train_ids=train_ids,
        )
    column = Column(name="x", values=own.inputs.astype(np.float64))
    values_NF, names, is_number_F = encoded([column], split_N == "train")
    rows = RowSplit(values_NF=values_NF, labels_N=labels_N, sensitive_features=features)
    return RowData(
        train=rows.take(chosen["train"]),
        validation=rows.take(chosen["validation"]) if has_validation else None,
        test=rows.take(chosen["test"]),
        class_names=dataset.classes,
        columns=names,
        is_number_F=is_number_F,
        source=f"factory: {dataset.function}",
        test_ids=test_ids,
        train_ids=train_ids,
    )


def load_function(path: str) -> Callable[[Path, Mapping[str, Any]], OwnData]:
    """The function that an installed distribution offers under this path. Raises DataError when none does, or it cannot be imported."""
    try:
        entry = offered.find(GROUP, path)
    except LookupError as error:
        raise DataError(f"factory: no distribution installed here offers {error.args[0]}") from error
    try:
        function: Callable[[Path, Mapping[str, Any]], OwnData] = entry.load()
    except (ImportError, AttributeError) as error:
        raise DataError(f"factory: {path} cannot be imported: {error}") from error
    return function


def _called(dataset: FactoryDataset, root: Path) -> OwnData:
    """Call the function and check its result against the sweep file."""
    function = load_function(dataset.function)
    try:
        own = function(root, deepcopy(dataset.parameters))
    except DataError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise DataError(f"factory: {dataset.function} failed: {type(error).__name__}: {error}") from error
    if not isinstance(own, OwnData):
        raise DataError(
            f"factory: {dataset.function} returned {type(own).__name__}, expected kd_ray.data.factory.OwnData"
        )
    problem = _difference(dataset, own)
    if problem:
        raise DataError(f"factory: {dataset.function} returned {problem}")
    return own


def _difference(dataset: FactoryDataset, own: OwnData) -> str | None:
    """The first difference between the result and the sweep file; None when there is none."""
    shape = own.inputs.shape
    outside = own.labels_N[(own.labels_N < 0) | (own.labels_N >= dataset.num_classes)]
    has_validation = "validation" in own.split_N
    if dataset.samples == "images" and shape[1:] != (dataset.size, dataset.size, 3):
        return f"inputs of shape {shape}, and the sweep file means images of {dataset.size} × {dataset.size} pixels"
    if dataset.samples == "rows" and len(shape) != 2:
        return f"inputs of shape {shape}, and the sweep file means rows of numbers"
    if len(outside):
        return f"the label {outside[0]}, and dataset.classes has {dataset.num_classes} names, for 0 to {dataset.num_classes - 1}"
    if has_validation != dataset.returns_validation:
        return f"{'a' if has_validation else 'no'} validation split, and dataset.returns_validation says otherwise"
    return next(filter(None, (_feature_difference(name, own) for name in dataset.features)), None)


def _feature_difference(name: str, own: OwnData) -> str | None:
    if name not in own.features:
        return f"no feature {name!r}, which dataset.features names; it returned {', '.join(own.features) or 'none'}"
    if len(_groups(own.features[name]).names) < 2:
        return f"fewer than two groups of the feature {name!r}; remove it from dataset.features"
    return None


def _listed(value: object) -> Sequence[object]:
    """A list or tuple as it is; any other value as the only member of a list."""
    return value if isinstance(value, list | tuple) else [value]


def _groups(values: Sequence[str | Sequence[str]]) -> Groups:
    lists = [[value] if isinstance(value, str) else list(value) for value in values]
    return Groups.from_lists(lists, sorted({group for groups in lists for group in groups}))


def _digest(own: OwnData) -> str:
    """First 16 hex digits of a SHA-256 over arrays with their shapes and types, splits and groups."""
    total = hashlib.sha256()
    for array in (own.inputs, own.labels_N):
        little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
        total.update(f"{little.dtype.str} {little.shape}\n".encode())
        total.update(little.tobytes())
    total.update("\x1f".join(own.split_N).encode())
    for name in sorted(own.features):
        lists = _groups(own.features[name]).to_lists()
        total.update(f"\n{name}\n".encode() + "\x1e".join("\x1f".join(groups) for groups in lists).encode())
    return total.hexdigest()[:16]


FAMILY = Family[FactoryDataset](load=load, fingerprint=fingerprint)
