"""A launch that dies at any single write leaves a legal store, and the next launch finishes as if nothing had happened."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kd_ray.cluster.launch import launch
from kd_ray.results.query import Results
from kd_ray.results.record import read_record
from kd_ray.results.schema import TABLES
from kd_ray.results.status import sweep_status
from kd_ray.results.store import Store, open_store, record_key
from kd_ray.sweep.load import SweepFile
from tests.crashing import MODES, Crasher, crasher
from tests.sweeps import assert_same_tables, tiny_sweep

ONE_TRIAL = (
    "teacher=null",
    "distillation=null",
    "grid.temperature=null",
    "grid.seed=[0]",
    "dataset.test_fraction=0.9",
    "placement.checkpoint_every_epochs=1",
)
"""A scratch student of three epochs: a lease, two checkpoints, weights, a record, seven tables."""
ONE_MORE = (*ONE_TRIAL, "grid.seed=[0, 1]")
"""The same sweep with one more: what is there already is written again, or added to."""
NEVER = 10_000


@dataclass
class Scenario:
    """A launch, from what to what."""

    overrides: tuple[str, ...]
    before: Store | None
    undisturbed: Store
    writes: list[str]
    """Of an undisturbed launch, in order."""


@pytest.fixture(scope="module")
def server() -> Iterator[Crasher]:
    with crasher() as running:
        yield running


@pytest.fixture(scope="module")
def scenarios(server: Crasher, tmp_path_factory: pytest.TempPathFactory, trifeature_root: Path) -> dict[str, Scenario]:
    """Undisturbed launches, which tell what is written."""
    folder = tmp_path_factory.mktemp("undisturbed")
    first, second = open_store(folder / "first"), open_store(folder / "second")
    launch(tiny_sweep(trifeature_root, *ONE_TRIAL), open_store(folder / "data"), runner="local")
    writes_first = server.launch(first, trifeature_root, ONE_TRIAL, crash_at=NEVER, mode="after").splitlines()
    shutil.copytree(first.url, second.url)
    writes_second = server.launch(second, trifeature_root, ONE_MORE, crash_at=NEVER, mode="after").splitlines()
    assert writes_first[0] == writes_second[0] == "exit 0"
    return {
        "one trial": Scenario(ONE_TRIAL, None, first, writes_first[1:]),
        "one more": Scenario(ONE_MORE, first, second, writes_second[1:]),
    }


@pytest.mark.parametrize(
    ("name", "mode", "every"),
    [
        *(pytest.param("one trial", mode, 1, marks=pytest.mark.long) for mode in MODES),
        pytest.param("one more", "middle", 1, marks=pytest.mark.long),
        pytest.param("one more", "middle", 5, marks=pytest.mark.long),
    ],
)
def test_a_crash_at_any_write_is_only_an_interruption(
    name: str,
    mode: str,
    every: int,
    scenarios: dict[str, Scenario],
    server: Crasher,
    tmp_path: Path,
    trifeature_root: Path,
) -> None:
    """Guards: atomic puts, weights before the record, the record before its lease and checkpoints go, parts before the index."""
    scenario = scenarios[name]
    file = tiny_sweep(trifeature_root, *scenario.overrides)
    assert len(scenario.writes) >= 18
    possible = [
        (number, write)
        for number, write in enumerate(scenario.writes, start=1)
        if mode != "middle" or not write.startswith("delete")
    ]
    for number, write in possible[every // 2 :: every]:
        store = open_store(tmp_path / f"{number}")
        if scenario.before:
            shutil.copytree(scenario.before.url, store.url)
        ended = server.launch(store, trifeature_root, scenario.overrides, crash_at=number, mode=mode)
        assert ended == "killed", (number, write, ended)
        where = f"killed {mode} write {number}: {write}"
        records = check_is_legal(store, where)
        finish(file, store, where)
        assert_same_tables(store, scenario.undisturbed)
        for key, record in records.items():
            assert store.get(key) == record, f"{where}: {key} was committed and is written again"
        shutil.rmtree(store.url)


def check_is_legal(store: Store, where: str) -> dict[str, bytes]:
    """Everything that is there is whole and has its place; returns the records."""
    records = {}
    for item in store.entries(""):
        data = store.get(item.key)
        assert data is not None, where
        assert not item.key.startswith("damaged/"), where
        if item.key.endswith("/record.parquet"):
            record = read_record(store, item.key.split("/")[1])
            assert record is not None, where
            assert store.get(record.weights_key), where
            records[item.key] = data
    results = Results(store)
    if results.sweeps():
        status = sweep_status(store, "tiny")
        assert status.problems == (), where
        assert status.counts()["complete"] == len(records) - len(set(records) - asked(status.trials)), where
        assert status.counts()["running"] == status.counts()["failed"] == 0, where
        for table in TABLES:
            ids = results.table(table, sweep="tiny")
            if table == "trials":
                rows = ids["trial_id"].to_pylist()
                assert len(rows) == len(set(rows)) <= len(records), where
    return records


def asked(trials: tuple[object, ...]) -> set[str]:
    return {record_key(trial.trial_id) for trial in trials}  # type: ignore[attr-defined]


def finish(file: SweepFile, store: Store, where: str) -> None:
    report = launch(file, store, runner="local")
    assert (report.exit_code, report.problems, report.warnings) == (0, (), ()), where
    again = launch(file, store, runner="local")
    assert (again.exit_code, again.num_trained) == (0, 0), where
