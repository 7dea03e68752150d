"""Driver and scheduler on a cluster of many slots: `python -m tests.benchmarks.cluster [--nodes N] [--cpus N] [--trials N] …`.

Nodes are real Ray nodes on this machine (Ray's cluster utilities), which claim more CPUs than it has; a slot is a real actor in a process
of its own. A trial's training is a stub: a pack of ten waits for so many seconds, saying each second how far it is, and makes up its
predictions (`synthetic.py`). The driver, Ray Tune, the handout, leases, weights, records and tables on a local store are real. So what is
measured is what a launch costs its driver, and from where on that one process is what the slots wait for.

`in use` is the mean share of the slots for which Ray Tune had a pack, from the moment at which all were first taken (or their largest
number was) until the queue was empty. `packs per node` says how evenly Ray placed them: fewest and most.

200 CPUs on 10 nodes, packs that ask for 2 of them (`--nodes 10 --cpus 20 --cpus-per-pack 2 --trials 10000`), so 100 actors, packs of ten,
all of it on 2 cores and 24 GiB (AMD EPYC), otherwise idle, ray 2.60.0, Python 3.11.7, n = 1 each:

    a pack waits   all slots taken after   in use   steady trials/s   driver: CPU per pack, memory   packs per node
    20 s           162 s                   99 %     -                 125 ms, 551 MB                 96 to 104
    5 s            183 s                   91 %     -                 86 ms, 549 MB                  94 to 111
    1 s            231 s (98 of 100)       80 %     82                97 ms, 544 MB                  92 to 123

A pack counts as soon as it has been handed to Ray Tune, so with packs of a second `in use` is mostly waiting: 82 trials/s, which is 8 packs
of ten a second, is where driver, store and the 100 workers together saturate these two cores. Until all slots are taken, the workers'
imports share two cores. CPU per pack contains the start. Without `RAY_enable_worker_prestart=0` Ray starts a process for every CPU that a
node claims, twice what these packs need, and that alone took the machine's memory.

200 actors were not tried: each takes 130 MB (PSS) before it does anything, which is 26 GB. On a machine that other work kept busy, 24 slots
on 4 nodes with packs of 3 s and 4,001 trials: 97 % in use, 78 trials/s, 83 ms per pack, 481 MB, 95 to 110 packs per node.
"""

import argparse
import json
import os
import resource
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd_ray.cluster.runner import LaunchContext, Observer
from kd_ray.distill.worker_protocol import LoadState, OnFailure, PackProgress, PackTraining, PackWorker
from kd_ray.sweep.packs import Pack
from kd_ray.sweep.spec import TrialSpec
from tests.benchmarks.synthetic import EPOCHS, SyntheticTraining, SyntheticWorker, packs_of_ten

if TYPE_CHECKING:
    from kd_ray.cluster.interrupts import Interrupts
    from kd_ray.cluster.pack_queue import PackQueue

_TRIALS_PER_PACK = 10


def waiting_worker(context: LaunchContext, pack_s: float) -> PackWorker:
    """Makes a worker whose packs take a while, named after its node."""
    import ray

    worker = WaitingWorker(context.store, context.placement, context.launch_id)
    worker.pack_s = pack_s
    worker.device_name = ray.get_runtime_context().get_node_id()
    return worker


class WaitingWorker(SyntheticWorker):
    """See the module."""

    pack_s = 0.0

    def begin(self, specs: Sequence[TrialSpec], load_state: LoadState, on_failure: OnFailure) -> PackTraining:
        super().begin(specs, load_state, on_failure)
        return WaitingTraining(list(specs), self._labels_N, self.pack_s)


class WaitingTraining(SyntheticTraining):
    """A pack that waits; a teacher does not, so that students need not."""

    def __init__(self, specs: list[TrialSpec], labels_N: Any, pack_s: float) -> None:
        super().__init__(specs, labels_N)
        self._pack_s = pack_s if len(specs) > 1 else 0.0

    def fit(self) -> Iterator[PackProgress]:
        until = time.monotonic() + self._pack_s
        while (left_s := until - time.monotonic()) > 0:
            time.sleep(min(1.0, left_s))
            yield PackProgress(epoch=1, epochs=EPOCHS)
        yield from super().fit()


@dataclass(kw_only=True)
class Counted(Observer):
    """Passes on what happens, and notes how many packs run when."""

    to: Observer
    moments: list[tuple[float, int]] = field(default_factory=list)
    """When the number of running packs changed, and to what."""

    def started(self, pack: Pack) -> None:
        self._change(1)
        self.to.started(pack)

    def progressed(self, pack: Pack, progress: PackProgress) -> None:
        self.to.progressed(pack, progress)

    def ended(self, pack: Pack, committed: int, failed: int) -> None:
        self._change(-1)
        self.to.ended(pack, committed, failed)

    def warn(self, warning: str) -> None:
        self.to.warn(warning)

    def _change(self, by: int) -> None:
        self.moments.append((time.monotonic(), by + (self.moments[-1][1] if self.moments else 0)))


def measure(*, nodes: int, cpus: int, cpus_per_pack: int, trials: int, pack_s: float, folder: Path) -> dict[str, Any]:
    """One sweep on a fresh cluster, driven by this process."""
    import ray
    from ray.cluster_utils import Cluster

    from kd_ray.cluster.launch import launch
    from kd_ray.cluster.ray_tune.ray_runner import RayRunner
    from kd_ray.results.query import Results
    from kd_ray.results.store import open_store

    seen: list[Counted] = []

    class CountingRunner(RayRunner):
        """Tells a counting observer."""

        def run(self, queue: "PackQueue", context: LaunchContext, observer: Observer, interrupts: "Interrupts") -> None:
            seen.append(Counted(to=observer))
            super().run(queue, context, seen[-1], interrupts)

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=cpus, object_store_memory=80 * 2**20)
        file = packs_of_ten(trials, str(folder / "data"), cpus_per_pack=cpus_per_pack)
        store = open_store(folder / "store")
        runner = CountingRunner(
            placement=file.sweep.placement, address=cluster.address, worker=partial(waiting_worker, pack_s=pack_s)
        )
        cpu_s, began = time.process_time(), time.monotonic()
        report = launch(file, store, runner=runner)
        wall_s, cpu_s = time.monotonic() - began, time.process_time() - cpu_s
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]
    assert report.exit_code == 0, report.warnings
    per_node = Results(store).query("SELECT device, count(*) AS n FROM trials WHERE role = 'distilled' GROUP BY 1")
    packs = sorted(n / _TRIALS_PER_PACK for n in per_node["n"].to_pylist())
    moments = seen[0].moments
    slots, most = nodes * (cpus // cpus_per_pack), max(running for _, running in moments)
    full = next(i for i, (_, running) in enumerate(moments) if running == most)
    last = max(i for i, (_, running) in enumerate(moments) if i == 0 or running > moments[i - 1][1])
    busy = sum(n * (b - a) for (a, n), (b, _) in zip(moments[full:last], moments[full + 1 : last + 1], strict=True))
    steady_s = moments[last][0] - moments[full][0]
    num_packs = sum(packs)
    ended = sum(after < before for (_, before), (_, after) in pairwise(moments[full : last + 1]))
    return {
        "cpus": nodes * cpus,
        "slots": slots,
        "nodes": nodes,
        "trials": len(report.trials),
        "pack_s": pack_s,
        "wall_s": round(wall_s, 1),
        "trials_per_s": round(len(report.trials) / (moments[-1][0] - moments[0][0]), 1),
        "steady_trials_per_s": round(_TRIALS_PER_PACK * ended / steady_s, 1) if steady_s else None,
        "most_at_once": most,
        "all_taken_after_s": round(moments[full][0] - moments[0][0], 1),
        "in_use": round(busy / (slots * steady_s), 3) if steady_s else None,
        "driver_ms_per_pack": round(1000 * cpu_s / num_packs, 1),
        "driver_cpu_share": round(cpu_s / wall_s, 2),
        "driver_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
        "packs_per_node": [packs[0], packs[-1]],
        "warnings": len(report.warnings),
    }


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--cpus", type=int, default=25)
    parser.add_argument("--cpus-per-pack", type=int, default=1)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--pack-s", type=float, default=20.0)
    options = parser.parse_args()
    # A cluster as it should be: with a token, which its processes take from here.
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with tempfile.TemporaryDirectory(prefix="kd_ray_cluster_") as folder:
        found = measure(
            nodes=options.nodes,
            cpus=options.cpus,
            cpus_per_pack=options.cpus_per_pack,
            trials=options.trials,
            pack_s=options.pack_s,
            folder=Path(folder),
        )
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
