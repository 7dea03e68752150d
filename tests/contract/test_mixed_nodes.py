"""A cluster with two kinds of GPU: what a launch says, and how many students a pack has on each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kd_ray.cluster.launch import launch
from kd_ray.cluster.local import LocalRunner
from kd_ray.cluster.ray_tune.capacity import KIND_PREFIX
from kd_ray.cluster.runner import LaunchContext
from kd_ray.distill.worker_protocol import PackWorker
from kd_ray.results.query import Results
from kd_ray.results.store import open_store
from tests.benchmarks.synthetic import SyntheticWorker, packs_of_ten
from tests.clusters import NODES, loopback_cluster
from tests.mixed_kinds import SIZES

pytestmark = [pytest.mark.ray, pytest.mark.alone, pytest.mark.long]


def test_packs_are_as_large_as_each_kind_of_device_takes(tmp_path: Path, trifeature_root: Path) -> None:
    """Guards: a pack that is larger than its device takes is halved before it trains; and nobody compares over two kinds unawares."""
    store = open_store(tmp_path / "store")
    with loopback_cluster() as cluster:
        cluster.start_head()
        for address, kind in zip(NODES, SIZES, strict=True):
            cluster.add_nodes(address, options=("--num-gpus=1", f'--resources={{"{KIND_PREFIX}{kind}": 1}}'))
        done = subprocess.run(
            [sys.executable, "-m", "tests.mixed_kinds", store.url, str(trifeature_root), cluster.address],
            cwd=Path(__file__).resolve().parents[2],
            env={**os.environ, **cluster.environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["exit_code"] == 0, said
    assert any("several kinds of GPU (Large, Small)" in warning for warning in said["warnings"]), said
    found = Results(store).query(
        "SELECT device, max(pack_size) AS most FROM trials WHERE role = 'distilled' GROUP BY device"
    )
    largest = {row["device"]: row["most"] for row in found.to_pylist()}
    assert largest["Small"] == SIZES["Small"]
    assert SIZES["Small"] < largest["Large"] <= SIZES["Large"]

    # A later launch of the same sweep on the CPU says so.
    report = launch(packs_of_ten(411, str(trifeature_root)), store, runner=LocalRunner(worker=on_the_cpu))
    assert report.exit_code == 0, report.warnings
    assert any("ask for no GPU" in warning and "mixed_devices" in warning for warning in report.warnings), (
        report.warnings
    )


def on_the_cpu(context: LaunchContext) -> PackWorker:
    """A worker that trains nothing."""
    worker = SyntheticWorker(context.store, context.placement, context.launch_id)
    worker.device_name = "cpu"
    return worker
