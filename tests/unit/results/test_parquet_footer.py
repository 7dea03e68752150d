"""The counts in the footer of a Parquet file: those that pyarrow reads, and a refusal of what is no footer."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kd_ray.results.parquet import decode_table, encode_table
from kd_ray.results.parquet_footer import Counts, read_counts
from kd_ray.results.record import encode_record
from tests.fakes import make_record

RECORD = encode_record(make_record())


def counts_of_pyarrow(data: bytes) -> Counts:
    footer = pq.read_metadata(io.BytesIO(data))
    chunks = [footer.row_group(i).column(j) for i in range(footer.num_row_groups) for j in range(footer.num_columns)]
    return Counts(
        num_rows=footer.num_rows,
        num_values=sum(chunk.num_values for chunk in chunks),
        size_bytes=sum(chunk.total_uncompressed_size for chunk in chunks),
    )


def written(table: pa.Table, **options: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        RECORD,
        encode_table(pa.table({})),
        encode_table(pa.table({"a": pa.array([], pa.int8())})),
        written(pa.table({f"c{i}": [[i, i], [], None] for i in range(40)}), row_group_size=1, version="1.0"),
        written(
            pa.table({"text": ["x" * 3000] * 50, "flag": [True] * 50}, metadata={"k": "v" * 20_000}),
            compression="none",
            write_page_index=True,
            sorting_columns=[pq.SortingColumn(0)],
        ),
    ],
    ids=["record", "no columns", "no rows", "many row groups", "long texts"],
)
def test_counts_are_those_of_pyarrow(data: bytes) -> None:
    assert read_counts(data) == counts_of_pyarrow(data)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + b"\x00" * 8, b"\xff\xff\xff\x7fPAR1", RECORD[:-1]])
def test_what_is_no_footer_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="Parquet"):
        read_counts(data)


def test_more_values_than_are_read_are_refused_by_the_footer() -> None:
    data = encode_table(pa.table({"a": [[1, 2, 3], [4]]}))
    assert decode_table(data, most_values=4).num_rows == 2
    with pytest.raises(ValueError, match="it holds 4 values; at most 3 are read"):
        decode_table(data, most_values=3)


def test_damaged_footer_is_read_or_refused() -> None:
    """Guard: pyarrow would end the process at damaged statistics of sizes, where its caller looks at the columns of a footer."""
    whole = encode_table(pa.table({"a": [[1, 2, 3], [4]]}))
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    reasons = set()
    for place in range(start, len(whole) - 8):
        data = bytearray(whole)
        # The length of a list, where one begins here.
        data[place] ^= 0x10
        try:
            decode_table(bytes(data))
        except (pa.ArrowException, OSError, ValueError) as error:
            reasons.add(str(error))
        else:
            reasons.add("")
    assert "" in reasons
    assert any("histogram size mismatch" in reason for reason in reasons), reasons
