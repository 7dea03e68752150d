"""A launch on a cluster of several nodes, while nodes and the head die, freeze and join."""

import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from kd_ray.cluster.launch import launch
from kd_ray.results.inventory import take_inventory
from kd_ray.results.ledger import Lease, scan
from kd_ray.results.query import Results
from kd_ray.results.status import sweep_status
from kd_ray.results.store import Store, lease_key, open_store
from tests.clusters import NODES, LoopbackCluster, loopback_cluster
from tests.processes import output_of, started, wait_until
from tests.sweeps import assert_same_tables, tiny_sweep, write_tiny_sweep

pytestmark = [pytest.mark.ray, pytest.mark.alone, pytest.mark.long]

ONE_SEED = ("training.epochs=40", "grid.seed=[0]", "grid.temperature=[1, 2, 4, 8]")
"""A teacher, a scratch student, then one long pack of four students: when it trains on one node, nothing keeps the other busy."""
NOTICED_S = 30.0
"""A frozen node is given up after 9 s, and a worker on another node needs some more; a lease would run out only after 30 s and more."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, trifeature_root: Path) -> Store:
    """The sweep, run once in this process."""
    store = open_store(tmp_path_factory.mktemp("undisturbed_nodes"))
    assert launch(tiny_sweep(trifeature_root, *ONE_SEED), store, runner="local").exit_code == 0
    return store


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackCluster]:
    """A head; its token is in the environment of what the test starts."""
    with loopback_cluster() as loopback:
        for name, value in loopback.environment.items():
            monkeypatch.setenv(name, value)
        loopback.start_head()
        yield loopback


def launch_arguments(folder: Path, data_root: Path, cluster: LoopbackCluster) -> tuple[str, ...]:
    file = write_tiny_sweep(folder, data_root, *ONE_SEED)
    return ("launch", str(file), "--store", str(folder / "store"), "--address", cluster.address)


def committed(store: Store) -> dict[str, datetime]:
    """When each record, and the weights it names, were written."""
    return {
        item.key: item.modified_at
        for item in store.entries("trials")
        if item.key.endswith("record.parquet") or "/weights-" in item.key
    }


def wait_for_a_student(store: Store, process: subprocess.Popen[str]) -> Lease:
    """The lease of a student of the long pack, as soon as it has left a checkpoint."""
    found: list[Lease] = []

    def look() -> bool:
        saved = {trial_id for trial_id, trial in take_inventory(store, "trials").trials.items() if trial.checkpoints}
        if saved:
            long = {trial.trial_id for trial in sweep_status(store, "tiny").trials if trial.role == "distilled"}
            found.extend(status.lease for status in scan(store, sorted(saved & long)).values() if status.lease)
        return bool(found)

    wait_until(look, process)
    return found[0]


def max_generation(store: Store) -> int:
    """How often a trial of the sweep was begun, at most."""
    generation: int = Results(store).query("SELECT max(generation) AS n FROM trials")["n"].to_pylist()[0]
    return generation


@pytest.mark.chaos  # the short form of test_chaos.py kills nodes and lets them join again, too
def test_a_killed_node_is_replaced_within_the_same_launch(
    tmp_path: Path, cluster: LoopbackCluster, undisturbed: Store, trifeature_root: Path
) -> None:
    """Guard: a pack whose node is gone queues again, and continues from its checkpoints on another node."""
    cluster.add_nodes(*NODES)
    store = open_store(tmp_path / "store")
    with started(*launch_arguments(tmp_path, trifeature_root, cluster), cwd=tmp_path) as process:
        lease = wait_for_a_student(store, process)
        node = cluster.node_of(lease.pid)
        assert node
        node.kill()
        output = output_of(process, timeout_s=120)
    assert process.returncode == 0, output
    assert_same_tables(store, undisturbed)
    assert max_generation(store) == 2


def test_a_frozen_node_is_given_up_and_overwrites_nothing_when_it_comes_back(
    tmp_path: Path, cluster: LoopbackCluster, undisturbed: Store, trifeature_root: Path
) -> None:
    """Guards: a launch takes its own lease over without waiting for it to run out; generations in names keep the old holder's writes apart.

    The thawed worker does write, for about a second: checkpoints of the first generation, and its lease.
    """
    cluster.add_nodes(*NODES)
    store = open_store(tmp_path / "store")
    with started(*launch_arguments(tmp_path, trifeature_root, cluster), cwd=tmp_path) as process:
        lease = wait_for_a_student(store, process)
        node = cluster.node_of(lease.pid)
        assert node
        node.freeze()
        frozen_at = time.monotonic()
        wait_until(lambda: store.exists(lease_key(lease.trial_id, 2)), process)
        noticed_s = time.monotonic() - frozen_at
        before = committed(store)
        node.thaw()
        output = output_of(process, timeout_s=120)
    assert process.returncode == 0, output
    assert noticed_s < NOTICED_S
    after = committed(store)
    assert {key: after[key] for key in before} == before
    assert_same_tables(store, undisturbed)
    weights = [key for key in after if "/weights-" in key]
    assert len(weights) == len(after) - len(weights) == 6, "a trial that was committed twice left two sets of weights"


@pytest.mark.chaos  # the short form of test_chaos.py kills nodes and lets them join again, too
def test_a_node_that_joins_takes_over_from_the_only_one_that_died(
    tmp_path: Path, cluster: LoopbackCluster, undisturbed: Store, trifeature_root: Path
) -> None:
    """Guard: a launch outlives a moment without any node that could train, and uses one that was not there when it began."""
    (only,) = cluster.add_nodes(NODES[0])
    store = open_store(tmp_path / "store")
    with started(*launch_arguments(tmp_path, trifeature_root, cluster), cwd=tmp_path) as process:
        wait_for_a_student(store, process)
        only.kill()
        cluster.add_nodes(NODES[1])
        output = output_of(process, timeout_s=120)
    assert process.returncode == 0, output
    assert_same_tables(store, undisturbed)
    assert max_generation(store) == 2


def test_a_killed_head_ends_the_launch_and_the_same_command_goes_on(
    tmp_path: Path, cluster: LoopbackCluster, undisturbed: Store, trifeature_root: Path
) -> None:
    """Guard: truth is in the store; a cluster that has forgotten everything finishes the sweep, and no failure looks like success."""
    cluster.add_nodes(NODES[0])
    store = open_store(tmp_path / "store")
    arguments = launch_arguments(tmp_path, trifeature_root, cluster)
    with started(*arguments, cwd=tmp_path) as process:
        wait_for_a_student(store, process)
        cluster.nodes[0].kill()
        output = output_of(process, timeout_s=90)
    assert process.returncode not in (0, None), output
    assert "trials complete" not in output
    done = committed(store)
    cluster.kill()
    cluster.start_head()
    cluster.add_nodes(NODES[0])
    with started(*arguments, cwd=tmp_path) as process:
        output = output_of(process, timeout_s=120)
    assert process.returncode == 0, output
    after = committed(store)
    assert {key: after[key] for key in done} == done
    assert_same_tables(store, undisturbed)
