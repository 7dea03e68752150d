"""How fast `kd-ray serve` answers: `python -m tests.benchmarks.serve [--trials N] [--store FOLDER]`.

The store has N synthetic trials (10,000 unless told otherwise) with 100 classes, three colors and two textures each: 1 M class rows. It is
written without training and without Ray, and kept if `--store` names a folder. The server is a process of its own, as a user starts it.
Measured are the time from its start to the first page, the first visit of the sweep, for which its numbers are read, each page at its first
and at later views, pages for 20 readers at once while a writer commits trials, the memory of the server, and pages of a small store on S3
that takes 100 ms for every request. Beside the time that a reader waits stands the CPU time of the server, which other work on the machine
changes less.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from statistics import median, quantiles

import numpy as np

from kd_ray.groups import Groups
from kd_ray.results.aggregate import aggregate
from kd_ray.results.record import Samples, encode_record, write_samples
from kd_ray.results.store import Store, open_store, part_key, record_key
from kd_ray.sweep.plan import PlannedTrial, expand
from tests.benchmarks.scale import environment
from tests.benchmarks.synthetic import NUM_CLASSES, NUM_SAMPLES, synthetic_sweep
from tests.fakes import make_record, write_sweep
from tests.faulty_s3 import Fault, FaultyS3, faulty_s3
from tests.golden.make import golden_results
from tests.processes import started
from tests.s3 import BUCKET, s3_server, settings_for

READERS = 20
ROUNDS = 5
LATENCY_S = 0.1
PATIENCE_S = 300.0
_LABELS_N = np.repeat(np.arange(NUM_CLASSES), NUM_SAMPLES // NUM_CLASSES)


class SlowS3(FaultyS3):
    """Takes its time for each request; requests do not wait for each other."""

    def fate(self, method: str, path: str) -> Fault | None:
        time.sleep(LATENCY_S)
        return super().fate(method, path)


def make_store(store: Store, num_trials: int, *, keep_back: int) -> list[PlannedTrial]:
    """Commit all trials but the last `keep_back`, and aggregate; returns those."""
    file = synthetic_sweep(num_trials)
    trials = list(expand(file, lambda path: ""))
    if store.exists(part_key("trials", file.sweep.name, 0)):
        return trials[len(trials) - keep_back :]
    write_sweep(store, file)
    rng = np.random.default_rng(0)
    samples = Samples(
        dataset="trifeature",
        target="shape",
        class_names=tuple(f"class {i}" for i in range(NUM_CLASSES)),
        labels_N=_LABELS_N,
        sensitive_features={
            "color": Groups.from_codes(rng.integers(0, 3, NUM_SAMPLES), ["red", "green", "blue"]),
            "texture": Groups.from_codes(rng.integers(0, 2, NUM_SAMPLES), ["dots", "stripes"]),
        },
    )
    write_samples(store, trials[0].spec.dataset_id, samples)
    for trial in trials[: len(trials) - keep_back]:
        commit(store, trial)
    aggregate(store, file.sweep.name)
    return trials[len(trials) - keep_back :]


def commit(store: Store, trial: PlannedTrial) -> None:
    """One record; about 70 % of its predictions are right."""
    rng = np.random.default_rng(int(trial.trial_id, 16))
    predictions_N = np.where(rng.random(NUM_SAMPLES) < 0.7, _LABELS_N, rng.integers(0, NUM_CLASSES, NUM_SAMPLES))
    record = make_record(
        trial.spec,
        predictions_N=predictions_N.astype(np.int32),
        confidences_N=rng.random(NUM_SAMPLES, dtype=np.float32),
        true_probabilities_N=rng.random(NUM_SAMPLES, dtype=np.float32),
    )
    # Without waiting for the disk, which `commit_record` does.
    store.put(record_key(record.trial_id), encode_record(record))


@dataclass(frozen=True, kw_only=True)
class FirstPage:
    """Times from the start of a server."""

    listens_s: float
    first_page_s: float
    cpu_s: float

    def __str__(self) -> str:
        listens = f"it listens after {self.listens_s:.2f} s"
        return f"{listens}; first page after {self.first_page_s:.2f} s, {self.cpu_s:.2f} s of CPU"


@contextmanager
def serving(url: str, folder: Path) -> Iterator[tuple[str, int, FirstPage]]:
    """A server: its URL, its process id, and how long its first page took."""
    began = time.perf_counter()
    with started("serve", "--store", url, "--port", "0", cwd=folder) as process:
        assert process.stdout is not None
        match = re.search(r"http://[\d.:]+", process.stdout.readline())
        assert match is not None
        listens_s = time.perf_counter() - began
        seconds_of(f"{match[0]}/")
        first_s = time.perf_counter() - began
        first = FirstPage(listens_s=listens_s, first_page_s=first_s, cpu_s=cpu_seconds(process.pid))
        yield match[0], process.pid, first


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def seconds_of(url: str) -> float:
    """How long a page takes; one that is being prepared, or a query that takes too long, is asked for until it is there."""
    began = time.perf_counter()
    while time.perf_counter() - began < PATIENCE_S:
        try:
            with urllib.request.urlopen(url) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.BAD_REQUEST:
                raise
            continue
        if b"are being prepared" not in text:
            return time.perf_counter() - began
    raise TimeoutError(f"{url}: not there after {PATIENCE_S:.0f} s")


def pages_of(site: str, sweep: str) -> dict[str, str]:
    """The pages that are measured."""
    with urllib.request.urlopen(f"{site}/sweeps/{sweep}") as answer:
        match = re.search(r'id="c-([0-9a-f]{16})" class="cell s-complete"', answer.read().decode())
    assert match is not None
    query = "SELECT+temperature,+avg(accuracy)+FROM+class_metrics+GROUP+BY+1"
    return {
        "sweeps": "/",
        "live": f"/sweeps/{sweep}",
        "live by accuracy": f"/sweeps/{sweep}?metric=accuracy",
        "conditions": f"/sweeps/{sweep}/conditions",
        "conditions, DPD": f"/sweeps/{sweep}/conditions?metric=demographic_parity_difference",
        "conditions, class": f"/sweeps/{sweep}/conditions?metric=class_accuracy",
        "differences": f"/sweeps/{sweep}/differences",
        "classes and groups": f"/sweeps/{sweep}/classes",
        "trial": f"/sweeps/{sweep}/trials/{match[1]}",
        "compare": f"/compare?sweep={sweep}",
        "SQL over class_metrics": f"/sql?q={query}",
    }


def views(site: str, sweep: str, pid: int) -> list[str]:
    """A line of Markdown for each page: first view, and median of later ones."""
    lines = []
    for name, path in pages_of(site, sweep).items():
        cpu_s = cpu_seconds(pid)
        first = seconds_of(site + path)
        first_cpu_s, cpu_s = cpu_seconds(pid) - cpu_s, cpu_seconds(pid)
        later = median(seconds_of(site + path) for _ in range(ROUNDS))
        cpu_s = (cpu_seconds(pid) - cpu_s) / ROUNDS
        times = (first, first_cpu_s, later, cpu_s)
        lines.append(f"| {name} | {' | '.join(f'{1000 * it:,.0f}' for it in times)} |")
    return lines


def many_readers(site: str, sweep: str, store: Store, left: list[PlannedTrial]) -> str:
    """20 threads read every page twice, while another one commits trials and aggregates."""
    stop = threading.Event()
    num_written = 0

    def write() -> None:
        nonlocal num_written
        for trial in left:
            if stop.is_set():
                return
            commit(store, trial)
            num_written += 1
            stop.wait(0.2)

    paths = [path for name, path in pages_of(site, sweep).items() if not name.startswith("SQL")] * 2
    writer = threading.Thread(target=write)
    writer.start()
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda _: [seconds_of(site + path) for path in paths], range(READERS)))
    stop.set()
    writer.join()
    times = [it for some in found for it in some]
    return (
        f"{READERS} readers while {num_written} trials are committed: {len(times)} pages, median {1000 * median(times):,.0f} ms, "
        f"95 % within {1000 * quantiles(times, n=20)[-1]:,.0f} ms"
    )


def memory_mb(pid: int) -> float:
    """The most memory that a process had."""
    text = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", text)
    assert match is not None
    return int(match[1]) / 1000


def slow_s3(folder: Path) -> list[str]:
    """The same pages of the golden store on S3, every request of which takes 100 ms more."""
    local = folder / "golden"
    golden_results(local)
    with s3_server() as server, faulty_s3(server, SlowS3) as proxy:
        before = dict(os.environ)
        os.environ.update(settings_for(server))
        target = open_store(f"s3://{BUCKET}")
        for path in local.rglob("*"):
            if path.is_file():
                target.put(str(path.relative_to(local)), path.read_bytes())

        os.environ.update(settings_for(proxy.url))
        try:
            with serving(f"s3://{BUCKET}", folder) as (site, pid, first):
                return [f"S3 with {1000 * LATENCY_S:.0f} ms: {first}", "", *_head(), *views(site, "demo", pid)]
        finally:
            os.environ.clear()
            os.environ.update(before)


def _head() -> list[str]:
    return [
        "| page | first view, ms | its CPU time, ms | later views, ms | their CPU time, ms |",
        "|---|---:|---:|---:|---:|",
    ]


def say(*lines: str) -> None:
    """Print at once: all of it takes minutes."""
    sys.stdout.write("\n".join([*lines, ""]))
    sys.stdout.flush()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--store", type=Path, help="where the synthetic store is made, or lies already")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kd_ray_serve_") as name:
        folder = Path(name)
        store = open_store(options.store or folder / "store")
        left = make_store(store, options.trials, keep_back=50)
        say(environment(), f"load {os.getloadavg()[0]:.1f}", "")
        with serving(store.url, folder) as (site, pid, first):
            visit_s = seconds_of(f"{site}/sweeps/synthetic")
            say(f"{options.trials:,} trials: {first}; first visit of the sweep at once after it: {visit_s:.2f} s")
            say("", *_head(), *views(site, "synthetic", pid), "")
            say(many_readers(site, "synthetic", store, left), f"most memory: {memory_mb(pid):,.0f} MB", "")
        shutil.rmtree(folder / "store", ignore_errors=True)
        say(*slow_s3(folder), f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
