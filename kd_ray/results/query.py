"""What a person asks the store: tables as Arrow, and SQL over all of them by name.

DuckDB reads local parts straight from their files. Parts of an object store are fetched through the store's own client first, so a query
needs no extension, no second set of credentials, and only the tables it names. SQL sees the tables and nothing else of this machine, unless
it is asked for as `unsafe`.

A person's query has a DuckDB of its own, which costs 20 ms of CPU time. The queries of kd_ray itself share one for each store.
"""

import functools
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from kd_ray.errors import QueryError
from kd_ray.results.aggregate import refuse_former_parts, upgrade_tables
from kd_ray.results.inventory import sweep_names, table_parts
from kd_ray.results.schema import QUERIED, TABLES
from kd_ray.results.sql_views import SQL_VIEWS
from kd_ray.results.store import Store
from kd_ray.results.table_form import have_one_form
from kd_ray.results.table_parts import read_table, read_tables

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    from fairlearn.metrics import MetricFrame

    from kd_ray.results.record import Record, Samples

T = TypeVar("T")
_TRIES = 10


class Results:
    """The results in a store, for notebooks: `kd_ray.open_store(url).table("trials").to_pandas()`."""

    def __init__(self, store: Store, *, may_write: bool = True) -> None:
        """Use `kd_ray.open_store(url)`. Without `may_write`, a store whose tables kd_ray 0.1 wrote is refused rather than replaced."""
        self.store = store
        self._may_write = may_write
        self._is_prepared = False

    def sweeps(self) -> list[str]:
        """Names of the sweeps in the store."""
        return sweep_names(self.store)

    def sweeps_without_tables(self) -> list[str]:
        """Sweeps that have no rows: none of their trials is complete, or nobody has aggregated them since."""
        known = {entry.place.sweep for entry in table_parts(self.store)}
        return [sweep for sweep in self.sweeps() if sweep not in known]

    def table(self, name: str, *, sweep: str | None = None) -> pa.Table:
        """All rows of a table, or those of one sweep, in the order of the sweep's trials.

        Raises:
            QueryError: there is no such table or sweep; the message names those there are.
        """
        if name not in QUERIED:
            raise QueryError(f"no table {name!r}; valid: {', '.join(QUERIED)}")
        self._prepare()
        self._check_sweep(sweep)
        return read_table(self.store, name, None if sweep is None else [sweep])

    def frame(self, name: str, *, sweep: str | None = None) -> "pd.DataFrame":
        """A table as a pandas frame, with a column for each grid axis.

        Integers and truth values may be missing (`Int64`, `boolean`). `temperature` is an ordered categorical, so are `role` and
        `class_name`; other names are categoricals. An axis such as `training.optimizer.lr` is a column of its own type at the end.

        Raises:
            QueryError: there is no such table, sweep or store.
        """
        from kd_ray.results.frames import to_frame

        table = self.table(name, sweep=sweep)
        trials = table if name == "trials" else self.table("trials", sweep=sweep)
        return to_frame(table, trials.select(["sweep", "trial_id", "settings"]))

    def predictions(self, trial_id: str) -> "pd.DataFrame":
        """The test samples of a trial, one row each: label, prediction, probabilities, and the groups of each sensitive feature.

        Raises:
            QueryError: there is no such complete trial.
        """
        from kd_ray.results.frames import predictions_frame

        return predictions_frame(*self._trial(trial_id))

    def metric_frame(
        self,
        trial_id: str,
        feature: str | Sequence[str],
        *,
        positive_class: str | None = None,
        metrics: Mapping[str, Callable[..., Any]] | Callable[..., Any] | None = None,
    ) -> "MetricFrame":
        """fairlearn's `MetricFrame` of a trial, from its stored predictions.

        Several features give the groups of their intersection. Without `metrics` it holds accuracy and count, and with a
        `positive_class`, whose label is then 1 and that of all others 0, also selection rate, true and false positive rate. A sample of
        several groups counts in each of them, one of none is left out; `overall` is over the samples that are counted.

        Raises:
            QueryError: there is no such complete trial, sensitive feature or class.
        """
        from kd_ray.results.frames import metric_frame

        features = [feature] if isinstance(feature, str) else list(feature)
        record, samples = self._trial(trial_id)
        return metric_frame(record, samples, features, positive_class=positive_class, metrics=metrics)

    def _trial(self, trial_id: str) -> "tuple[Record, Samples]":
        """A trial, with the features of every sweep that has it."""
        from kd_ray.results.frames import read_trial

        sweeps: dict[str, str] = {}
        if re.fullmatch("[0-9a-f]{16}", trial_id):
            rows = self.query_own(f"SELECT sweep, dataset_id FROM trials WHERE trial_id = '{trial_id}' ORDER BY 1")
            sweeps = dict(zip(rows["sweep"].to_pylist(), rows["dataset_id"].to_pylist(), strict=True))
        return read_trial(self.store, trial_id, sweeps)

    def query(self, sql: str, *, sweep: str | None = None, unsafe: bool = False) -> pa.Table:
        """The answer of DuckDB to `sql`, which sees every table and view by its name.

        With `sweep`, they hold the rows of this sweep alone: in a store with many large sweeps DuckDB then opens few of their files. Only
        with `unsafe` may it be more than a SELECT, read and write files, attach databases and load extensions.

        Raises:
            QueryError: it is no SELECT, there is no such sweep, or DuckDB refuses the query; its message says why.
        """
        self._prepare()
        self._check_sweep(sweep)

        def run(connection: "duckdb.DuckDBPyConnection") -> pa.Table:
            relation = connection.sql(sql)
            return pa.table({"ok": [True]}) if relation is None else relation.to_arrow_table()

        return ask(self.store, sql, run, sweep=sweep, unsafe=unsafe)

    def query_own(self, sql: str, *, sweep: str | None = None) -> pa.Table:
        """The answer to a SELECT over tables that kd_ray has written itself; with `sweep`, the tables hold the rows of this sweep alone.

        Raises:
            QueryError: DuckDB refuses the query, as where a table is damaged.
        """
        self._prepare()

        def run(by_name: bool) -> pa.Table:
            # Views belong to a cursor, so that threads do not see each other's.
            with _shared_database(self.store.local_root).cursor() as connection:
                _connect_files(connection, self.store, _tables_in(sql), sweep=sweep, by_name=by_name)
                return connection.sql(sql).to_arrow_table()

        return _until_whole(run)

    def _check_sweep(self, sweep: str | None) -> None:
        if sweep is not None and sweep not in (known := self.sweeps()):
            raise QueryError(f"store {self.store.url}: no sweep {sweep!r}; it has: {', '.join(known) or 'none'}")

    def _prepare(self) -> None:
        """Refuse a store that does not exist, and bring tables of an older kd_ray up to date, once."""
        root = self.store.local_root
        if root is not None and not root.is_dir():
            raise QueryError(f"store {self.store.url}: no such folder; a launch makes it")
        if not self._is_prepared:
            (upgrade_tables if self._may_write else refuse_former_parts)(self.store)
            self._is_prepared = True


def ask(
    store: Store,
    sql: str,
    run: "Callable[[duckdb.DuckDBPyConnection], T]",
    *,
    sweep: str | None = None,
    unsafe: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> T:
    """What `run` gives with a connection on which `sql` is safe: it sees every table and view by its name, and nothing else.

    With `sweep`, they hold its rows alone. `settings` are DuckDB's. `run` is called again when an aggregation has replaced a file
    in between.

    Raises:
        QueryError: it is no SELECT, or DuckDB refuses the query; its message says why.
    """
    import duckdb

    def once(by_name: bool) -> T:
        with duckdb.connect(config=dict(settings or {})) as connection:
            if not unsafe:
                _check_reads_only(connection, sql)
            files = _connect_tables(connection, store, sql, sweep=sweep, by_name=by_name)
            if not unsafe:
                _lock(connection, files)
            return run(connection)

    return _until_whole(once)


def _until_whole(query: Callable[[bool], T]) -> T:
    """What the query gives. DuckDB opens a file more than once; if an aggregation replaces it in between, the query is repeated.

    It is asked `by_name` from the second time on, in case a part has another form than the store says.
    """
    import duckdb

    for tries_left in reversed(range(_TRIES)):
        try:
            return query(tries_left < _TRIES - 1)
        except duckdb.Error as error:
            if tries_left and _may_pass(error):
                continue
            names = ", ".join([*QUERIED, *(view.signature for view in SQL_VIEWS.values())])
            hint = _meant(str(error))
            if isinstance(error, duckdb.PermissionException):
                hint = "\nSQL sees the tables of the store only; `kd-ray query --unsafe` lets it see files, too"
            raise QueryError(f"SQL: {error}{hint}\ntables and views: {names}") from error
    raise AssertionError("the last try returns or raises")


def _meant(error: str) -> str:
    """The axes of the grid that an unknown column may mean: people write `lr`, and the column is `training.optimizer.lr`."""
    unknown = re.search(r'column (?:named )?"([^"]+)"', error)
    ending = f".{unknown[1].lower()}" if unknown else ""
    axes = [f'"{it.name}"' for it in TABLES["trials"].columns if ending and it.is_axis and it.name.endswith(ending)]
    return f"\nan axis of the grid is a column under its path, in quotes: {', '.join(axes)}" if axes else ""


@functools.lru_cache(maxsize=4)
def _shared_database(root: Path | None) -> "duckdb.DuckDBPyConnection":
    """The DuckDB of kd_ray's own queries. It may read the store at `root`, within which links may lead anywhere, and no other file."""
    import duckdb

    connection = duckdb.connect()
    if root is not None:
        connection.execute(f"SET allowed_directories = [{_listed([f'{root}{os.sep}'])}]")
    _seal(connection)
    return connection


def _check_reads_only(connection: "duckdb.DuckDBPyConnection", sql: str) -> None:
    """Refuse every statement but SELECT. `_lock` leaves the parts of tables open, and `COPY … TO` could overwrite one of them."""
    import duckdb

    others = {it.type.name for it in connection.extract_statements(sql) if it.type != duckdb.StatementType.SELECT}
    if others:
        # DuckDB turns a PIVOT without IN into several statements, and hides in the same way what a COPY of it writes.
        raise QueryError(
            f"SQL: {', '.join(sorted(others))} is not allowed: only statements that read are, such as SELECT, FROM, SHOW TABLES, DESCRIBE "
            "or PIVOT … ON … IN (…); `kd-ray query --unsafe` allows all others"
        )


def _lock(connection: "duckdb.DuckDBPyConnection", files: Sequence[str]) -> None:
    """Leave a connection no file but these, no network, no extensions, and no way to change that."""
    connection.execute(f"SET allowed_paths = [{_listed(files)}]")
    _seal(connection)


def _seal(connection: "duckdb.DuckDBPyConnection") -> None:
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _listed(files: Sequence[str]) -> str:
    """Paths for a statement that takes no parameters."""
    return ", ".join("'" + file.replace("'", "''") + "'" for file in files)


def _may_pass(error: "duckdb.Error") -> bool:
    """Whether it is about a file rather than the SQL; what Thrift says comes as the class of all errors."""
    import duckdb

    return type(error) is duckdb.Error or isinstance(error, duckdb.IOException | duckdb.InvalidInputException)


def _connect_tables(
    connection: "duckdb.DuckDBPyConnection", store: Store, sql: str, *, sweep: str | None, by_name: bool
) -> list[str]:
    """Make the tables and views that `sql` mentions known to a DuckDB connection, under their own names; returns the files it reads."""
    views = _mentioned(SQL_VIEWS, sql)
    # A statement such as SHOW TABLES mentions none of them and wants all.
    wanted = _tables_in(sql) | {table for view in views for table in SQL_VIEWS[view].tables}
    files = _connect_files(connection, store, wanted or QUERIED, sweep=sweep, by_name=by_name)
    for view in views if wanted else SQL_VIEWS:
        connection.execute(SQL_VIEWS[view].sql)
    return files


def _mentioned(names: Iterable[str], sql: str) -> list[str]:
    words = set(re.findall(r"\w+", sql.lower()))
    return [name for name in names if name in words]


def _tables_in(sql: str) -> set[str]:
    return set(_mentioned(QUERIED, sql))


def _part_keys(store: Store, tables: Iterable[str], *, sweep: str | None = None) -> dict[str, list[str]]:
    """The keys of the parts of some tables, of one sweep or of all."""
    keys: dict[str, list[str]] = {name: [] for name in tables}
    for entry in table_parts(store, sweep=sweep or ""):
        if entry.place.table in keys:
            keys[entry.place.table].append(entry.item.key)
    return keys


def _connect_files(
    connection: "duckdb.DuckDBPyConnection", store: Store, tables: Iterable[str], *, sweep: str | None, by_name: bool
) -> list[str]:
    """Make tables known, with the rows of one sweep or of all; returns the files that DuckDB reads itself.

    Parts of several forms are put together by the names of their columns, for which DuckDB opens all of them first: of a sweep of 100,000
    trials, that takes twice as long as to read what is asked for. So it is done where the store may hold other forms, or where `by_name`
    asks for it.
    """
    root, keys = store.local_root, _part_keys(store, tables, sweep=sweep)
    local = {name: [str(root / key) for key in found] for name, found in keys.items() if found} if root else {}
    by_name = by_name or not local or not have_one_form(store, sweep)
    for name, files in local.items():
        columns = _make_view(connection, name, files, by_name=by_name or name not in TABLES)
        # Otherwise DuckDB has only looked at the first part.
        if not by_name and name in TABLES and columns != TABLES[name].arrow_schema.names:
            columns = _make_view(connection, name, files, by_name=True)
        if not set(QUERIED[name].arrow_schema.names) <= set(columns):
            _make_view(connection, name, files, by_name=True, there=columns)
    for name, table in read_tables(store, {name: found for name, found in keys.items() if name not in local}).items():
        connection.register(name, table)
    return [file for files in local.values() for file in files]


def _make_view(
    connection: "duckdb.DuckDBPyConnection",
    name: str,
    files: Sequence[str],
    *,
    by_name: bool,
    there: Sequence[str] = (),
) -> list[str]:
    """A view of the parts of a table; returns its columns.

    Where the parts only have the columns `there`, the others of the table are null, as elsewhere: the rows of `comparisons` are those of an
    older kd_ray until they are made anew.
    """
    columns = ["*"]
    if there:
        empty = connection.from_arrow(QUERIED[name].arrow_schema.empty_table())
        columns = [
            f'"{it}"' if it in there else f'CAST(NULL AS {kind}) AS "{it}"'
            for it, kind in zip(empty.columns, empty.types, strict=True)
        ]
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT {', '.join(columns)} FROM read_parquet([{_listed(files)}], "
        f"hive_partitioning = false, union_by_name = {by_name})"
    )
    return connection.view(name).columns
