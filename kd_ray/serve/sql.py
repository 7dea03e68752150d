"""SQL for strangers: DuckDB that reads the tables of a store and nothing else, within a time and a memory.

A web page may not do what `kd-ray query` does for its user, who may read any file of theirs. So one SELECT is accepted; other files,
extensions, variables of Python and settings are closed. The query runs in a process of its own (`sql_process.py`), because an interrupt is
obeyed between two vectors only: `SELECT list_sum(range(200000000))` went on for 172 s after it (DuckDB 2.0.1).
"""

import threading
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from kd_ray.errors import QueryError
from kd_ray.results.query import connect_tables
from kd_ray.results.store import TABLES_FOLDER, Store

MEMORY = "1GB"
"""What DuckDB may take; it does not spill to disk."""
_TRIES = 3
MAX_BYTES = 64_000_000
"""Size of an answer; a page with a larger one would stop the browser."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """The rows of a query."""

    table: pa.Table
    is_cut: bool
    """Whether there are more rows than were asked for."""


def answer(store: Store, sql: str, *, max_rows: int, time_limit_s: float) -> Answer:
    """The first rows that one SELECT gives.

    Raises:
        QueryError: it is not one SELECT, DuckDB refuses it, or it takes too long or too much memory.
    """
    for tries_left in reversed(range(_TRIES)):
        try:
            return _answer(store, sql, max_rows=max_rows, time_limit_s=time_limit_s)
        except duckdb.IOException as error:
            # An aggregation may replace a file between two looks of DuckDB at it.
            if not tries_left:
                raise QueryError(f"SQL: {error}") from error
    raise AssertionError("the last try returns or raises")


def _answer(store: Store, sql: str, *, max_rows: int, time_limit_s: float) -> Answer:
    with duckdb.connect(config={"python_enable_replacements": False}) as connection:
        _check(connection, sql)
        _lock(connection, store, sql)
        timer = threading.Timer(time_limit_s, connection.interrupt)
        timer.start()
        try:
            relation = connection.sql(sql)
            table = pa.table({}) if relation is None else relation.limit(max_rows + 1).to_arrow_table()
        except duckdb.InterruptException as error:
            raise QueryError(too_long(time_limit_s)) from error
        except duckdb.IOException:
            raise
        except (duckdb.Error, MemoryError) as error:
            raise QueryError(f"SQL: {error}") from error
        finally:
            timer.cancel()
    if table.nbytes > MAX_BYTES:
        raise QueryError(
            f"SQL: the answer has {table.nbytes / 1e6:.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB are shown. "
            "Choose fewer columns, or use `kd-ray query` or Python."
        )
    return Answer(table=table.slice(0, max_rows), is_cut=table.num_rows > max_rows)


def too_long(time_limit_s: float) -> str:
    """What is said of a query that did not end."""
    return f"SQL: not finished after {time_limit_s:g} s, so it was stopped; `kd-ray query` has no time limit"


def _check(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse all but one SELECT: within the tables' folder, which has to be readable, COPY could write."""
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryError(f"SQL: {error}") from error
    kinds = [statement.type.name for statement in statements]
    if kinds != ["SELECT"]:
        raise QueryError(
            f"SQL: got {', '.join(kinds) or 'nothing'}; one SELECT, DESCRIBE or SUMMARIZE is accepted here"
        )


def _lock(connection: duckdb.DuckDBPyConnection, store: Store, sql: str) -> None:
    """Name the tables, and close everything else, this closing included."""
    connection.execute(
        "SET autoinstall_known_extensions = false; SET autoload_known_extensions = false; SET allow_community_extensions = false;"
        f"SET temp_directory = ''; SET memory_limit = '{MEMORY}'; SET threads = 2"
    )
    if store.local_root is not None:
        folder = str(store.local_root / TABLES_FOLDER).replace("'", "''")
        connection.execute(f"SET allowed_directories = ['{folder}/']")
    connection.execute("SET enable_external_access = false")
    connect_tables(connection, store, sql)
    connection.execute("SET lock_configuration = true")
