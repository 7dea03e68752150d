"""Every table opens with the defaults of the programs that people read Parquet with, whatever the sweeps are called."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from kd_ray.errors import StoreError
from kd_ray.results.aggregate import aggregate, aggregate_alone
from kd_ray.results.query import Results
from kd_ray.results.record import decode_table, encode_table
from kd_ray.results.schema import TABLES
from kd_ray.results.store import Store, open_store, part_key, table_columns_key, table_folder
from tests.fakes import commit_trials, make_sweep, plan_trials, write_sweep

NAMES = (
    "demo",
    "2024",
    "2024-01-31",
    "007",
    "1e5",
    "true",
    "null",
    "nan",
    "v1.2.parquet",
    "test-run",
    "my_train",
    "dev",
)


FACTORY = (
    'dataset={"name": "factory", "function": "a:b", "version": "0123456789abcdef", "samples": "images", "size": 32,'
    ' "classes": ["circle", "square", "star"], "features": ["color", "texture"]}'
)
AXES: tuple[tuple[str, ...], ...] = (
    (),
    ('grid={"seed": [0], "temperature": [4], "training.optimizer.nesterov": [false, true]}',),
    ("training.optimizer.lr=null", 'grid={"seed": [0], "temperature": [4], "training.optimizer.lr": [1, 2]}'),
    ("training.optimizer.lr=null", 'grid={"seed": [0], "temperature": [4], "training.optimizer.lr": [0.5, 0.25]}'),
    ("dataset=null", FACTORY, 'grid={"seed": [0], "temperature": [4], "dataset.parameters.width": [3, 5]}'),
    ("dataset=null", FACTORY, 'grid={"seed": [0], "temperature": [4], "dataset.parameters.width": ["a", "b"]}'),
)
"""Each sweep has one of these: no axis, a truth value, whole numbers, other numbers of the same axis, and an axis of free type."""
VALUES: tuple[dict[str, set[Any]], ...] = (
    {},
    {"training.optimizer.nesterov": {False, True}},
    {"training.optimizer.lr": {1.0, 2.0}},
    {"training.optimizer.lr": {0.5, 0.25}},
    {"dataset.parameters": {'{"width": 3}', '{"width": 5}'}},
    {"dataset.parameters": {'{"width": "a"}', '{"width": "b"}'}},
)


def with_pandas(folder: Path, cache: Path) -> pd.DataFrame:
    return pd.read_parquet(folder)


def with_pyarrow_table(folder: Path, cache: Path) -> pd.DataFrame:
    return pq.read_table(folder).to_pandas()


def with_pyarrow_dataset(folder: Path, cache: Path) -> pd.DataFrame:
    return ds.dataset(folder).to_table().to_pandas()


def with_polars(folder: Path, cache: Path) -> Any:
    return pl.scan_parquet(folder).collect().to_arrow().to_pandas()


def with_duckdb(folder: Path, cache: Path) -> Any:
    return duckdb.read_parquet(f"{folder}/**/*.parquet").df()


def with_datasets(folder: Path, cache: Path) -> Any:
    import datasets

    datasets.disable_progress_bars()
    splits = datasets.load_dataset(str(folder), cache_dir=str(cache))
    assert list(splits) == ["train"], "no name of a sweep is taken for a split"
    return splits["train"].to_pandas()


CLIENTS = (with_pandas, with_pyarrow_table, with_pyarrow_dataset, with_polars, with_duckdb, with_datasets)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A sweep of each name, with different axes."""
    store = open_store(tmp_path_factory.mktemp("clients"))
    for i, name in enumerate(NAMES):
        file = make_sweep(overrides=[f'name="{name}"', *AXES[i % len(AXES)]])
        commit_trials(store, plan_trials(file))
        write_sweep(store, file)
        aggregate(store, name)
    return Results(store)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_every_table_opens(
    client: Callable[[Path, Path], pd.DataFrame], table: str, results: Results, tmp_path: Path
) -> None:
    root = results.store.local_root
    assert root is not None
    found = client(root / table_folder(table), tmp_path)
    expected = results.table(table).to_pandas()
    assert sorted(set(found["sweep"])) == sorted(NAMES)
    assert list(found.columns) == list(expected.columns)
    for column in ("sweep", "trial_id" if "trial_id" in found else "sample_index"):
        assert sorted(found[column]) == sorted(expected[column])
    plain = found.drop(columns=[name for name in found if table == "predictions" and name.endswith("s")])
    assert len(plain.drop_duplicates()) == len(found)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_each_axis_is_a_column_of_its_own_type(
    client: Callable[[Path, Path], pd.DataFrame], results: Results, tmp_path: Path
) -> None:
    """Sweeps whose axes differ, or have other types under one name, are files with the same columns."""
    root = results.store.local_root
    assert root is not None
    found = client(root / table_folder("trials"), tmp_path)
    for i, name in enumerate(NAMES):
        mine = found[(found["sweep"] == name) & (found["role"] == "distilled")]
        for column in ("training.optimizer.nesterov", "training.optimizer.lr", "dataset.parameters"):
            assert set(mine[column].dropna()) == VALUES[i % len(VALUES)].get(column, set())
        assert (mine["settings"] != "{}").all() == bool(VALUES[i % len(VALUES)])
    assert found["training.optimizer.lr"].dtype == "float64"
    assert found["dataset.long_tail.seed"].isna().all()


def test_names_that_no_folder_can_have_are_refused() -> None:
    for name in ("größe", "a/b", "a=b", "_hidden", "Upper"):
        with pytest.raises(Exception, match="name"):
            make_sweep(overrides=[f'name="{name}"'])


def former(table: str, sweep: str) -> str:
    return part_key(table, sweep, 0).replace(f"/{sweep}/", f"/sweep={sweep}/")


@pytest.fixture
def older(store: Store) -> Store:
    """Two sweeps, and a third one that no manifest names, with tables where kd_ray 0.1 put them."""
    for name in ("demo", "other"):
        file = make_sweep(overrides=[f"name={name}"])
        commit_trials(store, plan_trials(file))
        write_sweep(store, file)
        aggregate(store, name)
        for table in TABLES:
            store.put(former(table, name), store.get(part_key(table, name, 0)) or b"")
            store.delete(part_key(table, name, 0))
    store.put(former("trials", "gone"), b"rows")
    return store


def parts(store: Store) -> list[str]:
    return sorted(item.key for item in store.entries("tables"))


MIGRATED = sorted(part_key(table, name, 0) for table in TABLES for name in ("demo", "other"))


def test_a_query_replaces_the_tables_of_an_older_store(older: Store) -> None:
    assert Results(older).query("SELECT count(*) AS n FROM trials").to_pylist() == [{"n": 16}]
    assert parts(older) == MIGRATED


def test_an_aggregation_of_one_sweep_replaces_those_of_all(older: Store) -> None:
    aggregate(older, "demo")
    assert parts(older) == MIGRATED


def test_an_interrupted_replacement_is_repeated(older: Store) -> None:
    kept = older.get(former("epochs", "other"))
    assert kept is not None
    aggregate(older, "other")
    older.put(former("epochs", "other"), kept)
    assert (
        Results(older).table("epochs", sweep="other").num_rows == Results(older).table("epochs", sweep="demo").num_rows
    )
    assert parts(older) == MIGRATED


class ReadOnly(Store):
    """A store in which nothing can be written or deleted."""

    def put(self, key: str, data: bytes, *, durable: bool = False) -> str:
        raise StoreError(f"store {self.url}: cannot write {key!r}: Permission denied")

    def delete(self, key: str) -> None:
        raise StoreError(f"store {self.url}: cannot delete {key!r}: Permission denied")


def test_who_may_only_read_an_older_store_learns_who_can_replace_its_tables(older: Store) -> None:
    before = parts(older)
    with pytest.raises(StoreError, match=r"form of kd_ray 0\.1 .*Permission denied; let a user who may write"):
        Results(ReadOnly(older.url)).query("SELECT * FROM trials")
    assert parts(older) == before


def strip(store: Store) -> list[str]:
    """Tables as they were before axes had columns; returns the keys of the parts."""
    keys = [part_key("trials", name, 0) for name in ("demo", "other")]
    for key in keys:
        table = decode_table(store.get(key) or b"")
        axes = [column.name for column in TABLES["trials"].columns if column.is_axis]
        # Another fingerprint, too, because it stands for the columns.
        store.put(key, encode_table(table.drop_columns(axes).replace_schema_metadata({})))
    store.delete(table_columns_key())
    return keys


@pytest.fixture
def narrow(store: Store) -> Store:
    for name in ("demo", "other"):
        file = make_sweep(overrides=[f"name={name}"])
        commit_trials(store, plan_trials(file))
        write_sweep(store, file)
        aggregate(store, name)
    strip(store)
    return store


@pytest.mark.parametrize("how", ["query", "aggregate"])
def test_tables_that_lack_columns_are_made_again(narrow: Store, how: str) -> None:
    if how == "query":
        Results(narrow).query("SELECT 1")
    else:
        aggregate(narrow, "demo")
    for name in ("demo", "other"):
        table = decode_table(narrow.get(part_key("trials", name, 0)) or b"")
        assert table.schema.names == TABLES["trials"].arrow_schema.names
    before = {item.key: item.e_tag for item in narrow.entries("tables")}
    aggregate(narrow, "other")
    assert {item.key: item.e_tag for item in narrow.entries("tables")} == before


def test_who_may_only_read_such_a_store_reads_what_there_is(narrow: Store, caplog: pytest.LogCaptureFixture) -> None:
    """The tables differ in their columns as they do in the middle of an upgrade."""
    aggregate_alone(narrow, "demo")
    results = Results(ReadOnly(narrow.url))
    assert results.table("trials").num_rows == 16
    sql = 'SELECT count(*) AS n, count("training.optimizer.lr") AS lr FROM trials'
    assert results.query(sql).to_pylist() == [{"n": 16, "lr": 0}]
    assert "keep the columns of an older kd_ray" in caplog.text
