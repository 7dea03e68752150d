"""Time and memory of `frame()` on a sweep of 10,000 trials: `python -m tests.benchmarks.frames`.

The tables are those of 252 drawn trials with two axes, 40 times over with other trial_ids.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from multiprocessing.pool import Pool

import pyarrow as pa

from kd_ray.results.aggregate import aggregate
from kd_ray.results.query import Results
from kd_ray.results.schema import TABLES
from kd_ray.results.store import Store, open_store, part_key
from kd_ray.results.table_parts import encode_part, read_part
from tests.fakes import commit_trials, make_sweep, plan_trials, write_sweep

GRID = (
    '{"seed": [0, 1, 2, 3, 4, 5, 6], "temperature": [1, 2, 4, 8], "training.optimizer.lr": [0.1, 0.2],'
    ' "training.batch_size": [4, 8, 16]}'
)


def make_tables(store: Store, *, num_parts: int) -> int:
    """Tables of so many parts; returns the number of trials."""
    file = make_sweep(overrides=["training.optimizer.lr=null", "training.batch_size=null", f"grid={GRID}"])
    trials = plan_trials(file)
    commit_trials(store, trials)
    write_sweep(store, file)
    aggregate(store, "demo")
    for table in (name for name in TABLES if name != "samples"):
        first = read_part(store, part_key(table, "demo", 0))
        place = first.column_names.index("trial_id")
        for part in range(1, num_parts):
            ids = [f"{part:04x}{trial_id[4:]}" for trial_id in first["trial_id"].to_pylist()]
            other = first.set_column(place, "trial_id", pa.array(ids))
            store.put(part_key(table, "demo", part), encode_part(other, table, "demo"))
    return int(Results(store).table("trials").num_rows)


def measure(url: str, table: str) -> tuple[int, int, float, float, float]:
    """Rows, columns, seconds, seconds of CPU and peak memory in MB of a frame, beyond what the imports take."""
    import pandas  # noqa: F401 (not part of what is measured)

    results = Results(open_store(url))
    results.sweeps()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    frame = results.frame(table, sweep="demo")
    elapsed_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    peak_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    return len(frame), frame.shape[1], elapsed_s, cpu_s, peak_mb


def main() -> None:
    """Print a line for each table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", type=int, default=40)
    num_parts = parser.parse_args().parts
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        print(f"{make_tables(store, num_parts=num_parts):,} trials")
        for table in ("trials", "class_metrics", "group_metrics", "epochs"):
            # A process of its own, because the peak of memory is that of a process.
            with Pool(1, context=multiprocessing.get_context("spawn")) as pool:
                rows, columns, elapsed_s, cpu_s, peak_mb = pool.apply(measure, (folder, table))
            print(
                f"{table}: {rows:,} rows, {columns} columns, {elapsed_s:.2f} s ({cpu_s:.2f} s CPU), {peak_mb:,.0f} MB"
            )


if __name__ == "__main__":
    main()
