"""SQL of strangers: what it may, and what is refused."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from kd_ray.errors import QueryError
from kd_ray.results.query import Results
from kd_ray.results.store import part_key
from kd_ray.serve.pages.sql_page import EXAMPLES
from kd_ray.serve.sql import Answer, answer
from kd_ray.serve.sql_process import GRACE_S, SqlProcess


def ask(results: Results, sql: str, *, max_rows: int = 100, time_limit_s: float = 10.0) -> Answer:
    return answer(results.store, sql, max_rows=max_rows, time_limit_s=time_limit_s)


def in_process(results: Results, *queries: str, time_limit_s: float = 10.0) -> list[Answer | str]:
    """What the process answers; messages of refusals as text."""

    async def run() -> list[Answer | str]:
        process = SqlProcess(results.store.url, time_limit_s=time_limit_s)
        found: list[Answer | str] = []
        try:
            await process.start()
            for sql in queries:
                try:
                    found.append(await process.answer(sql, max_rows=100))
                except QueryError as error:
                    found.append(str(error))
        finally:
            await process.stop()
        return found

    return asyncio.run(run())


@pytest.mark.slow
def test_tables_and_views_are_there(golden: Results) -> None:
    assert ask(golden, "SELECT count(*) AS n FROM trials").table.to_pylist() == [{"n": 18}]
    assert ask(golden, "SELECT count(*) AS n FROM worst_classes(1)").table.num_rows == 1
    assert "trials" in ask(golden, "SHOW TABLES").table["name"].to_pylist()
    assert ask(golden, "DESCRIBE trials").table.num_rows > 40


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_blob('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_text('{root}/sweeps/demo/sweep.yaml')",
        "SELECT * FROM read_text('{root}/tables/../sweeps/demo/sweep.yaml')",
        "SELECT * FROM read_parquet('{root}/tables/../datasets/ff02aa7ebc9672a8/samples.parquet')",
        "SELECT * FROM read_parquet('s3://bucket/x.parquet')",
        "SELECT * FROM read_parquet('https://example.com/x.parquet')",
        "SELECT (SELECT content FROM read_text('/etc/passwd')) FROM trials",
        "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
        "SELECT getenv('HOME')",
    ],
)
def test_other_files_are_closed(golden: Results, sql: str) -> None:
    with pytest.raises(QueryError) as caught:
        ask(golden, sql.format(root=golden.store.local_root))
    assert "root:" not in str(caught.value)


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("COPY trials TO '/tmp/kd_ray_stolen.csv'", "COPY"),
        ("COPY trials TO '{root}/tables/stolen.parquet'", "COPY"),
        ("COPY (SELECT 1) TO '{part}' (FORMAT csv, USE_TMP_FILE false)", "COPY"),
        ("COPY (PIVOT trials ON role USING count(*)) TO '{part}' (FORMAT csv, USE_TMP_FILE false)", "MULTI"),
        ("EXPLAIN ANALYZE COPY trials TO '{part}' (FORMAT csv, USE_TMP_FILE false)", "EXPLAIN"),
        ("INSTALL httpfs", "LOAD"),
        ("LOAD httpfs", "LOAD"),
        ("ATTACH '/tmp/kd_ray_other.db'", "ATTACH"),
        ("ATTACH ':memory:' AS other", "ATTACH"),
        ("SET enable_external_access = true", "SET"),
        ("PRAGMA threads = 64", "SET"),
        ("CREATE TABLE x AS SELECT 1", "CREATE"),
        ("DROP VIEW trials", "DROP"),
        ("EXPORT DATABASE '/tmp/kd_ray_stolen'", "EXPORT"),
        ("CHECKPOINT", "CALL"),
        ("SELECT 1; COPY trials TO '{root}/tables/stolen.parquet'", "COPY"),
    ],
)
def test_all_but_reading_is_refused(golden: Results, sql: str, kind: str) -> None:
    root = golden.store.local_root
    assert root is not None
    part = root / part_key("trials", "demo", 0)
    before = part.read_bytes()
    with pytest.raises(QueryError, match=rf"SQL: {kind} is not allowed: only statements that read are"):
        ask(golden, sql.format(root=root, part=part))
    assert part.read_bytes() == before
    assert not (root / "tables" / "stolen.parquet").exists()
    assert not Path("/tmp/kd_ray_stolen.csv").exists()


@pytest.mark.slow
def test_settings_are_locked_and_python_is_closed(golden: Results) -> None:
    secret = golden.table("trials")
    assert secret.num_rows == 18
    with pytest.raises(QueryError, match="secret does not exist"):
        ask(golden, "SELECT * FROM secret")
    settings = (
        "SELECT name, value FROM duckdb_settings() WHERE name IN ('enable_external_access', 'lock_configuration')"
    )
    found = {row["name"]: row["value"] for row in ask(golden, settings).table.to_pylist()}
    assert found == {"enable_external_access": "false", "lock_configuration": "true"}


def test_examples_of_the_page_have_an_answer(golden: Results) -> None:
    num_rows = {name: ask(golden, sql).table.num_rows for name, sql in EXAMPLES}
    assert [name for name, count in num_rows.items() if not count] == ["What holds"]


@pytest.mark.slow
def test_a_hundred_million_rows_are_cut(golden: Results) -> None:
    found = ask(golden, "SELECT * FROM range(100000000)")
    assert found.is_cut
    assert found.table.num_rows == 100
    assert not ask(golden, "SELECT * FROM range(100)").is_cut


@pytest.mark.slow
def test_large_cells_are_refused(golden: Results) -> None:
    with pytest.raises(QueryError, match="the answer has 100 MB; at most 64 MB"):
        ask(golden, "SELECT repeat('a', 100000000) AS a", time_limit_s=300)


@pytest.mark.slow
def test_memory_is_limited(golden: Results) -> None:
    with pytest.raises(QueryError, match=r"(?i)out of memory"):
        ask(golden, "SELECT len(array_agg(range)) FROM range(400000000)", time_limit_s=300)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
        "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(1000000) c",
    ],
)
def test_a_query_that_never_ends_is_interrupted(golden: Results, sql: str) -> None:
    with pytest.raises(QueryError, match=r"not finished after 0\.3 s, so it was stopped"):
        ask(golden, sql, time_limit_s=0.3)


@pytest.mark.long
def test_a_query_that_does_not_obey_is_killed_and_the_next_is_answered(golden: Results) -> None:
    # One call over a long list: DuckDB would see the interrupt after minutes.
    began = time.monotonic()
    slow, next_ = in_process(
        golden, "SELECT list_sum(range(200000000))", "SELECT count(*) AS n FROM trials", time_limit_s=1.0
    )
    assert isinstance(slow, str)
    assert "stopped" in slow or "memory" in slow
    assert isinstance(next_, Answer)
    assert next_.table.to_pylist() == [{"n": 18}]
    # Start of two processes included.
    assert time.monotonic() - began < 60 + GRACE_S


@pytest.mark.slow
def test_process_answers_and_refuses(golden: Results) -> None:
    first, cut, refused, last = in_process(
        golden,
        "SELECT role, count(*) AS n FROM trials GROUP BY 1 ORDER BY 1",
        "SELECT * FROM range(1000)",
        "COPY trials TO 'x'",
        "SELECT '東京\n' AS a",
    )
    assert isinstance(first, Answer)
    assert first.table.to_pydict() == {"role": ["distilled", "scratch", "teacher"], "n": [12, 3, 3]}
    assert isinstance(cut, Answer)
    assert (cut.table.num_rows, cut.is_cut) == (100, True)
    assert isinstance(refused, str)
    assert "COPY is not allowed" in refused
    assert isinstance(last, Answer)
    assert last.table.to_pylist() == [{"a": "東京\n"}]


@pytest.mark.long
def test_process_that_dies_is_replaced(golden: Results) -> None:
    async def run() -> list[dict[str, int]]:
        process = SqlProcess(golden.store.url)
        try:
            await process.start()
            assert process._process is not None
            os.kill(process._process.pid, 9)
            await process._process.wait()
            found = await process.answer("SELECT count(*) AS n FROM trials", max_rows=1)
            rows: list[dict[str, int]] = found.table.to_pylist()
            return rows
        finally:
            await process.stop()

    assert asyncio.run(run()) == [{"n": 18}]
