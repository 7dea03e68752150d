"""A cluster with two kinds of GPU: what a launch says, and how many students a pack has on each.

There are no GPUs: nodes are started as if they had some, and the workers train nothing. The measurement of each kind is given.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest
import ray

from kd_ray.cluster.launch import launch
from kd_ray.cluster.ray_tune.capacity import KIND_PREFIX
from kd_ray.cluster.ray_tune.ray_runner import RayRunner
from kd_ray.cluster.runner import LaunchContext
from kd_ray.distill.worker_protocol import PackWorker
from kd_ray.results.probe import Pace, Probe
from kd_ray.results.query import Results
from kd_ray.results.store import open_store
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.spec import TrialSpec
from tests.benchmarks.synthetic import SyntheticWorker, packs_of_ten
from tests.clusters import NODES, loopback_cluster

pytestmark = [pytest.mark.ray, pytest.mark.alone, pytest.mark.long]

SIZES = {"Large": 8, "Small": 2}
"""Students that fit on each kind."""


def worker_of_its_node(context: LaunchContext) -> PackWorker:
    """A worker that trains nothing, and names its device as Ray names the node's."""
    here = ray.get_runtime_context().get_node_id()
    (resources,) = (node["Resources"] for node in ray.nodes() if node["NodeID"] == here)  # type: ignore[no-untyped-call]
    worker = SyntheticWorker(context.store, context.placement, context.launch_id)
    (worker.device_name,) = (name.removeprefix(KIND_PREFIX) for name in resources if name.startswith(KIND_PREFIX))
    return worker


@dataclass(frozen=True, kw_only=True)
class Measured(RayRunner):
    """Knows what each kind holds."""

    def probe(self, spec: TrialSpec, placement: Placement, kind: str) -> Probe:
        name = kind.removeprefix(KIND_PREFIX)
        pace = Pace(seconds={2**i: 0.01 for i in range(5)}, bytes_per_student=800)
        room = 1000 * SIZES[name]
        return Probe(model=spec.model, device=name, threads=1, room_bytes=room, loop=pace, grouped=None)


def test_packs_are_as_large_as_each_kind_of_device_takes(
    tmp_path: Path, trifeature_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards: a pack that is larger than its device takes is halved before it trains; and nobody compares over two kinds unawares."""
    store = open_store(tmp_path / "store")
    file = packs_of_ten(401, str(trifeature_root), "placement.pack_size=auto", "placement.gpus_per_pack=1")
    with loopback_cluster() as cluster:
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        cluster.start_head()
        for address, kind in zip(NODES, SIZES, strict=True):
            resources = f'--resources={{"{KIND_PREFIX}{kind}": 1}}'
            cluster.add_nodes(address, options=("--num-gpus=1", resources))
        placement = file.sweep.placement
        runner = Measured(placement=placement, address=cluster.address, worker=worker_of_its_node)
        report = launch(file, store, runner=runner)
    assert report.exit_code == 0, report.warnings
    assert any("several kinds of GPU (Large, Small)" in warning for warning in report.warnings), report.warnings
    found = Results(store).query(
        "SELECT device, max(pack_size) AS most FROM trials WHERE role = 'distilled' GROUP BY device ORDER BY device"
    )
    largest = {row["device"]: row["most"] for row in found.to_pylist()}
    assert largest["Small"] == 2
    assert 2 < largest["Large"] <= 8

    # A later launch of the same sweep on the CPU says so.
    more = packs_of_ten(411, str(trifeature_root))
    report = launch(more, store, runner=RayRunner(placement=more.sweep.placement, worker=plain_worker))
    assert report.exit_code == 0, report.warnings
    assert any("ask for no GPU" in warning and "mixed_devices" in warning for warning in report.warnings)


def plain_worker(context: LaunchContext) -> PackWorker:
    """A worker that trains nothing, on the CPU."""
    worker = SyntheticWorker(context.store, context.placement, context.launch_id)
    worker.device_name = "cpu"
    return worker
