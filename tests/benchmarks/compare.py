"""How long `kd-ray compare` and `kd-ray report` take: `python -m tests.benchmarks.compare [--classes 1000] [--per-class 10]`.

Drawn trials: 13 temperatures, 5 seeds with a teacher each, 5 scratch students, three colors, two textures. Making them is not timed; each
command is a process of its own as a user types it, imports included, and the median of five stands beside the fastest and the slowest.
"""

import argparse
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

import numpy as np

from kd_ray.results.store import open_store
from tests.simulated import simulate

ROUNDS = 5
COMMANDS = ("compare", "report")


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--per-class", type=int, default=10)
    arguments = parser.parse_args()
    grid = ("grid.seed=[0,1,2,3,4]", "grid.temperature=[1,2,3,4,5,6,7,8,9,10,20,30,40]", "intersections=[]")
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        simulate(
            open_store(store),
            *grid,
            rates=lambda _spec, rng: np.clip(rng.normal(0.7, 0.05, arguments.classes), 0, 1),
            num_classes=arguments.classes,
            per_class=arguments.per_class,
        )
        rounds = [{name: _seconds(name, "demo", "--store", str(store)) for name in COMMANDS} for _ in range(ROUNDS)]
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "pyarrow", "duckdb"))
    print(f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}, {versions}")
    print(
        f"75 trials, {arguments.classes:,} classes, {arguments.classes * arguments.per_class:,} test samples, n = {ROUNDS}:"
    )
    for name in COMMANDS:
        wall_s, cpu_s = ([each[name][i] for each in rounds] for i in range(2))
        print(
            f"{name}: {median(wall_s):.1f} s ({min(wall_s):.1f} to {max(wall_s):.1f}), {median(cpu_s):.1f} CPU seconds"
        )


def _seconds(*arguments: str) -> tuple[float, float]:
    """Wall and CPU seconds of a command."""
    began, cpu_before_s = time.perf_counter(), _cpu_of_children_s()
    subprocess.run([sys.executable, "-m", "kd_ray.cli", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began, _cpu_of_children_s() - cpu_before_s


def _cpu_of_children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
