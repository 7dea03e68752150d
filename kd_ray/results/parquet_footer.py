"""What a Parquet file says of its size in its footer, read without a library.

pyarrow (25) ends the whole process when its caller looks at the columns of a footer whose statistics of sizes are damaged, because the
exception is one of C++ and nothing catches it. So the counts are read here, from Thrift's compact protocol
(https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md; https://github.com/apache/parquet-format).
"""

from collections.abc import Iterator
from dataclasses import dataclass

_MAGIC = b"PAR1"
_DEEPEST = 32
_BINARY, _LIST, _SET, _MAP, _STRUCT = 8, 9, 10, 11, 12
_FIXED = {1: 0, 2: 0, 3: 1, 7: 8, 13: 16}
"""Bytes of a field by its type: the values of a bool stand in the type."""
_INTEGERS = (4, 5, 6)

# Fields of FileMetaData, RowGroup, ColumnChunk and ColumnMetaData.
_NUM_ROWS, _ROW_GROUPS = 3, 4
_COLUMNS = 1
_META_DATA = 3
_NUM_VALUES, _UNCOMPRESSED = 5, 6


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How much a file claims to hold."""

    num_rows: int
    num_values: int
    """Of all columns and row groups."""
    size_bytes: int
    """Of all pages, before compression."""


def read_counts(data: bytes) -> Counts:
    """The counts of a Parquet file; raises ValueError when its footer is none."""
    size = int.from_bytes(data[-8:-4], "little")
    if len(data) < size + 12 or data[-4:] != _MAGIC:
        raise ValueError("it has no footer of Parquet")
    try:
        return _counts(_Reader(data, len(data) - 8 - size))
    except IndexError as error:
        raise ValueError("the footer of Parquet is cut off") from error


def _counts(reader: "_Reader") -> Counts:
    num_rows = num_values = size_bytes = 0
    for field, kind in reader.fields():
        if field == _NUM_ROWS:
            num_rows = max(num_rows, reader.integer())
        elif field == _ROW_GROUPS and kind == _LIST:
            for _ in reader.structs():
                for _ in reader.inside(_COLUMNS):
                    for _ in reader.structs():
                        for _ in reader.inside(_META_DATA):
                            for inner, inner_kind in reader.fields():
                                if inner == _NUM_VALUES:
                                    num_values += reader.integer()
                                elif inner == _UNCOMPRESSED:
                                    size_bytes += reader.integer()
                                else:
                                    reader.skip(inner_kind)
        else:
            reader.skip(kind)
    return Counts(num_rows=num_rows, num_values=num_values, size_bytes=size_bytes)


class _Reader:
    """Reads one value after another."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and type of each field of a struct; the caller reads or skips its value."""
        field, data = 0, self._data
        while (head := data[self._at]) != 0:
            self._at += 1
            field = field + (head >> 4) if head > 15 else self._signed()
            yield field, head & 15
        self._at += 1

    def inside(self, wanted: int) -> Iterator[None]:
        """Stops at each value of one field of a struct, and skips the others."""
        for field, kind in self.fields():
            if field == wanted and kind in (_LIST, _STRUCT):
                yield
            else:
                self.skip(kind)

    def structs(self) -> Iterator[None]:
        """Stops at each element of a list of structs."""
        count, kind = self._list()
        if kind != _STRUCT and count:
            raise ValueError("the footer of Parquet has another form")
        for _ in range(count):
            yield

    def integer(self) -> int:
        """A count, which is not negative."""
        if (value := self._signed()) < 0:
            raise ValueError("a count in the footer of Parquet is negative")
        return value

    def skip(self, kind: int, depth: int = 0) -> None:
        """Pass over a value."""
        if depth > _DEEPEST:
            raise ValueError("the footer of Parquet is nested too deeply")
        if kind in _INTEGERS:
            self._varint()
        elif kind in _FIXED:
            self._move(_FIXED[kind])
        elif kind == _BINARY:
            self._move(self._varint())
        elif kind in (_LIST, _SET):
            count, inner = self._list()
            # A bool in a list has a byte of its own.
            pass_over = self._varint if inner in _INTEGERS else lambda: self.skip(3 if inner < 3 else inner, depth + 1)
            for _ in range(count):
                pass_over()
        elif kind == _STRUCT:
            for _, inner in self.fields():
                self.skip(inner, depth + 1)
        elif kind == _MAP:
            self._skip_map(depth)
        else:
            raise ValueError("the footer of Parquet has another form")

    def _skip_map(self, depth: int) -> None:
        if count := self._varint():
            kinds = self._byte()
            for _ in range(count):
                for inner in (kinds >> 4, kinds & 15):
                    self.skip(3 if inner in (1, 2) else inner, depth + 1)

    def _list(self) -> tuple[int, int]:
        head = self._byte()
        return (head >> 4 if head >> 4 != 15 else self._varint()), head & 15

    def _signed(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _varint(self) -> int:
        # Most numbers have one byte, and a record has some two thousand of them.
        data, at = self._data, self._at
        value, shift = data[at], 7
        if value > 127:
            value &= 127
            while True:
                at += 1
                value |= (data[at] & 127) << shift
                if data[at] < 128:
                    break
                shift += 7
                if shift > 63:
                    raise ValueError("a number in the footer of Parquet is too long")
        self._at = at + 1
        return value

    def _byte(self) -> int:
        byte = self._data[self._at]
        self._at += 1
        return byte

    def _move(self, count: int) -> None:
        self._at += count
        if self._at > len(self._data):
            raise IndexError
