"""The verb `regroup`: add sensitive features from a table to a sweep that is trained already.

Rows of the table and test samples are joined by the names that the samples have in their source. Nothing is trained. Tables, comparisons
and the report know the new features afterwards, and a later launch of the sweep keeps them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from kd_ray.cluster.shared_data.find_sets import with_local_data
from kd_ray.data.families import check_names, load_dataset
from kd_ray.data.listed_values import list_columns, read_list, texts_in_lists, texts_of
from kd_ray.distill.stored_samples import samples_of
from kd_ray.errors import CorruptObjectError, DataError, InvalidInputError, some
from kd_ray.groups import Groups
from kd_ray.results.added_features import joined, write_features
from kd_ray.results.aggregate import AggregateReport, aggregate
from kd_ray.results.manifest import Manifest, find_manifest, read_manifest
from kd_ray.results.row_settings import AddedFeatures
from kd_ray.results.samples import Samples, read_samples, write_samples
from kd_ray.results.store import Store, manifest_key
from kd_ray.sweep.load import parse_sweep
from kd_ray.sweep.plan import datasets_of
from kd_ray.sweep.spec import dataset_id_of
from kd_ray.sweep.tuning_settings import is_tuning


@dataclass(frozen=True, kw_only=True)
class FeatureTable:
    """A table of the user's."""

    source: str
    """Its path, for messages."""
    ids: Sequence[str]
    places: Sequence[str]
    """Where each row stands: `line 3` of a CSV file, `row 2` of a Parquet file."""
    features: Mapping[str, Sequence[Sequence[str]]]
    """The groups of each row, by feature."""


@dataclass(frozen=True, kw_only=True)
class RegroupReport:
    """What was added, and the tables afterwards."""

    sweep: str
    features: tuple[str, ...]
    num_samples: int
    """Test samples of all data sets of the sweep."""
    tables: AggregateReport


def regroup(store: Store, sweep: str, table: Path, *, id_column: str, columns: Sequence[str] = ()) -> RegroupReport:
    """Add the `columns` of a table, or all but its `id_column`, to the features that a sweep compares. An added feature can be replaced.

    Raises:
        InvalidInputError: there is no such sweep, file or column; rows are missing or double. Nothing is written then.
    """
    manifest = read_manifest(store, sweep)
    if is_tuning(sweep):
        raise InvalidInputError(f"sweep {sweep}: it is a search; features are joined to sweeps alone")
    found = read_features(table, id_column=id_column, columns=columns)
    _check_ids(found)
    every = {
        dataset_id: _samples(store, manifest, dataset_id) for dataset_id in {it.dataset_id for it in manifest.active}
    }
    for dataset_id, samples in every.items():
        _check(
            found,
            samples,
            of_sweep={name for it in manifest.row_settings.added for name in it.features},
            what=dataset_id,
        )
    added = write_features(store, found.ids, found.features)
    while True:
        newest = find_manifest(store, sweep)
        changed = with_added(newest.manifest or manifest, added, generation=newest.newest + 1)
        if store.put_new(manifest_key(sweep, changed.generation), changed.to_json()):
            break
    return RegroupReport(
        sweep=sweep,
        features=added.features,
        num_samples=sum(len(samples.labels_N) for samples in every.values()),
        tables=aggregate(store, sweep),
    )


def with_added(manifest: Manifest, added: AddedFeatures, *, generation: int) -> Manifest:
    """The manifest with more features; those of the same name are replaced."""
    settings = manifest.row_settings
    kept = (
        AddedFeatures(digest=it.digest, features=it.features)
        for it in settings.added
        if not set(it.features) <= set(added.features)
    )
    features = tuple(dict.fromkeys([*settings.sensitive_features, *added.features]))
    return replace(
        manifest,
        generation=generation,
        row_settings=replace(settings, sensitive_features=features, added=(*kept, added)),
    )


def read_features(path: Path, *, id_column: str, columns: Sequence[str] = ()) -> FeatureTable:
    """A CSV or Parquet file. Raises InvalidInputError when it cannot be read, or lacks a column."""
    try:
        names = list_columns(path)
        wanted = list(columns) or [name for name in names if name != id_column]
        for option, name in (("--id", id_column), *(("--column", name) for name in wanted)):
            if names.count(name) != 1:
                what = "has no" if name not in names else "has more than one"
                raise InvalidInputError(f"{option} {name}: {path} {what} such column; its columns: {', '.join(names)}")
        if not wanted or id_column in wanted:
            raise InvalidInputError(f"--features {path}: has no column of groups beside the id column {id_column!r}")
        read = read_list(path, [id_column, *wanted])
        ids = texts_of(read.table.column(id_column), f"{path}: {id_column}")
        features = {name: _groups(read.table.column(name), f"{path}: {name}") for name in wanted}
    except DataError as error:
        raise InvalidInputError(
            f"--features {path}: cannot be read: {str(error).removeprefix('manifest: ')}"
        ) from error
    places = [f"line {line}" for line in read.line_of] if read.line_of else [f"row {n + 1}" for n in range(len(ids))]
    return FeatureTable(source=str(path), ids=ids, places=places, features=features)


def _groups(column: pa.ChunkedArray, place: str) -> list[list[str]]:
    """For each row one group, those of a list, or none where there is no value."""
    lists = texts_in_lists(column, place)
    if lists is None:
        lists = [[text] for text in texts_of(column, place)]
    return [[text for text in texts if text] for texts in lists]


def _check_ids(table: FeatureTable) -> None:
    """Refuse ids that are empty or double."""
    first: dict[str, str] = {}
    for name, place in zip(table.ids, table.places, strict=True):
        if not name:
            raise InvalidInputError(f"--features {table.source}, {place}: has no id")
        if name in first:
            raise InvalidInputError(f"--features {table.source}, {place}: the id {name!r} is in {first[name]}, too")
        first[name] = place


def _check(table: FeatureTable, samples: Samples, *, of_sweep: set[str], what: str) -> None:
    """Refuse a table that lacks samples, and a feature without groups or with the name of one of the data set."""
    for name, lists in table.features.items():
        if name in samples.sensitive_features and name not in of_sweep:
            raise InvalidInputError(
                f"--features {table.source}: data set {what} has a feature {name!r}; rename the column"
            )
        groups = joined(samples, dict(zip(table.ids, lists, strict=True)))
        if not isinstance(groups, Groups):
            have = some(list(samples.ids or ())[:3])
            raise InvalidInputError(
                f"--features {table.source}: has no row for test samples of data set {what}: {groups}; they are named as in {have}"
            )
        check_names(f"--features {table.source}", {**samples.sensitive_features, name: groups})
        if len(groups.names) < 2:
            groups_left = ", ".join(groups.names) or "none"
            what = f"column {name!r} puts the test samples into fewer than two groups: {groups_left}"
            raise InvalidInputError(f"--features {table.source}: {what}")


def _samples(store: Store, manifest: Manifest, dataset_id: str) -> Samples:
    """The samples of a data set with their names. Those that an older kd_ray has stored without are loaded once more.

    Raises:
        DataError: the data set has to be loaded, and cannot be.
    """
    samples = read_samples(store, dataset_id)
    if samples is not None and samples.ids is not None:
        return samples
    file = parse_sweep(manifest.sweep_yaml, source=f"sweep {manifest.sweep} in {store.url}")
    for dataset in datasets_of(file):
        if dataset_id_of(dataset) == dataset_id:
            if dataset.evaluated_on != "test":
                what = "the samples of a validation split have no names to join features by"
                raise InvalidInputError(f"sweep {manifest.sweep}: dataset.evaluated_on: {dataset.evaluated_on}: {what}")
            placement = with_local_data(file).sweep.placement
            data = load_dataset(dataset, Path(placement.data_root), resident_bytes=placement.resident_bytes)
            write_samples(store, dataset_id, samples_of(dataset, data))
    samples = read_samples(store, dataset_id)
    if samples is None or samples.ids is None:
        advice = f"`kd-ray resume {manifest.sweep}` writes them"
        raise CorruptObjectError(f"store {store.url}: the samples of data set {dataset_id} are missing; {advice}")
    return samples
