"""The types that describe a table: its name, and the name, type, unit and meaning of each column."""

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table."""

    name: str
    type: pa.DataType
    unit: str
    """`1` for a rate or probability in [0, 1], `s` for seconds, empty for names and counts."""
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table."""

    name: str
    one_row_per: str
    columns: tuple[Column, ...]

    @property
    def arrow_schema(self) -> pa.Schema:
        """The Arrow schema of the parts."""
        return pa.schema([(column.name, column.type) for column in self.columns])


TEXT = pa.string()
TEXTS = pa.map_(pa.string(), pa.string())


def column(name: str, type_: pa.DataType, meaning: str, unit: str = "") -> Column:
    """A column of any type."""
    return Column(name=name, type=type_, unit=unit, meaning=meaning)


def rate(name: str, meaning: str) -> Column:
    """A column of rates or probabilities, in [0, 1]."""
    return Column(name=name, type=pa.float64(), unit="1", meaning=meaning)
