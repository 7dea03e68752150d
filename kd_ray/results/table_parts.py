"""Reads the Parquet tables of a store: whole parts, by table and sweep."""

from collections.abc import Collection, Iterator

import pyarrow as pa

from kd_ray.errors import CorruptObjectError
from kd_ray.results.inventory import table_parts
from kd_ray.results.record import decode_table
from kd_ray.results.schema import QUERIED
from kd_ray.results.store import Store


def read_table(store: Store, table: str, sweeps: Collection[str] | None = None) -> pa.Table:
    """All rows of a table, or those of some sweeps.

    Raises:
        CorruptObjectError: a part cannot be read; the next aggregation rebuilds it.
    """
    parts = [_read_part(store, key) for key in part_keys(store, table, sweeps)]
    try:
        return pa.concat_tables([QUERIED[table].arrow_schema.empty_table(), *parts])
    except pa.ArrowException as error:
        what = "has other columns than this kd_ray writes, `kd-ray verify --rebuild-tables` makes it again"
        raise CorruptObjectError(f"store {store.url}: a part of table {table} {what}") from error


def part_keys(store: Store, table: str, sweeps: Collection[str] | None = None) -> Iterator[str]:
    """Keys of the parts of a table, in order."""
    for entry in table_parts(store, table=table):
        if sweeps is None or entry.place.sweep in sweeps:
            yield entry.item.key


def _read_part(store: Store, key: str) -> pa.Table:
    data = store.get(key)
    try:
        table = decode_table(data or b"")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptObjectError(
            f"store {store.url}: {key!r} is not a whole table part, `kd-ray verify --repair` rebuilds it: {error}"
        ) from error
    return table.replace_schema_metadata(None)
