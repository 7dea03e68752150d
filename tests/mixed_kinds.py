"""Launches a synthetic sweep on a cluster with two kinds of GPU: `python -m tests.mixed_kinds STORE DATA_ROOT ADDRESS`.

A process of its own, because Ray reads the token of a cluster once in a process. There are no GPUs: nodes are started as if they had some,
the workers train nothing, and the measurement of each kind is given.
"""

import json
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import ray

from kd_ray.cluster.launch import launch
from kd_ray.cluster.ray_tune.capacity import KIND_PREFIX
from kd_ray.cluster.ray_tune.ray_runner import RayRunner
from kd_ray.cluster.runner import LaunchContext
from kd_ray.distill.worker_protocol import LoadState, OnFailure, PackTraining, PackWorker
from kd_ray.results.probe import Pace, Probe
from kd_ray.results.store import open_store
from kd_ray.sweep.spec import Role, TrialSpec
from tests.benchmarks.synthetic import SyntheticWorker, packs_of_ten

SIZES = {"Large": 8, "Small": 2}
"""Students that fit on each kind."""


class OneOfTwo(SyntheticWorker):
    """Begins with students when there is a worker on each kind, so that neither trains them all."""

    def begin(self, specs: Sequence[TrialSpec], load_state: LoadState, on_failure: OnFailure) -> PackTraining:
        if specs[0].role is not Role.TEACHER:
            self.store.put(f"kinds/{self.device_name}", b"")
            deadline = time.monotonic() + 120
            while len(list(self.store.entries("kinds"))) < len(SIZES) and time.monotonic() < deadline:
                threading.Event().wait(0.05)
        return super().begin(specs, load_state, on_failure)


def worker_of_its_node(context: LaunchContext) -> PackWorker:
    """A worker that trains nothing, and names its device as Ray names the node's."""
    here = ray.get_runtime_context().get_node_id()
    (resources,) = (node["Resources"] for node in ray.nodes() if node["NodeID"] == here)  # type: ignore[no-untyped-call]
    worker = OneOfTwo(context.store, context.placement, context.launch_id)
    (worker.device_name,) = (name.removeprefix(KIND_PREFIX) for name in resources if name.startswith(KIND_PREFIX))
    return worker


@dataclass(frozen=True, kw_only=True)
class Measured(RayRunner):
    """Knows what each kind holds."""

    def probe(self, spec: TrialSpec, context: LaunchContext, kind: str) -> Probe:
        name = kind.removeprefix(KIND_PREFIX)
        pace = Pace(seconds={2**i: 0.01 for i in range(5)}, bytes_per_student=800)
        room = 1000 * SIZES[name]
        return Probe(model=spec.model, device=name, threads=1, room_bytes=room, loop=pace, grouped=None)


def main(store: str, data_root: str, address: str) -> None:
    """Launch, and print the exit code and the warnings as JSON."""
    file = packs_of_ten(401, data_root, "placement.pack_size=auto", "placement.gpus_per_pack=1")
    runner = Measured(placement=file.sweep.placement, address=address, worker=worker_of_its_node)
    report = launch(file, open_store(store), runner=runner)
    print(json.dumps({"exit_code": report.exit_code, "warnings": report.warnings}))


if __name__ == "__main__":
    main(*sys.argv[1:])
