"""The types that describe a table: its name, and the name, type, unit, range and meaning of each column."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

Better = Literal["higher", "lower"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table."""

    name: str
    type: pa.DataType
    unit: str
    """`1` for a rate or probability in [0, 1], `s` for seconds, empty for names and counts."""
    says: str | Callable[[], str]
    """Its meaning, or a function that finds it: those of settings are read from the source, which takes a while."""
    low: float | None = None
    """Smallest possible value, where there is one."""
    high: float | None = None
    """Largest possible value, where there is one."""
    better: Better | None = None
    """The direction of an improvement; None where neither direction is one."""
    is_axis: bool = False
    """Whether it is a setting that a grid axis may vary, and null where none does."""

    @property
    def meaning(self) -> str:
        """What it holds, in words."""
        return self.says if isinstance(self.says, str) else self.says()

    @property
    def range(self) -> str:
        """`[0, 1]`, `[0, inf)`; empty where nothing is said."""
        if self.low is None or self.high is None:
            return ""
        return f"[{self.low:g}, {self.high:g}{')' if self.high == float('inf') else ']'}"

    @property
    def field(self) -> pa.Field:
        """The Arrow field, which a Parquet file keeps with its unit, meaning, range and direction."""
        said = {"unit": self.unit, "meaning": self.meaning, "range": self.range, "better": self.better or ""}
        return pa.field(self.name, self.type, metadata={name: text for name, text in said.items() if text})


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table."""

    name: str
    one_row_per: str
    columns: tuple[Column, ...]

    @property
    def arrow_schema(self) -> pa.Schema:
        """The Arrow schema of the parts."""
        return pa.schema([column.field for column in self.columns])


TEXT = pa.string()


def column(name: str, type_: pa.DataType, meaning: str, unit: str = "") -> Column:
    """A column of any type."""
    return Column(name=name, type=type_, unit=unit, says=meaning)


def rate(name: str, meaning: str, better: Better | None = None) -> Column:
    """A column of rates or probabilities, in [0, 1]."""
    return Column(name=name, type=pa.float64(), unit="1", says=meaning, low=0.0, high=1.0, better=better)
