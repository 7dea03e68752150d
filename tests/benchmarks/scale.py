"""What the machinery costs beside training, at 1,000, 10,000 and 50,000 trials: `python -m tests.benchmarks.scale [N …]`.

Trials are synthetic: they take no time and have 1,000 test samples in 100 classes, three colors, two textures and ten epochs each.
Everything else is real. Each size runs in a fresh store and a fresh driver process: plan, schedule through Ray (packs of ten), leases,
weights, records, tables. Then, each in a process of its own as a user types it: the same launch again, `status`, and a group-by over all
class rows.

`ms per trial` is the wall time without starting and stopping Ray, which stands beside it; `relaunch` and `status` include starting Python.

`--finished` leaves Ray, packs and leases out: the store is filled directly, with 12 test samples for each trial, and the same launch and
`status` are measured in CPU seconds, which say something on a busy machine, too.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Self

SIZES = (1_000, 10_000, 50_000)
ROUNDS = 5
GROUP_BY = "SELECT role, temperature, class_index, avg(accuracy) AS accuracy FROM class_metrics GROUP BY ALL"


def measure(num_trials: int, folder: Path) -> dict[str, float]:
    """All figures for one size."""
    from tests.benchmarks.synthetic import packs_of_ten

    store = folder / f"store-{num_trials}"
    data_root = folder / "data"
    sweep = folder / f"synthetic-{num_trials}.yaml"
    sweep.write_text(packs_of_ten(num_trials, str(data_root)).to_yaml())
    driver = _python("-m", "tests.benchmarks.scale", "--driver", str(sweep), str(store))
    found: dict[str, Any] = json.loads(driver.splitlines()[-1])
    found["relaunch_s"] = _seconds("-m", "kd_ray.cli", "launch", str(sweep), "--store", str(store))
    found["status_s"] = _seconds("-m", "kd_ray.cli", "status", "synthetic", "--store", str(store))
    found |= json.loads(_python("-m", "tests.benchmarks.scale", "--query", str(store)).splitlines()[-1])
    return found


def measure_finished(num_trials: int, folder: Path) -> dict[str, float]:
    """CPU seconds and memory of a launch with nothing to do, and of `status`."""
    from kd_ray.cluster.launch_checks import with_absolute_paths
    from kd_ray.results.store import open_store
    from tests.benchmarks.synthetic import finish, packs_of_ten

    store, sweep = folder / f"finished-{num_trials}", folder / f"finished-{num_trials}.yaml"
    file = with_absolute_paths(packs_of_ten(num_trials, str(folder / "data")))
    sweep.write_text(file.to_yaml())
    found: dict[str, float] = {"trials": finish(file, open_store(store))}
    limit = ("--max-cells", "1000000")
    for name, verb in (
        ("status", ("status", "synthetic")),
        ("relaunch", ("launch", str(sweep), *limit)),
    ):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        _python("-m", "kd_ray.cli", *verb, "--store", str(store))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found[f"{name}_cpu_s"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        # Of the largest child so far, so that the smaller one comes first.
        found[f"{name}_mb"] = after.ru_maxrss / 1000
    return found


def drive(sweep: str, store: str) -> dict[str, float]:
    """Launch in this process, and say what it took."""
    from kd_ray.cluster.launch import launch
    from kd_ray.cluster.ray_tune.ray_runner import RayRunner
    from kd_ray.results.store import open_store
    from kd_ray.sweep.load import load_sweep
    from tests.benchmarks.synthetic import synthetic_worker

    class TimedRunner(RayRunner):
        """Notes how long Ray takes to start and to stop."""

        def __enter__(self) -> Self:
            began = time.perf_counter()
            super().__enter__()
            ray_s.append(time.perf_counter() - began)
            return self

        def __exit__(self, *error: Any) -> None:
            began = time.perf_counter()
            super().__exit__(*error)
            ray_s.append(time.perf_counter() - began)

    ray_s: list[float] = []
    file = load_sweep(Path(sweep))
    started = time.perf_counter()
    runner = TimedRunner(placement=file.sweep.placement, worker=synthetic_worker)
    report = launch(file, open_store(store), runner=runner)
    elapsed_s = time.perf_counter() - started
    assert report.exit_code == 0, report
    assert not report.warnings, report.warnings
    num_trials = len(report.trials)
    return {
        "trials": num_trials,
        "elapsed_s": elapsed_s,
        "ray_s": sum(ray_s),
        "ms_per_trial": 1000 * (elapsed_s - sum(ray_s)) / num_trials,
        "driver_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        "imports_torch": float("torch" in sys.modules),
    }


def query(store: str) -> dict[str, float]:
    """Median time of the group-by, and how many rows it went over."""
    from kd_ray.results.query import Results
    from kd_ray.results.store import open_store

    results = Results(open_store(store))
    rows = results.query("SELECT count(*) AS n FROM class_metrics")["n"].to_pylist()[0]
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        results.query(GROUP_BY)
        times.append(time.perf_counter() - started)
    return {"class_rows": rows, "group_by_s": median(times)}


def _seconds(*arguments: str) -> float:
    started = time.perf_counter()
    _python(*arguments)
    return time.perf_counter() - started


def _python(*arguments: str) -> str:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def environment() -> str:
    """Hardware and versions."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("ray", "pyarrow", "duckdb", "obstore", "numpy"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} CPUs, {memory:.0f} GiB, Python {platform.python_version()}, {packages}"


def table(rows: list[dict[str, float]]) -> str:
    """The scale table as Markdown."""
    lines = [
        "| trials | wall s | Ray up, down s | ms per trial | driver MB | relaunch s | status s | class rows | group-by s |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['trials']:,} | {row['elapsed_s']:.0f} | {row['ray_s']:.1f} | {row['ms_per_trial']:.1f} "
        f"| {row['driver_mb']:.0f} | {row['relaunch_s']:.1f} "
        f"| {row['status_s']:.1f} | {row['class_rows']:,} | {row['group_by_s']:.3f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure every size, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("sizes", nargs="*", type=int, default=list(SIZES))
    parser.add_argument("--finished", action="store_true", help="measure the launch of a finished sweep and `status`")
    parser.add_argument("--driver", nargs=2, metavar=("SWEEP", "STORE"), help=argparse.SUPPRESS)
    parser.add_argument("--query", metavar="STORE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.driver:
        sys.stdout.write(json.dumps(drive(*options.driver)) + "\n")
    elif options.query:
        sys.stdout.write(json.dumps(query(options.query)) + "\n")
    elif options.finished:
        with tempfile.TemporaryDirectory(prefix="kd_ray_scale_") as folder:
            for size in options.sizes:
                sys.stdout.write(json.dumps(measure_finished(size, Path(folder))) + "\n")
        sys.stdout.write(f"{environment()}; n = 1 run per size\n")
    else:
        with tempfile.TemporaryDirectory(prefix="kd_ray_scale_") as folder:
            rows = []
            for size in options.sizes:
                rows.append(measure(size, Path(folder)))
                sys.stderr.write(f"{rows[-1]}\n")
        sys.stdout.write(f"{environment()}; n = 1 run per size, group-by: median of {ROUNDS}\n\n{table(rows)}\n")


if __name__ == "__main__":
    main()
