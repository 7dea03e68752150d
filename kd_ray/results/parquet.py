"""Tables as Parquet bytes, and back. What the bytes would become is checked before they are decoded."""

import io

import pyarrow as pa
import pyarrow.parquet as pq

from kd_ray.bounded import MEGABYTE
from kd_ray.results.parquet_footer import read_counts


def encode_table(table: pa.Table, *, use_dictionary: bool = True) -> bytes:
    """Parquet bytes with page checksums; the same table gives the same bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True, use_dictionary=use_dictionary)
    return buffer.getvalue()


MOST_VALUES = 50_000_000
"""Most values of a record, or of the samples of a data set, in all columns together: what 10 million test samples have with 5 each."""
MOST_PART_VALUES = 20 * MOST_VALUES
"""Most values of a part of a table."""
_MOST_BYTES_PER_VALUE = 64
"""Beyond 64 MB, the columns of a table take no more than that for each value, before compression."""


def decode_table(data: bytes, *, most_values: int = MOST_PART_VALUES) -> pa.Table:
    """Read Parquet bytes and verify the page checksums. How much they hold is checked first, in their footer.

    Raises:
        ValueError: they hold more than `most_values`, or their footer is none.
    """
    with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
        counts = read_counts(data)
        if max(counts.num_values, counts.num_rows) > most_values:
            raise ValueError(f"it holds {counts.num_values:,} values; at most {most_values:,} are read")
        if counts.size_bytes > max(64 * MEGABYTE, counts.num_values * _MOST_BYTES_PER_VALUE):
            raise ValueError(f"its {counts.num_values:,} values take {counts.size_bytes:,} bytes")
        return file.read(use_threads=False)
