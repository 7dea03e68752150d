"""SQL for strangers: what `kd-ray query` allows, within a time, a memory and a number of rows.

The query runs in a process of its own (`sql_process.py`), because an interrupt is obeyed between two vectors only:
`SELECT list_sum(range(200000000))` went on for 172 s after it (DuckDB 2.0.1).
"""

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kd_ray.errors import QueryError
from kd_ray.results.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

SETTINGS = {
    "memory_limit": "1GB",
    "threads": 2,
    "temp_directory": "",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
}
"""DuckDB takes this memory, does not spill to disk, and fetches no extension."""
MAX_BYTES = 64_000_000
"""Size of an answer; a page with a larger one would stop the browser."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """The rows of a query."""

    table: "pa.Table"
    is_cut: bool
    """Whether there are more rows than were asked for."""


def answer(store: Store, sql: str, *, max_rows: int, time_limit_s: float) -> Answer:
    """The first rows that statements which only read give.

    Raises:
        QueryError: they do more, DuckDB refuses them, or they take too long or too much memory.
    """

    # The server itself runs no SQL and does not wait for these.
    import duckdb
    import pyarrow as pa

    from kd_ray.results.query import ask

    def run(connection: duckdb.DuckDBPyConnection) -> pa.Table:
        timer = threading.Timer(time_limit_s, connection.interrupt)
        timer.start()
        try:
            relation = connection.sql(sql)
            return pa.table({}) if relation is None else relation.limit(max_rows + 1).to_arrow_table()
        except duckdb.InterruptException as error:
            raise QueryError(too_long(time_limit_s)) from error
        finally:
            timer.cancel()

    table = ask(store, sql, run, settings=SETTINGS)
    if table.nbytes > MAX_BYTES:
        raise QueryError(
            f"SQL: the answer has {table.nbytes / 1e6:.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB are shown. "
            "Choose fewer columns, or use `kd-ray query` or Python."
        )
    return Answer(table=table.slice(0, max_rows), is_cut=table.num_rows > max_rows)


def too_long(time_limit_s: float) -> str:
    """What is said of a query that did not end."""
    return f"SQL: not finished after {time_limit_s:g} s, so it was stopped; `kd-ray query` has no time limit"
