"""Faults that cost only themselves: full disks, damaged objects, stale workers, hungry trials, shared cells."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from kd_ray.cluster.launch import launch, resume_file
from kd_ray.cluster.local import LocalRunner
from kd_ray.cluster.ray_tune.ray_runner import RayRunner
from kd_ray.cluster.runner import LaunchContext
from kd_ray.distill.pack_run import run_pack
from kd_ray.distill.teacher import Teacher
from kd_ray.distill.worker import Worker
from kd_ray.distill.worker_protocol import LoadState, OnFailure, PackTraining, PackWorker
from kd_ray.results import ledger
from kd_ray.results.aggregate import aggregate
from kd_ray.results.launch_plan import plan
from kd_ray.results.ledger import Lease
from kd_ray.results.manifest import write_manifest
from kd_ray.results.query import Results
from kd_ray.results.record import read_record
from kd_ray.results.status import sweep_status
from kd_ray.results.store import Store, lease_key, manifest_key, open_store, record_key
from kd_ray.sweep.spec import TrialSpec, TrialState
from tests.benchmarks.synthetic import SyntheticWorker, synthetic_sweep, synthetic_worker
from tests.fakes import set_written
from tests.processes import output_of, run_cli, started
from tests.sweeps import assert_same_tables, comparable_tables, tiny_sweep, write_tiny_sweep

LONG = ("training.epochs=40", "grid.seed=[0]", "grid.temperature=[1, 2, 4, 8]")


@pytest.fixture(scope="module")
def undisturbed(finished_tiny: Store) -> Store:
    """The tiny sweep, run once without a fault."""
    return finished_tiny


@pytest.fixture
def finished(undisturbed: Store, tmp_path: Path) -> Store:
    """A copy of it, to be damaged."""
    store = open_store(tmp_path / "finished")
    subprocess.run(["cp", "-a", undisturbed.url, store.url], check=True)
    return store


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def emptied(data: bytes) -> bytes:
    return b""


def noisy(data: bytes) -> bytes:
    """The same length, other bytes in the middle."""
    third = len(data) // 3
    return data[:third] + bytes(byte ^ 0xA5 for byte in data[third : 2 * third]) + data[2 * third :]


DAMAGE = [noisy, *(pytest.param(damage, marks=pytest.mark.long) for damage in (truncated, emptied))]


def overwrite(store: Store, key: str, damage: Callable[[bytes], bytes]) -> None:
    """Change an object behind the store's back."""
    data = store.get(key)
    assert data is not None
    store.put(key, damage(data))


def keys_of(store: Store, part: str) -> list[str]:
    return sorted(item.key for item in store.entries("") if part in item.key and not item.key.startswith("damaged/"))


# --- damaged objects ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("role", [pytest.param("teacher", marks=pytest.mark.long), "distilled"])
def test_a_damaged_record_is_quarantined_and_its_trial_trained_again(
    role: str, damage: Callable[[bytes], bytes], finished: Store, undisturbed: Store, trifeature_root: Path
) -> None:
    """Guards: the record's e_tag in the fold key, page checksums, `quarantine_trial`."""
    file = tiny_sweep(trifeature_root)
    chosen = next(trial for trial in plan(file, finished).trials if trial.role == role)
    others = {key: finished.get(key) for key in keys_of(finished, "record.parquet") if chosen.trial_id not in key}
    overwrite(finished, record_key(chosen.trial_id), damage)
    report = launch(file, finished, runner="local")
    assert (report.exit_code, report.num_trained) == (0, 1)
    assert any(chosen.trial_id in warning and "quarantined" in warning for warning in report.warnings)
    assert_same_tables(finished, undisturbed)
    assert {key: finished.get(key) for key in others} == others
    assert any(record_key(chosen.trial_id) in problem for problem in sweep_status(finished, "tiny").problems)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_student_waits_while_the_weights_of_its_teacher_are_made_again(
    damage: Callable[[bytes], bytes], finished: Store, undisturbed: Store, trifeature_root: Path
) -> None:
    """Guards: the weights' SHA-256 in the record, `LostTeacherError`: no student is trained by a damaged teacher, and none fails."""
    file = tiny_sweep(trifeature_root)
    trials = plan(file, finished).trials
    teacher = next(trial for trial in trials if trial.role == "teacher")
    student = next(trial for trial in trials if trial.role == "distilled")
    (weights,) = keys_of(finished, f"{teacher.trial_id}/weights-")
    overwrite(finished, weights, damage)
    finished.delete(record_key(student.trial_id))
    report = launch(file, finished, runner="local")
    assert report.exit_code == 0, report
    assert_same_tables(finished, undisturbed)
    again = read_record(finished, teacher.trial_id)
    assert again is not None
    assert again.provenance.generation > 1, "the new weights have a name of their own"
    assert again.weights_key != weights


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("what", ["tables/", "folded.json", "datasets/", "sweep.yaml"])
def test_what_is_derived_is_made_again(
    what: str, damage: Callable[[bytes], bytes], finished: Store, undisturbed: Store, trifeature_root: Path
) -> None:
    """Guards: the e_tags in the index of the tables; samples are written again from the data."""
    for key in keys_of(finished, what):
        overwrite(finished, key, damage)
    report = launch(tiny_sweep(trifeature_root), finished, runner="local")
    assert (report.exit_code, report.num_trained) == (0, 0), report
    assert_same_tables(finished, undisturbed)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_manifest_gives_way_to_the_one_before_and_is_written_anew(
    damage: Callable[[bytes], bytes], finished: Store, trifeature_root: Path
) -> None:
    """Guards: manifests are numbered and created only if absent; `find_manifest` passes over what cannot be read."""
    extended = tiny_sweep(trifeature_root, "grid.seed=[0, 1, 2]")
    assert launch(extended, finished, runner="local").num_trained == 3
    tables = comparable_tables(finished)
    overwrite(finished, manifest_key("tiny", 2), damage)
    status = sweep_status(finished, "tiny")
    assert len(status.trials) == 7, "what the manifest before asks for"
    assert [problem.split(" is damaged")[0] for problem in status.problems] == [manifest_key("tiny", 2)]
    assert launch(extended, finished, runner="local").num_trained == 0
    assert comparable_tables(finished) == tables
    assert keys_of(finished, "sweeps/tiny/manifest/") == [manifest_key("tiny", 1), manifest_key("tiny", 3)]


def test_resume_needs_no_whole_manifest(finished: Store, undisturbed: Store) -> None:
    """Guard: `resume_file` falls back on the sweep file in the store."""
    overwrite(finished, manifest_key("tiny", 1), noisy)
    file, weights = resume_file(finished, "tiny")
    assert launch(file, finished, runner="local", weights=weights).num_trained == 0
    assert_same_tables(finished, undisturbed)


def test_deleting_the_tables_loses_nothing(finished: Store, undisturbed: Store, trifeature_root: Path) -> None:
    """Guard: parts that are missing are aggregated again, whatever the index says."""
    for key in keys_of(finished, "tables/"):
        finished.delete(key)
    assert launch(tiny_sweep(trifeature_root), finished, runner="local").exit_code == 0
    assert_same_tables(finished, undisturbed)


@pytest.mark.long
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    damage: Callable[[bytes], bytes], store: Store, tmp_path: Path, trifeature_root: Path
) -> None:
    """Guard: the digest in a checkpoint's name."""
    overrides = (*LONG, "teacher=null", "distillation=null", "grid.temperature=null")
    whole = open_store(tmp_path / "whole")
    file = tiny_sweep(trifeature_root, *overrides)
    assert launch(file, whole, runner="local").exit_code == 0
    packs = plan(file, store).packs
    steps = run_pack(packs[0], Worker(store, file.sweep.placement, launch_id="first"))
    for _ in range(6):
        next(steps)
    steps.close()
    _, newest = keys_of(store, "/checkpoint/")
    overwrite(store, newest, damage)
    assert launch(file, store, runner="local").exit_code == 0
    assert_same_tables(store, whole)
    assert any(newest in item.key for item in store.entries("damaged"))
    assert Results(store).query("SELECT restarts FROM trials")["restarts"].to_pylist() == [1]


def test_a_damaged_lease_delays_a_trial_and_no_more(store: Store, undisturbed: Store, trifeature_root: Path) -> None:
    """Guard: a lease that cannot be read counts from the store's own time stamp."""
    file = tiny_sweep(trifeature_root)
    trial_id = plan(file, store).planned[0].trial_id
    store.put(lease_key(trial_id, 1), b"noise")
    assert ledger.scan(store, [trial_id])[trial_id].state is TrialState.RUNNING
    assert ledger.acquire(store, trial_id, launch_id="x") is None
    set_written(store, lease_key(trial_id, 1), ledger.LEASE_TTL_S + ledger.CLOCK_SKEW_S + 1)
    assert launch(file, store, runner="local").exit_code == 0
    assert_same_tables(store, undisturbed)


# --- disks ----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB, empty."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "kd_ray_test", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.decode()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.parametrize("runner", ["local", "ray"])
def test_a_full_disk_ends_the_launch_with_one_line_and_the_next_one_finishes(
    runner: str, small_disk: Path, undisturbed: Store, tmp_path: Path, trifeature_root: Path
) -> None:
    """Guards: puts are atomic; an error of the store is no failure of a trial, and is not retried for ever."""
    file = write_tiny_sweep(tmp_path, trifeature_root)
    store = open_store(small_disk)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"0" * (4 * 2**20 - 300_000))
    arguments = ("launch", str(file), "--store", str(small_disk), "--runner", runner)
    done = run_cli(*arguments, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "No space left on device" in done.stderr.splitlines()[-1], done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"store {small_disk}: cannot ")
    assert "Traceback" not in done.stderr
    counts = sweep_status(store, "tiny").counts()
    assert counts["failed"] == 0
    assert counts["complete"] < 7
    ballast.unlink()
    done = run_cli(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same_tables(store, undisturbed)


@pytest.mark.long
def test_a_checkpoint_that_finds_no_room_costs_only_itself(
    store: Store, undisturbed: Store, trifeature_root: Path
) -> None:
    """Guard: a checkpoint that cannot be written is a warning; the training continues."""

    class NoRoomForCheckpoints(Store):
        def put(self, key: str, data: bytes, *, durable: bool = False) -> str:
            if "/checkpoint/" in key:
                with self._translated("write", key):
                    raise OSError("No space left on device")
            return super().put(key, data, durable=durable)

    report = launch(
        tiny_sweep(trifeature_root, "placement.checkpoint_every_epochs=1"),
        NoRoomForCheckpoints(store.url),
        runner="local",
    )
    assert report.exit_code == 0
    assert any("no checkpoint of" in warning and "No space left" in warning for warning in report.warnings)
    assert_same_tables(store, undisturbed)


# --- stale workers --------------------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "where"), [("lenet5", "after the weights"), ("resnet20", "after the batch statistics")]
)
def test_a_worker_that_is_ended_in_the_middle_of_a_step_leaves_no_half_step(
    store: Store, tmp_path: Path, trifeature_root: Path, model: str, where: str
) -> None:
    """Guard: `_is_between_steps`. Ray ends a worker whose driver has died by SystemExit, wherever it is.

    A student whose weights were a step ahead of its count would go on from there.
    """
    overrides = (
        f"student.model={model}",
        "teacher=null",
        "distillation=null",
        "grid.temperature=null",
        "grid.seed=[0]",
    )
    file = tiny_sweep(trifeature_root, *overrides)
    whole = open_store(tmp_path / "whole")
    assert launch(file, whole, runner="local").exit_code == 0
    (pack,) = plan(file, store).packs
    steps = run_pack(pack, Worker(store, file.sweep.placement, launch_id="ended"))
    next(steps)
    calls = [0]

    def before(*_: Any) -> None:
        calls[0] += 1
        if calls[0] == 3 and where == "after the batch statistics":
            raise SystemExit

    def after(*_: Any) -> None:
        if calls[0] == 3:
            raise SystemExit

    hooks = register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)
    try:
        with pytest.raises(SystemExit):
            list(steps)
    finally:
        for hook in hooks:
            hook.remove()
    assert calls == [3]
    assert launch(file, store, runner="local").exit_code == 0
    assert_same_tables(store, whole)


@pytest.mark.long
def test_a_worker_that_outlived_its_lease_spoils_nothing(store: Store, tmp_path: Path, trifeature_root: Path) -> None:
    """Guards: generations in the names of checkpoints and weights, `is_superseded` before a commit, create-only records.

    A worker stops in the middle of a step, as if its host were frozen. Its lease runs out, a successor trains and commits. It wakes up,
    trains on, writes a checkpoint and tries to commit.
    """
    overrides = (*LONG, "teacher=null", "distillation=null", "grid.temperature=null")
    file = tiny_sweep(trifeature_root, *overrides)
    whole = open_store(tmp_path / "whole")
    assert launch(file, whole, runner="local").exit_code == 0
    (pack,) = plan(file, store).packs
    (trial,) = pack.trials
    stale = run_pack(pack, Worker(store, file.sweep.placement, launch_id="stale"))
    for _ in range(5):
        next(stale)
    _let_the_lease_run_out(store, trial.trial_id)
    # The successor is in the middle when the stale worker wakes up and writes.
    successor = run_pack(pack, Worker(store, file.sweep.placement, launch_id="successor"))
    for _ in range(10):
        next(successor)
    mine = {key for key in keys_of(store, "/checkpoint/") if "/000002-" in key}
    assert mine
    next(stale)
    # The successor itself may be writing one more, which leaves the newest of these.
    assert max(mine) in keys_of(store, "/checkpoint/"), "the stale worker deletes none of its successor's"
    # The stale worker gets to the end first.
    words = list(stale)
    assert words[-1].committed == ()
    assert words[-1].warning is None or "taken over" in words[-1].warning
    assert not store.exists(record_key(trial.trial_id))
    assert keys_of(store, "/weights-") == []
    assert list(successor)[-1].committed == (trial.trial_id,)
    record = read_record(store, trial.trial_id)
    assert record is not None
    assert (record.provenance.launch_id, record.provenance.generation) == ("successor", 2)
    assert launch(file, store, runner="local").num_trained == 0
    assert_same_tables(store, whole)


@pytest.mark.long
def test_a_worker_that_wakes_up_after_its_successor_has_committed_changes_nothing(
    store: Store, trifeature_root: Path
) -> None:
    """Guard: a record is created only if there is none; the second worker deletes its own weights again."""
    overrides = (*LONG, "teacher=null", "distillation=null", "grid.temperature=null")
    file = tiny_sweep(trifeature_root, *overrides)
    (pack,) = plan(file, store).packs
    (trial,) = pack.trials
    stale = run_pack(pack, Worker(store, file.sweep.placement, launch_id="stale"))
    for _ in range(5):
        next(stale)
    _let_the_lease_run_out(store, trial.trial_id)
    assert launch(file, store, runner="local").exit_code == 0
    before = {key: store.get(key) for key in keys_of(store, "/weights-") + keys_of(store, "record.parquet")}
    assert len(before) == 2
    assert list(stale)[-1].committed == (trial.trial_id,), "it is complete, whichever worker trained it"
    assert {key: store.get(key) for key in keys_of(store, "/weights-") + keys_of(store, "record.parquet")} == before


def _let_the_lease_run_out(store: Store, trial_id: str) -> None:
    """As if its holder, on another host, had not renewed it for long."""
    key = lease_key(trial_id, 1)
    lease = Lease.from_json(store.get(key) or b"")
    long_ago = datetime.now(UTC) - timedelta(minutes=10)
    store.put(key, replace(lease, boot_id="another host", renewed_at=long_ago).to_json())
    set_written(store, key, 600)


# --- shared cells, hungry trials ------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_two_sweeps_with_common_cells_at_the_same_time_train_them_once(tmp_path: Path, trifeature_root: Path) -> None:
    """Guard: the lease. Both end well, and the tables of both show all cells."""
    store = open_store(tmp_path / "store")
    files = []
    for name, temperatures in (("one", "[1, 4]"), ("two", "[4, 8]")):
        folder = tmp_path / name
        folder.mkdir()
        overrides = (f"name={name}", f"grid.temperature={temperatures}", "training.epochs=10")
        files.append(write_tiny_sweep(folder, trifeature_root, *overrides))
    arguments = [("launch", str(file), "--store", store.url, "--runner", "local") for file in files]
    with started(*arguments[0], cwd=tmp_path) as first, started(*arguments[1], cwd=tmp_path) as second:
        outputs = [output_of(process, timeout_s=240) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    rows = Results(store).query(
        "SELECT sweep, count(*) AS n, count(DISTINCT trial_id) AS d FROM trials GROUP BY 1 ORDER BY 1"
    )
    assert rows.to_pylist() == [{"sweep": "one", "n": 7, "d": 7}, {"sweep": "two", "n": 7, "d": 7}]
    assert len(keys_of(store, "record.parquet")) == len(keys_of(store, "/weights-")) == 9
    both = "SELECT trial_id, loss, launch_id FROM trials WHERE sweep = '{}' AND temperature = 4 ORDER BY 1"
    assert Results(store).query(both.format("one")).equals(Results(store).query(both.format("two")))


HUNGRY = 5.0
"""Temperature of the trial that kills its worker."""


class _HungryWorker(SyntheticWorker):
    """Ends its own process as the kernel does when memory is short, as soon as it trains the hungry trial."""

    def begin(self, specs: Sequence[TrialSpec], load_state: LoadState, on_failure: OnFailure) -> PackTraining:
        if any(spec.temperature == HUNGRY for spec in specs):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().begin(specs, load_state, on_failure)


def hungry_worker(context: LaunchContext) -> PackWorker:
    return _HungryWorker(context.store, context.placement, context.launch_id)


@pytest.mark.long
@pytest.mark.ray
def test_a_trial_that_eats_the_memory_costs_only_itself(store: Store, trifeature_root: Path) -> None:
    """Guard: a pack whose worker dies comes back in halves until the hungry trial is alone; then that one alone is given up."""
    file = synthetic_sweep(11, str(trifeature_root))
    report = launch(file, store, runner=RayRunner(placement=file.sweep.placement, worker=hungry_worker))
    assert report.exit_code == 1
    assert report.counts() == {"complete": 10, "running": 0, "failed": 1, "interrupted": 0, "pending": 0}
    (failed,) = [trial for trial in report.trials if trial.state == TrialState.FAILED]
    assert "T=5" in failed.description
    assert failed.why.startswith("WorkerDied: its worker process died (killed, or out of memory) (")
    retries = Results(store).query("SELECT temperature, retries FROM trials WHERE role = 'distilled' ORDER BY 1")
    # Nine temperatures: 1–5 and 6–9, then 1–3 and 4–5, then 4 and 5.
    assert retries["retries"].to_pylist() == [2, 2, 2, 3, 1, 1, 1, 1]
    assert any("WorkerDied" in warning for warning in report.warnings)
    # With another worker, on request, it runs.
    again = launch(file, store, runner=LocalRunner(worker=synthetic_worker), retry_failed=True)
    assert (again.exit_code, again.num_trained) == (0, 1)


# --- launches side by side ------------------------------------------------------------------------------------------------------------


def test_a_launch_answers_for_the_trials_that_it_was_asked_for(tmp_path: Path, trifeature_root: Path) -> None:
    """Guard: the report is of the launch's own plan, not of the newest manifest, which another launch may have written."""
    wide, narrow = synthetic_sweep(21, str(trifeature_root)), synthetic_sweep(11, str(trifeature_root))

    class Shared(Store):
        is_first = True

        def put_new(self, key: str, data: bytes, *, durable: bool = False) -> bool:
            if key.endswith("record.parquet") and Shared.is_first:
                Shared.is_first = False
                write_manifest(self, narrow.sweep, plan(narrow, None).planned, sweep_yaml=narrow.to_yaml(), weights={})
            return super().put_new(key, data, durable=durable)

    report = launch(wide, Shared(str(tmp_path / "store")), runner=LocalRunner(worker=synthetic_worker))
    assert (report.exit_code, len(report.trials), report.num_trained) == (0, 21, 21)


def test_an_aggregation_ends_while_another_launch_keeps_committing(tmp_path: Path, trifeature_root: Path) -> None:
    """Guard: an aggregation looks a bounded number of times; an interrupted launch would not stop otherwise."""
    file = synthetic_sweep(11, str(trifeature_root))
    whole = open_store(tmp_path / "whole")
    assert launch(file, whole, runner=LocalRunner(worker=synthetic_worker)).exit_code == 0
    records = keys_of(whole, "record.parquet")

    class Busy(Store):
        def put(self, key: str, data: bytes, *, durable: bool = False) -> str:
            if key.startswith("tables/trials/") and records:
                committed = records.pop()
                self.put_new(committed, whole.get(committed) or b"")
            return super().put(key, data, durable=durable)

    busy = Busy(str(tmp_path / "busy"))
    for key in [*keys_of(whole, "datasets/"), *keys_of(whole, "manifest/"), records.pop()]:
        busy.put_new(key, whole.get(key) or b"")
    assert aggregate(busy, "synthetic").num_trials == 3
    assert len(records) == 7


class _NamedWorker(Worker):
    """Keeps the specs of the pack that it trains."""

    specs: Sequence[TrialSpec] = ()

    def begin(self, specs: Sequence[TrialSpec], load_state: LoadState, on_failure: OnFailure) -> PackTraining:
        type(self).specs = specs
        return super().begin(specs, load_state, on_failure)


def named_worker(context: LaunchContext) -> PackWorker:
    return _NamedWorker(context.store, context.placement, launch_id=context.launch_id)


@pytest.mark.long
def test_a_trial_that_became_nan_by_accident_completes_on_request(
    store: Store, undisturbed: Store, trifeature_root: Path
) -> None:
    """Guard: a trial that failed on a number that is none begins anew; its last checkpoint holds the spoilt weights."""
    steps = [0]

    def spoil(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if [(spec.role, spec.seed) for spec in _NamedWorker.specs] == [("scratch", 0)]:
            steps[0] += 1
            # The last step of the second epoch: the loss is still finite, and a checkpoint follows.
            if steps[0] == 20:
                with torch.no_grad():
                    optimizer.param_groups[0]["params"][0].fill_(float("nan"))

    file, runner = tiny_sweep(trifeature_root), LocalRunner(worker=named_worker)
    hook = register_optimizer_step_post_hook(spoil)
    try:
        report = launch(file, store, runner=runner)
        assert (report.exit_code, report.counts()["failed"]) == (1, 1)
        assert steps[0] >= 20
        assert launch(file, store, runner=runner, retry_failed=True).exit_code == 0
    finally:
        hook.remove()
    assert steps[0] >= 50, "the retry begins with the first step"
    assert_same_tables(store, undisturbed)


class _BrokenTeacher(torch.nn.Module):
    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no forward pass today")


class _WorkerOfABrokenTeacher(Worker):
    def teacher(self, *_: Any, **__: Any) -> Teacher:
        return Teacher(_BrokenTeacher())


def worker_of_a_broken_teacher(context: LaunchContext) -> PackWorker:
    return _WorkerOfABrokenTeacher(context.store, context.placement, launch_id=context.launch_id)


def test_a_teacher_that_cannot_go_on_costs_its_students_only(store: Store, trifeature_root: Path) -> None:
    """Guard: the teacher's forward pass stands in a `try` of its own."""
    runner = LocalRunner(worker=worker_of_a_broken_teacher)
    report = launch(tiny_sweep(trifeature_root), store, runner=runner)
    assert report.exit_code == 1
    assert report.counts() == {"complete": 3, "running": 0, "failed": 4, "interrupted": 0, "pending": 0}
    assert all("no forward pass today" in trial.why for trial in report.trials if trial.state == TrialState.FAILED)
