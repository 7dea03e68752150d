"""What happens to launches on machines and files that change under them: frozen workers, clocks, edited files, merges, little memory."""

import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook

from kd_ray.cluster.launch import launch
from kd_ray.distill import leases
from kd_ray.housekeeping.adopt import adopt
from kd_ray.housekeeping.verify import verify
from kd_ray.results import ledger
from kd_ray.results.inventory import take_inventory
from kd_ray.results.manifest import read_manifest
from kd_ray.results.query import Results
from kd_ray.results.record import read_record
from kd_ray.results.store import Store, lease_key, open_store, record_key, sweep_key
from tests.processes import command_line, started, wait_until
from tests.sweeps import assert_same_tables, tiny_sweep, write_tiny_sweep

ONE_STUDENT = (
    "training.epochs=300",
    "grid.seed=[0]",
    "grid.temperature=null",
    "teacher=null",
    "distillation=null",
    "placement.checkpoint_every_epochs=20",
    "placement.checkpoint_interval_s=1000",
)


def checkpoints(store: Store, generation: int) -> list[int]:
    """Steps of the checkpoints that the holder of a generation has left."""
    trials = take_inventory(store, "trials").trials.values()
    return [entry.place.step for trial in trials for entry in trial.checkpoints if entry.place.number == generation]


@pytest.mark.long
@pytest.mark.ray
def test_a_frozen_worker_is_taken_over_and_commits_nothing_when_it_wakes(tmp_path: Path, trifeature_root: Path) -> None:
    """Guards: the lease that runs out, the checkpoint of another generation that is continued, and fencing.

    The worker is frozen alone: its driver and its Ray go on.
    """
    store, whole = open_store(tmp_path / "store"), open_store(tmp_path / "whole")
    file = write_tiny_sweep(tmp_path, trifeature_root, *ONE_STUDENT)
    arguments = ("launch", str(file), "--store", store.url)
    with started(*arguments, cwd=tmp_path, output=tmp_path / "first") as first:
        wait_until(lambda: bool(checkpoints(store, 1)), first)
        (trial_id,) = take_inventory(store, "trials").trials
        lease = ledger.Lease.from_json(store.get(lease_key(trial_id, 1)) or b"")
        assert command_line(lease.pid).startswith("ray::")
        os.kill(lease.pid, signal.SIGSTOP)
        try:
            with started(*arguments, "--runner", "local", cwd=tmp_path, output=tmp_path / "second") as second:
                wait_until(lambda: bool(checkpoints(store, 2)), second)
                assert min(checkpoints(store, 2)) > min(checkpoints(store, 1), default=0)
                os.kill(lease.pid, signal.SIGCONT)
                assert second.wait(timeout=200) == 0, (tmp_path / "second").read_text()
        finally:
            with suppress(ProcessLookupError):
                os.kill(lease.pid, signal.SIGCONT)
        before = store.get(record_key(trial_id))
        assert first.wait(timeout=200) == 0, (tmp_path / "first").read_text()
    assert store.get(record_key(trial_id)) == before
    record = read_record(store, trial_id)
    assert record is not None
    assert (record.provenance.generation, record.provenance.restarts) == (2, 1)
    assert list(take_inventory(store, "trials").trials[trial_id].weights) == [2]
    assert "1 of 1 trials complete, 0 trained now" in (tmp_path / "first").read_text()
    assert launch(tiny_sweep(trifeature_root, *ONE_STUDENT), whole, runner="local").exit_code == 0
    assert_same_tables(store, whole)


class Clock:
    """The clock of this host, which can be set; a thread that stands for another host sees the right time."""

    def __init__(self) -> None:
        self.wrong_s = 0.0
        self.others: set[int] = set()

    def now(self, zone: tzinfo | None = None) -> datetime:
        wrong_s = 0.0 if threading.get_ident() in self.others else self.wrong_s
        return datetime.now(zone) + timedelta(seconds=wrong_s)

    def clocks(self) -> tuple[float, float]:
        return time.time() + self.wrong_s, time.monotonic()


@pytest.mark.parametrize(
    "jump_s",
    [
        pytest.param(-7200.0, id="back", marks=pytest.mark.long),
        pytest.param(7200.0, id="ahead", marks=pytest.mark.long),
    ],
)
def test_a_clock_that_jumps_while_a_trial_trains_costs_nothing(
    jump_s: float, store: Store, finished_tiny: Store, trifeature_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards: epochs and pauses are measured by another clock, and a host with a right clock leaves the trial to its holder."""
    clock = Clock()
    monkeypatch.setattr(ledger, "datetime", clock)
    monkeypatch.setattr(leases, "_clocks", clock.clocks)
    monkeypatch.setattr(leases, "LEASE_TTL_S", 0.03)
    steps = [0]

    def jump(*_: Any) -> None:
        steps[0] += 1
        if steps[0] == 15:
            clock.wrong_s = jump_s
            assert_held_by_others(store, clock)

    hook = register_optimizer_step_post_hook(jump)
    try:
        report = launch(tiny_sweep(trifeature_root), store, runner="local")
    finally:
        hook.remove()
    assert (report.exit_code, report.num_trained) == (0, 7), report.warnings
    assert steps[0] > 15
    assert report.elapsed_s < 3600
    assert_same_tables(store, finished_tiny)


def assert_held_by_others(store: Store, clock: Clock) -> None:
    """Another host does not take the trial whose lease was renewed by the wrong clock."""
    trials = take_inventory(store, "trials").trials
    trial_id = next(name for name, trial in trials.items() if trial.leases and not trial.record)
    for _ in range(100_000):
        newest = ledger.newest_lease(store, trial_id, take_inventory(store, "trials").trials[trial_id])
        assert newest is not None
        if abs((newest.lease.renewed_at - datetime.now(UTC)).total_seconds()) > 3600:
            break
    else:
        raise AssertionError("the lease was not renewed")
    clock.others.add(threading.get_ident())
    try:
        elsewhere = replace(newest, lease=replace(newest.lease, boot_id="another host"))
        assert elsewhere.wrong_clock()
        assert elsewhere.is_live()
    finally:
        clock.others.clear()


@pytest.mark.long
def test_a_sweep_file_that_is_edited_during_the_launch_counts_as_it_was_read(
    tmp_path: Path, trifeature_root: Path
) -> None:
    """Guard: the launch reads the file once; what it wrote to the store is what `resume` continues."""
    store = open_store(tmp_path / "store")
    file = write_tiny_sweep(tmp_path, trifeature_root, *ONE_STUDENT)
    with started("launch", str(file), "--store", store.url, "--runner", "local", cwd=tmp_path) as process:
        wait_until(lambda: bool(checkpoints(store, 1)), process)
        kept = store.get(sweep_key("tiny"))
        file.write_text("name: other\nstudent: [")
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert store.get(sweep_key("tiny")) == kept
    assert read_manifest(store, "tiny").generation == 1
    assert Results(store).query("SELECT sweep, epochs FROM trials").to_pylist() == [{"sweep": "tiny", "epochs": 300}]
    assert verify(store).problems == ()


@pytest.mark.long
def test_adopt_while_a_launch_writes_the_same_trials(
    tmp_path: Path, finished_tiny: Store, trifeature_root: Path
) -> None:
    """Guards: records are created once, under the lease; manifests are numbered; both of them aggregate."""
    store, whole = open_store(tmp_path / "store"), open_store(tmp_path / "whole")
    more = "grid.seed=[2, 1, 0]"
    file = write_tiny_sweep(tmp_path, trifeature_root, more)
    adopted: set[str] = set()
    num_merges = 0
    with started("launch", str(file), "--store", store.url, "--runner", "local", cwd=tmp_path) as process:
        wait_until(lambda: store.exists(sweep_key("tiny")), process)
        while process.poll() is None:
            report = adopt(finished_tiny, store)
            assert (report.different, report.problems) == ((), ())
            assert all("is in training there" in why for why in report.skipped.values())
            adopted |= set(report.adopted)
            num_merges += 1
        output, _ = process.communicate(timeout=10)
    assert process.returncode == 0, output
    assert "10 of 10 trials complete" in output
    assert adopted
    assert num_merges >= 2
    assert not adopt(finished_tiny, store).is_incomplete
    assert verify(store).problems == ()
    assert launch(tiny_sweep(trifeature_root, more), whole, runner="local").exit_code == 0
    assert_same_tables(store, whole)
