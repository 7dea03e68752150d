"""The test samples of a data set, as the store keeps them: labels, sensitive features, and the names by which their source knows them."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kd_ray.bounded import MEGABYTE, JsonForm, in_a_line
from kd_ray.errors import CorruptObjectError
from kd_ray.groups import Groups
from kd_ray.results.parquet import MOST_VALUES, decode_table, encode_table
from kd_ray.results.store import Store, quarantine, samples_key

logger = logging.getLogger("kd_ray")


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Labels and sensitive features of the test samples of a data set."""

    dataset: str
    """Name of the data set."""
    target: str
    class_names: tuple[str, ...]
    labels_N: npt.NDArray[np.int64]
    sensitive_features: Mapping[str, Groups] = field(default_factory=dict)
    ids: Sequence[str] | None = None
    """The name of each sample in its source: a file, an id of the user's, or the number of its row; None for samples of kd_ray 0.1."""


def write_samples(store: Store, dataset_id: str, samples: Samples) -> None:
    """Store the samples of a data set, once. Damaged ones are moved into quarantine and written again, and those without names replaced.

    Raises:
        CorruptObjectError: other samples are stored under this id already.
    """
    data = _encode_samples(dataset_id, samples)
    key = samples_key(dataset_id)
    while not store.put_new(key, data):
        try:
            there = read_samples(store, dataset_id)
        except CorruptObjectError as error:
            kept = quarantine(store, key, store.get(key) or b"")
            logger.warning("%s; kept as %s and written again", error, kept)
            continue
        if there is not None and _same_samples(there, samples):
            if there.ids is None and samples.ids is not None:
                store.put(key, data)
            return
        if there is not None:
            message = "holds other test samples than this node's data; the data set changed under its name"
            raise CorruptObjectError(f"store {store.url}: {key!r} {message}")


def read_samples(store: Store, dataset_id: str) -> Samples | None:
    """The samples of a data set, or None when no trial has stored them yet.

    Raises:
        CorruptObjectError: there is an object, but it does not hold samples.
    """
    key = samples_key(dataset_id)
    data = store.get(key)
    if data is None:
        return None
    try:
        table = decode_table(data, most_values=MOST_VALUES)
        meta = _checked_meta(table)
        features = dict(zip(table.schema.names, table.columns, strict=True))
        class_names = _names(meta, "class_names")
        labels_N = _checked_labels(features.pop("label"), len(class_names))
        ids = features.pop(meta["ids"]).to_pylist() if "ids" in meta else None
        return Samples(
            dataset=meta["dataset"],
            target=meta["target"],
            class_names=class_names,
            labels_N=labels_N,
            sensitive_features={
                name: Groups.from_lists(column.to_pylist(), _names(meta, f"groups:{name}"))
                for name, column in features.items()
            },
            ids=ids,
        )
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptObjectError(f"store {store.url}: {key!r} does not hold samples: {in_a_line(error)}") from error


def _checked_labels(column: pa.ChunkedArray, num_classes: int) -> npt.NDArray[np.int64]:
    labels_N: npt.NDArray[np.int64] = column.to_numpy()
    if labels_N.dtype != np.int64 or not ((labels_N >= 0) & (labels_N < num_classes)).all():
        raise ValueError(f"its labels are not those of {num_classes} classes")
    return labels_N


def _encode_samples(dataset_id: str, samples: Samples) -> bytes:
    columns: dict[str, Any] = {"label": pa.array(samples.labels_N, type=pa.int64())}
    meta = {
        "dataset_id": dataset_id,
        "dataset": samples.dataset,
        "target": samples.target,
        "names_version": _NAMES_VERSION,
        "class_names": json.dumps(samples.class_names),
    }
    for name, groups in samples.sensitive_features.items():
        columns[name] = pa.array(groups.to_lists(), type=pa.list_(pa.string()))
        meta[f"groups:{name}"] = json.dumps(groups.names)
    if samples.ids is not None:
        meta["ids"] = next(name for n in range(len(columns) + 1) if (name := f"id{'_' * n}") not in columns)
        columns[meta["ids"]] = pa.array(samples.ids, type=pa.string())
    table = pa.table(columns)
    return encode_table(table.replace_schema_metadata(meta | {"sha256": _samples_digest(table, meta)}))


_NAMES_VERSION = "2"
"""Lists of names are JSON. Without a version they were texts with U+001F between the names, which a name could hold."""
_NAMES: JsonForm[tuple[str, ...]] = JsonForm(kind=tuple[str, ...], most_bytes=256 * MEGABYTE)


def _names(meta: Mapping[str, str], field: str) -> tuple[str, ...]:
    if "names_version" not in meta:
        return tuple(meta[field].split("\x1f"))
    if meta["names_version"] != _NAMES_VERSION:
        raise ValueError("it was written by another version of kd_ray")
    return _NAMES.read(meta[field])


def _checked_meta(table: pa.Table) -> dict[str, str]:
    meta = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
    if meta["sha256"] != _samples_digest(table, meta):
        raise ValueError("its digest is that of another content")
    return meta


def _samples_digest(table: pa.Table, meta: Mapping[str, str]) -> str:
    """A digest of the names in the footer, which page checksums do not cover."""
    named = {name: value for name, value in meta.items() if name != "sha256"}
    return hashlib.sha256(json.dumps([named, table.column_names], sort_keys=True).encode()).hexdigest()


def _same_samples(a: Samples, b: Samples) -> bool:
    return (
        a.class_names == b.class_names
        and np.array_equal(a.labels_N, b.labels_N)
        and list(a.sensitive_features) == list(b.sensitive_features)
        and all(
            a.sensitive_features[name].names == groups.names
            and np.array_equal(a.sensitive_features[name].membership_NG, groups.membership_NG)
            for name, groups in b.sensitive_features.items()
        )
    )
