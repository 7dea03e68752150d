"""What a store that is far away costs: `python -m tests.benchmarks.far [--trials N]`.

A sweep of N synthetic trials (201 unless told otherwise; packs of ten, no training) runs over S3 in one process, through a proxy that adds
latency to every request or throttles a share of them. Then come `status`, `query` and the first page of `serve`, each in a process of its
own, as a user starts it. Requests are counted by what a cloud charges for: PUT stands for PUT
and LIST, GET for GET and HEAD; DELETE is free.

How much slower a sweep gets depends on how long its packs train. So the time of a pack beside training is measured, and the speed is given
for packs that train for a minute: (60 s + that time with the near store) / (60 s + that time with this one).
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from kd_ray.cluster.launch import launch
from kd_ray.cluster.local import LocalRunner
from kd_ray.results.store import open_store, parse_key
from tests.benchmarks.scale import environment
from tests.benchmarks.serve import make_store, serving
from tests.benchmarks.synthetic import packs_of_ten, synthetic_worker
from tests.faulty_s3 import Fault, FaultyS3, at_random, faulty_s3
from tests.s3 import BUCKET, s3_server, settings_for

TRAINED_S = 60.0
"""Training time of a pack, for which the speed is given."""
USD_PER_PUT, USD_PER_GET = 5e-6, 0.4e-6
"""Assumed list prices."""


@dataclass(frozen=True, kw_only=True)
class Distance:
    """How a store answers."""

    name: str
    latency_s: float = 0.0
    throttled: float = 0.0
    """Share of the requests that are answered with 503 SlowDown."""


DISTANCES = (
    Distance(name="near"),
    Distance(name="50 ms", latency_s=0.05),
    Distance(name="200 ms", latency_s=0.2),
    Distance(name="50 ms, 5 % throttled", latency_s=0.05, throttled=0.05),
)


class FarS3(FaultyS3):
    """Takes its time for each request, and counts them by what is charged; requests do not wait for each other."""

    latency_s = 0.0

    def __init__(self, behind: str) -> None:
        super().__init__(behind)
        self.charged: Counter[str] = Counter()
        """Requests by PUT, GET and DELETE."""
        self.kinds: Counter[tuple[str, str]] = Counter()
        """Requests by what they do, and the kind of object."""

    def fate(self, method: str, path: str) -> Fault | None:
        time.sleep(self.latency_s)
        did, kind = _meaning(method, path)
        self.charged[{"LIST": "PUT", "HEAD": "GET"}.get(did, did)] += 1
        self.kinds[did, kind] += 1
        return super().fate(method, path)


def _meaning(method: str, path: str) -> tuple[str, str]:
    """What a request does, and to what kind of object or folder."""
    parts = urlsplit(path)
    query = parse_qs(parts.query, keep_blank_values=True)
    if method == "POST" and "delete" in query:
        return "DELETE", ""
    if method == "GET" and "list-type" in query:
        return "LIST", "/".join(query.get("prefix", [""])[0].split("/")[1:2])
    # After the bucket and the prefix of this distance.
    place = parse_key(unquote(parts.path).split("/", 3)[-1])
    return method, place.kind if place else ""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one command took."""

    elapsed_s: float
    cpu_s: float
    """Of the command's own process; a launch has none."""
    charged: Counter[str]
    kinds: Counter[tuple[str, str]]

    @property
    def usd(self) -> float:
        """At the assumed prices."""
        return self.charged["PUT"] * USD_PER_PUT + self.charged["GET"] * USD_PER_GET


@contextmanager
def far_store(distance: Distance, server: str) -> Iterator[FarS3]:
    """The proxy of a distance; processes that start here use it."""
    before = dict(os.environ)
    with faulty_s3(server, FarS3) as proxy:
        assert isinstance(proxy, FarS3)
        proxy.latency_s = distance.latency_s
        if distance.throttled:
            proxy.faults = at_random(0, distance.throttled, [Fault.SLOW_DOWN])
        os.environ.update(settings_for(proxy.url))
        try:
            yield proxy
        finally:
            os.environ.clear()
            os.environ.update(before)


def cost_of(proxy: FarS3, command: Callable[[], float | None]) -> Cost:
    """Run a command, and say what it took; one that returns a time has measured itself."""
    proxy.charged.clear()
    proxy.kinds.clear()
    began, spent = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    measured = command()
    elapsed_s = time.perf_counter() - began if measured is None else measured
    cpu_s = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - sum(spent[:2])
    return Cost(elapsed_s=elapsed_s, cpu_s=cpu_s, charged=proxy.charged.copy(), kinds=proxy.kinds.copy())


def measure(distance: Distance, server: str, num_trials: int, folder: Path, *, committed: bool) -> dict[str, Cost]:
    """The cost of each command, with a prefix of the bucket of its own; with `committed`, of a sweep that was made without a launch."""
    url = f"s3://{BUCKET}/{distance.name.replace(' ', '').replace(',', '').replace('%', '')}"
    file = packs_of_ten(num_trials, str(folder / "data"))
    if committed:
        with far_store(DISTANCES[0], server):
            make_store(open_store(url), num_trials, keep_back=0)

    def launched() -> None:
        report = launch(file, open_store(url), runner=LocalRunner(worker=synthetic_worker))
        assert report.exit_code == 0, report

    def first_page() -> float:
        with serving(url, folder) as (_, _, first):
            return first.first_page_s

    with far_store(distance, server) as proxy:
        launches = {name: cost_of(proxy, launched) for name in ("launch", "launch again") if not committed}
        return launches | {
            "status": cost_of(proxy, lambda: _run("status", "--store", url)),
            "status SWEEP": cost_of(proxy, lambda: _run("status", "synthetic", "--store", url)),
            "query": cost_of(proxy, lambda: _run("query", "SELECT count(*) FROM trials", "--store", url)),
            "serve": cost_of(proxy, first_page),
        }


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "kd_ray.cli", *arguments], check=True, capture_output=True)


def main() -> None:
    """Measure every distance, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--trials", type=int, default=201)
    parser.add_argument("--committed", action="store_true", help="launch nothing: trials are committed as they are")
    parser.add_argument("--only", action="append", help="name of a distance; the near store is always measured")
    parser.add_argument("--kinds", action="store_true", help="print the requests of each command by kind of object")
    options = parser.parse_args()
    num_packs = 1 + (options.trials - 1) // 10
    say(environment(), f"load {os.getloadavg()[0]:.1f}", "")
    say(
        "| store | command | s | CPU s | PUT, LIST | GET, HEAD | DELETE | per trial | USD | speed |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    )
    near_s = 0.0
    with tempfile.TemporaryDirectory(prefix="kd_ray_far_") as name, s3_server() as server:
        for distance in DISTANCES:
            if options.only and distance.name not in ("near", *options.only):
                continue
            costs = measure(distance, server, options.trials, Path(name), committed=options.committed)
            pack_s = costs["launch"].elapsed_s / num_packs if "launch" in costs else 0.0
            near_s = near_s or pack_s
            for command, cost in costs.items():
                speed = f"{(TRAINED_S + near_s) / (TRAINED_S + pack_s):.1%}" if command == "launch" else ""
                times = f"{cost.elapsed_s:.1f} | {cost.cpu_s:.1f}"
                counts = " | ".join(f"{cost.charged[name]:,}" for name in ("PUT", "GET", "DELETE"))
                each = f"{cost.charged.total() / options.trials:.2f} | {cost.usd:.4f}"
                say(f"| {distance.name} | {command} | {times} | {counts} | {each} | {speed} |")
                if options.kinds:
                    say(*(f"    {did} {kind}: {count:,}" for (did, kind), count in cost.kinds.most_common()))


def say(*lines: str) -> None:
    """Print at once: all of it takes minutes."""
    sys.stdout.write("\n".join([*lines, ""]))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
