"""How long `kd-ray compare` takes: `python -m tests.benchmarks.compare [--classes 1000] [--per-class 10]`.

Drawn trials: 13 temperatures, 5 seeds with a teacher each, 5 scratch students, three colors and two textures. Making them is not timed; the
comparison is a process of its own as a user types it, imports included, and the median of five stands beside the fastest and the slowest.
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
        took_s, cpu_before_s = [], _cpu_of_children_s()
        for _ in range(ROUNDS):
            began = time.perf_counter()
            command = [sys.executable, "-m", "kd_ray.cli", "compare", "demo", "--store", str(store)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ)
            took_s.append(time.perf_counter() - began)
        cpu_s = (_cpu_of_children_s() - cpu_before_s) / ROUNDS
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "pyarrow", "duckdb"))
    print(f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}, {versions}")
    print(
        f"75 trials, {arguments.classes:,} classes, {arguments.classes * arguments.per_class:,} test samples: "
        f"{median(took_s):.1f} s ({min(took_s):.1f} to {max(took_s):.1f}, n = {ROUNDS}), {cpu_s:.1f} CPU seconds"
    )


def _cpu_of_children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
