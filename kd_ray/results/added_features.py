"""Sensitive features that were added to a finished sweep: groups by the name of the sample, from a table of the user's.

The store keeps the whole table by its content, so that it can be joined again when the groups of the data set itself are changed.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from kd_ray.errors import CorruptObjectError
from kd_ray.groups import Groups
from kd_ray.results.parquet import MOST_VALUES, decode_table, encode_table
from kd_ray.results.rows import AddedFeatures
from kd_ray.results.samples import Samples, read_samples
from kd_ray.results.store import Store, features_key

_ID = "id"

GroupsById = Mapping[str, Sequence[str]]
"""The groups of each sample by its name; a sample may be in none."""


def write_features(store: Store, ids: Sequence[str], features: Mapping[str, Sequence[Sequence[str]]]) -> AddedFeatures:
    """Keep a table with the groups of each id, for each feature."""
    columns = [pa.array(ids, pa.string()), *(pa.array(lists, pa.list_(pa.string())) for lists in features.values())]
    # By number, because a feature may have any name.
    names = [_ID, *map(str, range(len(features)))]
    data = encode_table(pa.table(columns, names=names))
    digest = hashlib.sha256(data).hexdigest()[:16]
    store.put_new(features_key(digest), data)
    return AddedFeatures(digest=digest, features=tuple(features))


def samples_with(store: Store, dataset_id: str, added: Sequence[AddedFeatures]) -> Samples | None:
    """The samples of a data set with the added features; None when no trial has stored them yet.

    Raises:
        CorruptObjectError: an object cannot be read, or a table lacks a sample.
    """
    samples = read_samples(store, dataset_id)
    for each in added if samples else ():
        assert samples is not None
        found = {name: joined(samples, by_id) for name, by_id in _read(store, each).items()}
        if missing := [name for name, groups in found.items() if isinstance(groups, str)]:
            raise CorruptObjectError(
                f"store {store.url}: the added feature {missing[0]} lacks samples of data set {dataset_id}: {found[missing[0]]}; "
                "`kd-ray regroup` adds it anew"
            )
        features = {name: groups for name, groups in found.items() if isinstance(groups, Groups)}
        samples = replace(samples, sensitive_features={**samples.sensitive_features, **features})
    return samples


def joined(samples: Samples, by_id: GroupsById) -> Groups | str:
    """The groups of these samples; or, where samples are missing, what is missing."""
    if samples.ids is None:
        return "its samples have no names"
    if missing := [name for name in samples.ids if name not in by_id]:
        return f"{len(missing):,} of {len(samples.ids):,}, such as {missing[0]!r}"
    lists = [by_id[name] for name in samples.ids]
    return Groups.from_lists(lists, sorted({group for groups in lists for group in groups}))


def _read(store: Store, added: AddedFeatures) -> dict[str, GroupsById]:
    key = features_key(added.digest)
    data = store.get(key) or b""
    if hashlib.sha256(data).hexdigest()[:16] != added.digest:
        raise CorruptObjectError(f"store {store.url}: {key!r} is missing, or its content is not what its name says")
    try:
        table = decode_table(data, most_values=MOST_VALUES)
        ids = table[_ID].to_pylist()
        return {name: dict(zip(ids, table[str(n)].to_pylist(), strict=True)) for n, name in enumerate(added.features)}
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptObjectError(f"store {store.url}: {key!r} does not hold added features: {error}") from error
