"""The rows of the table `trials` as a study holds them: by column.

A sweep of 100,000 trials has millions of values there, and most readers want few of the columns. So a column becomes Python values when it
is first asked for, and a row is a look into the columns.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import pyarrow as pa

from kd_ray.results.table_parts import SETTINGS_CELL, read_cell


class TrialRows(Sequence[Mapping[str, Any]]):
    """Rows of `trials`, whose `settings` are lists of (axis, value)."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._columns: dict[str, list[Any]] = {}

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, row: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, row: int | slice) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        places = range(len(self))[row]
        return _Row(self, places) if isinstance(places, int) else [_Row(self, place) for place in places]

    @property
    def names(self) -> Sequence[str]:
        """The columns."""
        names: list[str] = self._table.column_names
        return names

    def column(self, name: str) -> list[Any]:
        """The values of a column, by row. Raises KeyError for one that there is not."""
        values = self._columns.get(name)
        if values is None:
            values = self._table[name].to_pylist()
            if name == "settings":
                # Many trials have the same settings.
                read = {text: list(read_cell(SETTINGS_CELL, text, "trials").items()) for text in set(values)}
                values = [read[text] for text in values]
            self._columns[name] = values
        return values


class _Row(Mapping[str, Any]):
    """One row."""

    __slots__ = ("_place", "_rows")

    def __init__(self, rows: TrialRows, place: int) -> None:
        self._rows = rows
        self._place = place

    def __getitem__(self, name: str) -> Any:
        return self._rows.column(name)[self._place]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows.names)

    def __len__(self) -> int:
        return len(self._rows.names)


def column(trials: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    """The values of a column, by row."""
    return trials.column(name) if isinstance(trials, TrialRows) else [trial[name] for trial in trials]
