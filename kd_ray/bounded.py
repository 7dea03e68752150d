"""Readers of what a stranger may have written: bounded in size and depth, and typed. Nothing here runs code.

A store may come from another group, or be damaged. So each JSON object of a store is read by one `JsonForm`, which checks size, depth and
types at once and raises nothing but ValueError.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, TypeAdapter

T = TypeVar("T")

MEGABYTE = 2**20


def _is_date(text: str) -> str:
    datetime.fromisoformat(text)
    return text


IsoDate = Annotated[str, AfterValidator(_is_date)]
"""A date and time in ISO 8601, kept as text."""


@dataclass(frozen=True, kw_only=True)
class JsonForm(Generic[T]):
    """What one kind of JSON object holds."""

    kind: Any
    """The type that is read."""
    most_bytes: int = MEGABYTE
    """Larger objects are refused before they are parsed."""

    def read(self, data: bytes | str) -> T:
        """The object as its type; raises ValueError, in one line, when it is not one."""
        if len(data) > self.most_bytes:
            raise ValueError(f"it has {len(data):,} bytes; at most {self.most_bytes:,} are read")
        try:
            # The parser of pydantic stops at 200 levels, so that nesting is bounded too.
            made: T = self._adapter.validate_json(data)
        except (ValueError, RecursionError, OverflowError) as error:
            raise ValueError(in_a_line(error)) from error
        return made

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.kind)


def in_a_line(error: Exception) -> str:
    """An error in one line: of several problems that pydantic names the first, where it stands and what it is."""
    found = getattr(error, "errors", None)
    if found is None:
        return " ".join(str(error).split())[:300]
    first = found(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}"[:300] if where else str(first["msg"])[:300]
