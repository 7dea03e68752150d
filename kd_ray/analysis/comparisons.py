"""How rows of `comparisons` are kept in the store."""

from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

import pyarrow as pa

from kd_ray.results.comparison_schema import COMPARISONS, Comparison
from kd_ray.results.query import Results
from kd_ray.results.rows import as_json
from kd_ray.results.store import part_key
from kd_ray.results.table_parts import SETTINGS_CELL, encode_part, read_cell

_NAMES = tuple(item.name for item in fields(Comparison))


def comparisons_table(rows: Sequence[Comparison]) -> pa.Table:
    """The rows as the store keeps them."""
    schema = COMPARISONS.arrow_schema
    columns = []
    for item in schema:
        values: list[Any] = list(map(attrgetter(item.name), rows))
        if item.name == "settings":
            values = [as_json(value) for value in values]
        columns.append(pa.array(values, type=item.type))
    return pa.table(columns, schema=schema)


def write_comparisons(results: Results, sweep: str, rows: Sequence[Comparison]) -> None:
    """Replace the comparisons of a sweep, all of them in one atomic write."""
    results.store.put(
        part_key(COMPARISONS.name, sweep, 0), encode_part(comparisons_table(rows), COMPARISONS.name, sweep)
    )


def read_comparisons(results: Results, sweep: str) -> list[Comparison]:
    """The comparisons of a sweep as they were written last; empty when there are none.

    Raises:
        QueryError: the store has no such sweep.
    """
    return [
        Comparison(
            **{name: row[name] for name in _NAMES}
            | {"flags": tuple(row["flags"]), "settings": read_cell(SETTINGS_CELL, row["settings"], COMPARISONS.name)}
        )
        for row in results.table(COMPARISONS.name, sweep=sweep).to_pylist()
    ]
