"""What a person asks the store: tables as Arrow, and SQL over all of them by name.

DuckDB reads local parts straight from their files. Parts of an object store are fetched through the store's own client first, so a query
needs no extension, no second set of credentials, and only the tables it names.
"""

import re
from typing import TYPE_CHECKING

import pyarrow as pa

from kd_ray.errors import QueryError
from kd_ray.results.manifest import sweep_names
from kd_ray.results.schema import QUERIED, VIEWS
from kd_ray.results.store import Store
from kd_ray.results.tables import part_keys, read_table

if TYPE_CHECKING:
    import duckdb

_PAIR = """
WITH p AS (
    SELECT a.sweep, a.dataset_id, unnest(a.predictions) AS of_a, unnest(b.predictions) AS of_b,
           unnest(range(len(a.predictions))) AS sample_index
    FROM (SELECT * FROM predictions WHERE trial_id = a LIMIT 1) a, (SELECT * FROM predictions WHERE trial_id = b LIMIT 1) b
    WHERE a.dataset_id = b.dataset_id)
"""

_SQL_VIEWS = {
    "teacher_disagreement": """
CREATE VIEW teacher_disagreement AS
WITH pairs AS (
    SELECT sweep, trial_id, teacher_trial_id FROM trials WHERE role = 'distilled'
    UNION
    SELECT s.sweep, s.trial_id, d.teacher_trial_id
    FROM trials s JOIN trials d ON s.role = 'scratch' AND d.role = 'distilled'
        AND (s.sweep, s.seed, s.model, s.dataset_id) = (d.sweep, d.seed, d.model, d.dataset_id)
        AND list_has_all(map_entries(d.settings), map_entries(s.settings))),
long AS (
    SELECT q.*, s.dataset_id, unnest(s.predictions) AS student, unnest(t.predictions) AS teaching,
           unnest(range(len(s.predictions))) AS sample_index
    FROM pairs q
    JOIN predictions s ON (s.sweep, s.trial_id) = (q.sweep, q.trial_id)
    JOIN predictions t ON (t.sweep, t.trial_id) = (q.sweep, q.teacher_trial_id)),
counts AS (
    SELECT l.sweep, l.trial_id, l.teacher_trial_id, coalesce(x.label_name, 'all') AS class_name, count(*) AS n,
           count(*) FILTER (l.student <> l.teaching) AS num_disagree
    FROM long l JOIN samples x ON (x.sweep, x.dataset_id, x.sample_index) = (l.sweep, l.dataset_id, l.sample_index)
    GROUP BY GROUPING SETS ((1, 2, 3, x.label_name), (1, 2, 3)))
SELECT t.sweep, t.trial_id, t.role, t.model, t.objective, t.temperature, t.alpha, t.t_squared, t.seed, c.teacher_trial_id,
       c.class_name, c.n, c.num_disagree, c.num_disagree / c.n AS disagreement
FROM counts c JOIN trials t USING (sweep, trial_id)
""",
    "disagreement": f"""
CREATE MACRO disagreement(a, b) AS TABLE
{_PAIR}
SELECT coalesce(x.label_name, 'all') AS class_name, count(*) AS n, count(*) FILTER (of_a <> of_b) AS num_disagree,
       count(*) FILTER (of_a <> of_b) / nullif(count(*), 0) AS disagreement
FROM p JOIN samples x ON (x.sweep, x.dataset_id, x.sample_index) = (p.sweep, p.dataset_id, p.sample_index)
GROUP BY GROUPING SETS ((x.label_name), ()) ORDER BY class_name
""",
    "disagreement_matrix": f"""
CREATE MACRO disagreement_matrix(a, b) AS TABLE
{_PAIR},
names AS (SELECT DISTINCT class_index, class_name FROM class_metrics WHERE trial_id = a)
SELECT na.class_name AS predicted_by_a, nb.class_name AS predicted_by_b, count(*) AS n
FROM p JOIN names na ON na.class_index = of_a JOIN names nb ON nb.class_index = of_b
WHERE of_a <> of_b GROUP BY ALL ORDER BY ALL
""",
}
_NEEDS = {
    "teacher_disagreement": ("trials", "predictions", "samples"),
    "disagreement": ("predictions", "samples"),
    "disagreement_matrix": ("predictions", "class_metrics"),
}


class Results:
    """The results in a store, for notebooks: `kd_ray.open_store(url).table("trials").to_pandas()`."""

    def __init__(self, store: Store) -> None:
        """Use `kd_ray.open_store(url)`."""
        self.store = store

    def sweeps(self) -> list[str]:
        """Names of the sweeps in the store."""
        return sweep_names(self.store)

    def table(self, name: str, *, sweep: str | None = None) -> pa.Table:
        """All rows of a table, or those of one sweep, in the order of the sweep's trials.

        Raises:
            QueryError: there is no such table or sweep; the message names those there are.
        """
        if name not in QUERIED:
            raise QueryError(f"no table {name!r}; valid: {', '.join(QUERIED)}")
        if sweep is not None and sweep not in self.sweeps():
            raise QueryError(
                f"store {self.store.url}: no sweep {sweep!r}; it has: {', '.join(self.sweeps()) or 'none'}"
            )
        return read_table(self.store, name, None if sweep is None else [sweep])

    def query(self, sql: str) -> pa.Table:
        """The answer of DuckDB to `sql`, which sees every table and view by its name.

        Raises:
            QueryError: DuckDB refuses the query; its message says why.
        """
        import duckdb

        with duckdb.connect() as connection:
            try:
                connect_tables(connection, self.store, sql)
                relation = connection.sql(sql)
                return pa.table({"ok": [True]}) if relation is None else relation.to_arrow_table()
            except duckdb.Error as error:
                names = ", ".join([*QUERIED, *VIEWS])
                raise QueryError(f"SQL: {error}\ntables and views: {names}") from error


def connect_tables(connection: "duckdb.DuckDBPyConnection", store: Store, sql: str) -> None:
    """Make the tables and views that `sql` mentions known to a DuckDB connection, under their own names."""
    words = set(re.findall(r"\w+", sql.lower()))
    views = [name for name in _SQL_VIEWS if name in words]
    # A statement such as SHOW TABLES mentions none of them and wants all.
    wanted = {name for name in QUERIED if name in words} | {table for view in views for table in _NEEDS[view]}
    for name in wanted or QUERIED:
        _connect_table(connection, store, name)
    for view in views if wanted else _SQL_VIEWS:
        connection.execute(_SQL_VIEWS[view])


def _connect_table(connection: "duckdb.DuckDBPyConnection", store: Store, name: str) -> None:
    keys = list(part_keys(store, name))
    root = store.local_root
    if root is None or not keys:
        connection.register(name, read_table(store, name))
        return
    files = ", ".join("'" + str(root / key).replace("'", "''") + "'" for key in keys)
    connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet([{files}], hive_partitioning = false)")
