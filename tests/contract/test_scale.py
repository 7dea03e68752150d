"""What must hold at any size: no listing per trial, tables that are whole while the sweep runs, and a driver without torch."""

import os
import threading
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from kd_ray.cluster.launch import launch
from kd_ray.cluster.local import LocalRunner
from kd_ray.cluster.ray_tune.ray_runner import RayRunner
from kd_ray.cluster.runner import LaunchContext
from kd_ray.distill.worker_protocol import PackWorker
from kd_ray.results.inventory import committed
from kd_ray.results.query import Results
from kd_ray.results.store import Store
from kd_ray.sweep.placement import cpu_count
from tests.benchmarks.synthetic import synthetic_sweep, synthetic_worker
from tests.fakes import WatchedStore


def test_no_listing_is_done_once_per_trial(tmp_path: Path, trifeature_root: Path) -> None:
    """Guards: leases are created without a look, the first holder looks for no checkpoints, an aggregation needs one listing."""
    listings, writes = [], []
    for n in (11, 101):
        store = WatchedStore(str(tmp_path / str(n)))
        report = launch(synthetic_sweep(n, str(trifeature_root)), store, runner=LocalRunner(worker=synthetic_worker))
        assert (report.exit_code, report.num_trained) == (0, n)
        listings.append(len(store.listed))
        writes.append(len([key for key in store.changed if key.startswith("trials/")]))
    assert listings[0] == listings[1] < 30
    # Each further trial: a lease and its end, weights, a record.
    assert writes[1] - writes[0] == 4 * 90


@pytest.mark.long
@pytest.mark.ray
def test_a_query_in_the_middle_sees_each_committed_trial_once(store: Store, trifeature_root: Path) -> None:
    """Guards: parts are replaced atomically, and a trial's rows have one part for ever; the records are aggregated while the sweep runs."""
    file = synthetic_sweep(401, str(trifeature_root))
    seen: list[int] = []
    problems: list[object] = []
    over = threading.Event()

    def ask() -> None:
        results = Results(store)
        while not over.wait(0.1):
            if not store.exists("sweeps/synthetic/folded.json"):
                continue
            done = len(committed(store))
            sql = "SELECT count(*) AS n, count(DISTINCT trial_id) AS d FROM trials"
            (row,) = results.query(sql).to_pylist()
            classes = results.query(
                "SELECT count(*) AS n, count(DISTINCT (trial_id, class_index)) AS d FROM class_metrics"
            )
            (cells,) = classes.to_pylist()
            if row["n"] != row["d"] or cells["n"] != cells["d"] or cells["n"] % 100 or (seen and row["n"] < seen[-1]):
                problems.append((row, cells, done, seen[-1:]))
            seen.append(row["n"])

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        runner = RayRunner(placement=file.sweep.placement, worker=synthetic_worker)
        report = launch(file, store, runner=runner, aggregate_every_s=0.1)
    finally:
        over.set()
        thread.join()
    assert (report.exit_code, report.counts()["complete"]) == (0, 401)
    assert problems == []
    assert any(0 < n < 401 for n in seen), "no query saw the sweep in the middle"


def noted_worker(context: LaunchContext) -> PackWorker:
    """A synthetic worker that leaves its process id in the store."""
    context.store.put(f"workers/{os.getpid()}", b"")
    return synthetic_worker(context)


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.alone
def test_every_slot_works_and_keeps_its_worker(store: Store, trifeature_root: Path) -> None:
    """Guards: `FreeSlots` and `InOrderScheduler`. Without either, packs that take less time than an actor's start let no second actor come
    up: each new one was ended for an older one that had become free (seen: one worker at work, a second of it lost for every 20 packs)."""
    file = synthetic_sweep(401, str(trifeature_root))
    report = launch(file, store, runner=RayRunner(placement=file.sweep.placement, worker=noted_worker))
    assert (report.exit_code, report.num_trained) == (0, 401)
    slots = cpu_count() // file.sweep.placement.cpus_per_pack
    workers = list(store.entries("workers"))
    assert len(workers) == slots
    # The first works from the beginning, the others as soon as there is more to do than the teacher.
    assert slots == 1 or max(item.modified_at for item in workers) < _middle(store)


def _middle(store: Store) -> datetime:
    """When half of the records had been written."""
    times = sorted(item.modified_at for item in store.entries("trials") if item.key.endswith("record.parquet"))
    return times[len(times) // 2]


@dataclass(frozen=True, kw_only=True)
class CountingRunner(RayRunner):
    """Keeps the limit of each experiment."""

    limits: list[int] = field(default_factory=list)

    def run_experiment(self, *rest: Any) -> bool:
        self.limits.append(rest[-1])
        return super().run_experiment(*rest)


@pytest.mark.long
@pytest.mark.ray
def test_a_large_sweep_is_several_experiments_of_tune(store: Store, trifeature_root: Path) -> None:
    """Guard: Tune keeps every pack in memory to the end of an experiment; the driver of a large sweep would grow and grow."""
    file = synthetic_sweep(81, str(trifeature_root))
    runner = CountingRunner(
        placement=file.sweep.placement,
        worker=synthetic_worker,
        min_packs_per_experiment=4,
        min_rounds_per_experiment=1,
    )
    report = launch(file, store, runner=runner)
    assert (report.exit_code, report.num_trained) == (0, 81)
    # A teacher, eight packs of students and eight scratch students of seeds of their own.
    assert runner.limits == [4] * 5
