"""Reads and writes the Parquet tables of a store: whole parts, by table and sweep. Each part says what it is in its metadata."""

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, TypeVar

import pyarrow as pa

from kd_ray.bounded import JsonForm
from kd_ray.errors import CorruptObjectError
from kd_ray.results.inventory import table_parts
from kd_ray.results.record import decode_table, encode_table
from kd_ray.results.schema import QUERIED, SCHEMA_VERSION
from kd_ray.results.store import Store

T = TypeVar("T")

SETTINGS_CELL: JsonForm[dict[str, Any]] = JsonForm(kind=dict[str, Any])
"""The column `settings`."""
FINGERPRINT = b"kd_ray_fold"
"""Name of the fingerprint in the metadata of a part."""


def encode_part(table: pa.Table, name: str, sweep: str, fingerprint: str = "") -> bytes:
    """A part with its schema version, the version of kd_ray, table, sweep and fingerprint in the metadata of the file."""
    metadata = {
        "kd_ray_schema_version": str(SCHEMA_VERSION),
        "kd_ray_version": _version(),
        "kd_ray_table": name,
        "kd_ray_sweep": sweep,
        FINGERPRINT: fingerprint,
    }
    return encode_table(table.replace_schema_metadata(metadata))


@functools.cache
def _version() -> str:
    """Of this installation; to read it takes longer than to write a small part."""
    return version("kd_ray")


def read_cell(form: JsonForm[T], text: str, table: str) -> T:
    """What a cell of JSON holds. Raises CorruptObjectError for one that kd_ray has not written."""
    try:
        return form.read(text)
    except (ValueError, TypeError) as error:
        raise CorruptObjectError(
            f"the table `{table}` holds a cell that is damaged ({error}); `kd-ray verify --rebuild-tables` makes it again"
        ) from error


def read_table(store: Store, table: str, sweeps: Collection[str] | None = None) -> pa.Table:
    """All rows of a table, or those of some sweeps.

    Raises:
        CorruptObjectError: a part cannot be read; the next aggregation rebuilds it.
    """
    return read_tables(store, {table: list(part_keys(store, table, sweeps))})[table]


def read_columns(store: Store, table: str, sweep: str, columns: Sequence[str]) -> pa.Table:
    """Some columns of the rows of a sweep. Of 100,000 trials all columns would take hundreds of megabytes.

    Raises:
        CorruptObjectError: as above.
    """

    def of_part(key: str) -> pa.Table:
        part = read_part(store, key)
        return part.select([name for name in columns if name in part.column_names])

    return _joined(store, table, store.at_once(of_part, part_keys(store, table, [sweep])), columns)


def read_tables(store: Store, keys: Mapping[str, Sequence[str]]) -> dict[str, pa.Table]:
    """The rows of some parts of tables, whose keys are given for each table.

    Raises:
        CorruptObjectError: a part cannot be read; the next aggregation rebuilds it.
    """
    parts = iter(store.at_once(lambda key: read_part(store, key), [key for found in keys.values() for key in found]))
    return {name: _joined(store, name, [next(parts) for _ in found]) for name, found in keys.items()}


def _joined(store: Store, table: str, parts: Sequence[pa.Table], columns: Sequence[str] = ()) -> pa.Table:
    try:
        empty = QUERIED[table].arrow_schema.empty_table()
        if columns:
            empty = empty.select(columns)
        return pa.concat_tables([empty, *parts], promote_options="default").select(empty.column_names)
    except pa.ArrowException as error:
        what = "has other columns than this kd_ray writes, `kd-ray verify --rebuild-tables` makes it again"
        raise CorruptObjectError(f"store {store.url}: a part of table {table} {what}") from error


def part_keys(store: Store, table: str, sweeps: Collection[str] | None = None) -> Iterator[str]:
    """Keys of the parts of a table, in order."""
    for entry in table_parts(store, table=table):
        if sweeps is None or entry.place.sweep in sweeps:
            yield entry.item.key


def read_part(store: Store, key: str) -> pa.Table:
    """One part. Raises CorruptObjectError if it cannot be read."""
    data = store.get(key)
    try:
        table = decode_table(data or b"")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptObjectError(
            f"store {store.url}: {key!r} is not a whole table part, `kd-ray verify --repair` rebuilds it: {error}"
        ) from error
    return table.replace_schema_metadata(None)
