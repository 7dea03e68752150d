"""A cluster that Ray's own autoscaler makes larger and smaller: a sweep begins without a worker, and ends without one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kd_ray.cluster.launch import launch
from kd_ray.results.store import open_store
from tests.clusters import LoopbackCluster, Node, loopback_cluster
from tests.processes import command_line, output_of, started, wait_until
from tests.sweeps import assert_same_tables, tiny_sweep, write_tiny_sweep

pytestmark = [pytest.mark.ray, pytest.mark.alone, pytest.mark.long]

SWEEP = ("training.epochs=100", "grid.seed=[0, 1]", "grid.temperature=[1, 2, 4, 8]", "placement.pack_size=2")
"""Packs of two students, long enough that a second node is up before they are done."""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackCluster]:
    """Nothing runs yet; its token is in the environment of what the test starts."""
    with loopback_cluster() as loopback:
        for name, value in loopback.environment.items():
            monkeypatch.setenv(name, value)
        yield loopback


def num_nodes(head: Node) -> int:
    """Raylets of the head's session, without its own."""
    return sum(Path(command_line(pid).split(" ", 1)[0]).name == "raylet" for pid in head.pids()) - 1


def test_a_sweep_begins_without_workers_grows_and_leaves_none(
    tmp_path: Path, cluster: LoopbackCluster, trifeature_root: Path
) -> None:
    """Guards: packs that wait are what an autoscaler goes by, all of them at once; and no actor keeps a node that has nothing to do."""
    head = cluster.start_scaling_head(most=2, idle_s=3)
    assert num_nodes(head) == 0
    file = write_tiny_sweep(tmp_path, trifeature_root, *SWEEP)
    arguments = ("launch", str(file), "--store", str(tmp_path / "store"), "--address", cluster.address)
    with started(*arguments, cwd=tmp_path) as process:
        wait_until(lambda: num_nodes(head) == 2, process, timeout_s=120)
        output = output_of(process, timeout_s=300)
    assert process.returncode == 0, output
    assert "a pack asks for 1 CPUs" in output
    assert "no node of the cluster has it yet, so packs wait until one joins" in output
    wait_until(lambda: num_nodes(head) == 0, head.process, timeout_s=60)

    undisturbed = open_store(tmp_path / "undisturbed")
    assert launch(tiny_sweep(trifeature_root, *SWEEP), undisturbed, runner="local").exit_code == 0
    assert_same_tables(open_store(tmp_path / "store"), undisturbed)
