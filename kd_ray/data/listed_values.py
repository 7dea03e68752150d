"""The values of a list, as its file holds them: reads CSV and Parquet, and turns values of any type of Arrow into text.

Values of a CSV file are text. What cannot be one text, such as a struct, is refused with its column.
"""

import csv
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from kd_ray.errors import DataError, some

_WORDS = ("nan", "null", "none")
"""Texts, in any case, that meant that there is no value before `missing_values` named such texts."""
_SUSPICIOUS = (*_WORDS, "na", "n/a", "?", "-")


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadList:
    """The columns that a data set uses, and where their rows stand."""

    table: pa.Table
    """Text, where the list is a CSV file; categories, and views of texts and bytes, as the plain types."""
    line_of: Sequence[int] | None
    """For each row of a CSV file, its last line, from 1; None for Parquet."""


def _as_utf8(path: Path) -> str:
    """What to do with a file that is not text of UTF-8."""
    with path.open("rb") as file:
        start = file.read(4096)
    if start.startswith((b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"(\xb5/\xfd")):
        return "it looks compressed: unpack it, or save a workbook as CSV"
    is_utf16 = start[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in start
    return f"save it as UTF-8, as with `iconv -f {'UTF-16' if is_utf16 else 'WINDOWS-1252'} -t UTF-8`"


def comma_advice(text: str) -> str:
    """What to do about a number with a decimal comma, as the end of a message; empty for other texts."""
    if re.fullmatch(r"\s*[+-]?\d+(?:[.\s]\d{3})*,\d+\s*", text):
        return "; write a decimal point, as in 3.5: commas are not read as such"
    return ""


def list_columns(path: Path) -> list[str]:
    """Names of the columns of a list, as they stand in it. Raises DataError for a list that cannot be read."""
    try:
        if path.suffix != ".csv":
            return list(parquet.read_schema(path).names)
        with path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file, strict=True), [])
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise DataError(f"manifest: {path} cannot be read: {error}") from error


def read_list(path: Path, wanted: Sequence[str]) -> ReadList:
    """The columns `wanted`. Raises DataError for a list that cannot be read, or lacks one of them or has it twice."""
    try:
        if path.suffix == ".csv":
            return _read_csv(path, wanted)
        _check_columns(path, parquet.read_schema(path).names, wanted)
        table = parquet.read_table(path, columns=list(wanted))
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"manifest: {path} cannot be read: {error}") from error
    return ReadList(table=pa.table({name: _plain(table.column(name)) for name in wanted}), line_of=None)


def _read_csv(path: Path, wanted: Sequence[str]) -> ReadList:
    limit = csv.field_size_limit(sys.maxsize)
    rows, line_of = [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, None)
            if header is None:
                raise DataError(f"manifest: {path} is empty")
            if any("\0" in name for name in header):
                raise DataError(f"manifest: {path} cannot be read: it is not UTF-8; {_as_utf8(path)}")
            _check_columns(path, header, wanted)
            places = [header.index(name) for name in wanted]
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"manifest: {path}, line {reader.line_num}: {len(row)} values, expected {len(header)}"
                    )
                rows.append([row[place] for place in places])
                line_of.append(reader.line_num)
    except UnicodeDecodeError as error:
        raise DataError(
            f"manifest: {path} cannot be read: it is not UTF-8 ({error.reason} at byte {error.start:,}); "
            f"{_as_utf8(path)}"
        ) from error
    except csv.Error as error:
        raise DataError(
            f"manifest: {path}, line {reader.line_num}: {error}; is there a quote that is not closed, or not doubled, at or above it?"
        ) from error
    finally:
        csv.field_size_limit(limit)
    columns = zip(*rows, strict=True) if rows else [()] * len(wanted)
    return ReadList(
        table=pa.table({name: pa.array(values, pa.string()) for name, values in zip(wanted, columns, strict=True)}),
        line_of=line_of,
    )


def _check_columns(path: Path, present: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if list(present).count(name) != 1:
            what = "has no" if name not in present else "has more than one"
            other = next((mark for mark in ";\t|" if len(present) == 1 and mark in present[0]), None)
            hint = f"; values are separated by commas, and these seem to be by {other!r}" if other else ""
            raise DataError(f"manifest: {path} {what} column {name!r}; its columns: {', '.join(present)}{hint}")


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain(column.cast(kind.value_type))
    if pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    return column.cast(pa.large_binary()) if pa.types.is_binary_view(kind) else column


def texts_of(column: pa.ChunkedArray, place: str) -> list[str]:
    """Values as text; what is missing is empty, 1.0 is "1", and a float32 has the digits that say it. Raises DataError naming `place`."""
    kind = column.type
    if pa.types.is_nested(kind):
        raise DataError(f"manifest: {place} is {kind}, expected a text, number, date or truth value for each row")
    values = column.to_pylist()
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        try:
            values = [None if value is None else value.decode() for value in values]
        except UnicodeDecodeError as error:
            raise DataError(f"manifest: {place} holds bytes that are no text in UTF-8; write it as text") from error
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        values = [None if value is None else float(str(np.float32(value))) for value in values]
    return [_text(value) for value in values]


def texts_in_lists(column: pa.ChunkedArray, place: str) -> list[list[str]] | None:
    """The texts of each row of a column of lists; None where it holds no lists. Raises DataError naming `place`."""
    import pyarrow.compute as pc

    kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return None
    whole = column.cast(pa.large_list(kind.value_type))
    texts = texts_of(_plain(pa.chunked_array([pc.list_flatten(whole).combine_chunks()])), f"{place}, inside its lists,")
    ends = np.cumsum(pc.list_value_length(whole).fill_null(0).to_numpy())
    return [texts[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def former_words(texts: Sequence[str]) -> bool:
    """Whether one of the texts meant that there is no value before `missing_values` named such texts."""
    return any(text.lower() in _WORDS for text in set(texts))


def suspicious(name: str, texts: Sequence[str]) -> list[str]:
    """A note on texts that may mean that there is no value, and are values of `name`."""
    found = sorted({text for text in texts if text.lower() in _SUSPICIOUS})
    return (
        [f"{name}: {some(found)} counts as a value; if it means that there is none, name it in dataset.missing_values"]
        if found
        else []
    )
