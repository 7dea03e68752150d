"""A machine that is announced to go: its workers get SIGTERM."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from kd_ray.results.inventory import take_inventory
from kd_ray.results.ledger import Lease, scan
from kd_ray.results.query import Results
from kd_ray.results.store import Store, open_store
from tests.processes import output_of, started, wait_until
from tests.sweeps import write_tiny_sweep

pytestmark = [pytest.mark.ray, pytest.mark.long]

STEPS_PER_EPOCH = 10
EVERY_EPOCHS = 100
ONE_STUDENT = (
    "training.epochs=150",
    "grid.seed=[0]",
    "grid.temperature=null",
    "teacher=null",
    "distillation=null",
    "placement.max_retries=0",
    "placement.checkpoint_interval_s=1000",
    f"placement.checkpoint_every_epochs={EVERY_EPOCHS}",
)


def steps(store: Store) -> dict[str, int]:
    """How far each trial has got by its checkpoints of the first generation."""
    found: dict[str, int] = {}
    for trial_id, trial in take_inventory(store, "trials").trials.items():
        if steps := [entry.place.step for entry in trial.checkpoints if entry.place.number == 1]:
            found[trial_id] = max(steps)
    return found


def lease_after_a_checkpoint(store: Store, process: subprocess.Popen[str]) -> Lease:
    """The lease of the student, as soon as it has left its first checkpoint."""
    wait_until(lambda: bool(steps(store)), process)
    (status,) = scan(store, sorted(steps(store))).values()
    assert status.lease
    return status.lease


def test_a_worker_that_gets_sigterm_writes_a_checkpoint_and_its_pack_goes_on(
    tmp_path: Path, trifeature_root: Path
) -> None:
    """Guards: the step is finished, the checkpoint written, and nobody is at fault: with no retries at all the trial completes."""
    store = open_store(tmp_path / "store")
    file = write_tiny_sweep(tmp_path, trifeature_root, *ONE_STUDENT)
    with started("launch", str(file), "--store", store.url, cwd=tmp_path) as process:
        lease = lease_after_a_checkpoint(store, process)
        before = steps(store)[lease.trial_id]
        os.kill(lease.pid, signal.SIGTERM)
        wait_until(lambda: steps(store).get(lease.trial_id, 0) > before, process)
        after = steps(store)[lease.trial_id]
        output = output_of(process, timeout_s=120)
    assert process.returncode == 0, output
    assert "WorkerStopped: its worker received SIGTERM" in output
    between = EVERY_EPOCHS * STEPS_PER_EPOCH
    assert before % between == 0
    assert after % between != 0, "an ordinary checkpoint"
    trials = Results(store).table("trials", sweep="tiny")
    assert trials["generation"].to_pylist() == [2]
    assert trials["restarts"].to_pylist() == [1]
