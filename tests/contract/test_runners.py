"""One suite for both runners, and what only Ray can show: kills."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest

from kd_ray.cli.text import launch_report
from kd_ray.cluster.interrupts import Interrupts
from kd_ray.cluster.launch import LaunchReport, launch, resume_file
from kd_ray.cluster.local import LocalRunner
from kd_ray.cluster.pack_queue import PackQueue
from kd_ray.cluster.ray_tune.ray_runner import RayRunner
from kd_ray.cluster.runner import LaunchContext, Observer
from kd_ray.distill.worker_protocol import LoadState, OnFailure, PackProgress, PackTraining, PackWorker
from kd_ray.errors import InvalidInputError
from kd_ray.results.inventory import take_inventory
from kd_ray.results.ledger import scan
from kd_ray.results.query import Results
from kd_ray.results.store import Store, open_store, record_key
from kd_ray.sweep.load import parse_sweep
from kd_ray.sweep.placement import cpu_count
from kd_ray.sweep.spec import Role, TrialSpec, TrialState
from tests.benchmarks.synthetic import SWEEP as SYNTHETIC
from tests.benchmarks.synthetic import SyntheticTraining, SyntheticWorker
from tests.processes import command_line, freeze_when, output_of, run_cli, session_pids, started, wait_until
from tests.sweeps import assert_same_tables, tiny_sweep, write_tiny_sweep

RunnerName = Literal["local", "ray"]
RUNNERS = [pytest.param("local"), pytest.param("ray", marks=pytest.mark.ray)]
LATER = [pytest.param("local"), pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.long])]
"""For what the Ray runner shares with the local one."""
LONG = ("training.epochs=40", "grid.temperature=[1, 2, 4, 8]")
"""Long enough to be killed in the middle."""


@pytest.fixture(scope="module")
def undisturbed(finished_tiny: Store) -> Store:
    """The tiny sweep, run once without a fault."""
    return finished_tiny


@pytest.fixture(scope="module")
def undisturbed_long(tmp_path_factory: pytest.TempPathFactory, trifeature_root: Path) -> Store:
    """The long form of it."""
    store = open_store(tmp_path_factory.mktemp("undisturbed_long"))
    assert launch(tiny_sweep(trifeature_root, *LONG), store, runner="local").exit_code == 0
    return store


def record_times(store: Store) -> dict[str, object]:
    return {item.key: item.modified_at for item in store.entries("trials") if item.key.endswith("record.parquet")}


def states(report: LaunchReport) -> dict[str, str]:
    return {trial.description: trial.state for trial in report.trials}


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_sweep_ends_complete_with_the_same_tables_on_every_runner(
    runner: RunnerName, store: Store, undisturbed: Store, trifeature_root: Path
) -> None:
    report = launch(tiny_sweep(trifeature_root), store, runner=runner)
    assert (report.exit_code, report.num_trained, len(report.trials)) == (0, 7, 7)
    assert_same_tables(store, undisturbed)
    # Packs of another size, in the same store's terms the same trials: nothing is left to do.
    before = record_times(store)
    again = launch(tiny_sweep(trifeature_root, "placement.pack_size=1"), store, runner=runner)
    assert (again.exit_code, again.num_trained) == (0, 0)
    assert record_times(store) == before


@pytest.mark.parametrize("runner", LATER)
def test_extending_a_grid_trains_only_the_new_cells(
    runner: RunnerName, store: Store, undisturbed: Store, trifeature_root: Path
) -> None:
    launch(tiny_sweep(trifeature_root, "grid.seed=[0]", "grid.temperature=[1]"), store, runner="local")
    before = record_times(store)
    # The second launch chooses the size of its packs by a measurement on a worker: no number depends on it.
    report = launch(tiny_sweep(trifeature_root, "placement.pack_size=auto"), store, runner=runner)
    after = record_times(store)
    assert (len(before), len(after), report.num_trained) == (3, 7, 4)
    assert len(list(store.entries("probes"))) == 1
    assert {key: after[key] for key in before} == before
    # Positions differ, because the first cells came first; the rows are the same.
    trials = Results(store).query("SELECT trial_id, accuracy, loss FROM trials ORDER BY trial_id")
    assert trials.equals(Results(undisturbed).query("SELECT trial_id, accuracy, loss FROM trials ORDER BY trial_id"))


@pytest.mark.long
@pytest.mark.parametrize("runner", RUNNERS)
def test_teachers_may_ask_for_other_resources_than_students(
    runner: RunnerName, store: Store, trifeature_root: Path
) -> None:
    if cpu_count() < 2:
        pytest.skip("needs two CPUs")
    asked = ("placement.teacher.cpus_per_pack=2", "placement.teacher.memory_gb_per_pack=0.1")
    report = launch(tiny_sweep(trifeature_root, *asked, "grid.temperature=[4]"), store, runner=runner)
    assert report.exit_code == 0
    threads = Results(store).query("SELECT DISTINCT role, threads FROM trials ORDER BY role").to_pylist()
    expected = {"distilled": 1, "scratch": 1, "teacher": 2}
    assert threads == [{"role": role, "threads": number} for role, number in expected.items()]


class _NamedWorker(SyntheticWorker):
    """Trains nothing; a record's device is the process that made it. A teacher takes as long as two scratch students, two others meet."""

    def begin(self, specs: Sequence[TrialSpec], load_state: LoadState, on_failure: OnFailure) -> PackTraining:
        self.device_name = str(os.getpid())
        super().begin(specs, load_state, on_failure)
        awaited = {
            Role.TEACHER: lambda: len(record_times(self.store)) == 2,
            Role.SCRATCH: lambda: True,
            Role.DISTILLED: lambda: len(take_inventory(self.store, "trials").trials) == 5,
        }
        return _WaitingTraining(list(specs), self._labels_N, awaited[specs[0].role])


def _named_worker(context: LaunchContext) -> PackWorker:
    return _NamedWorker(context.store, context.placement, context.launch_id)


class _WaitingTraining(SyntheticTraining):
    """Trains until something has happened."""

    def __init__(
        self, specs: list[TrialSpec], labels_N: npt.NDArray[np.int64], has_happened: Callable[[], bool]
    ) -> None:
        super().__init__(specs, labels_N)
        self._has_happened = has_happened

    def fit(self) -> Iterator[PackProgress]:
        (progress,) = super().fit()
        while not self._has_happened():
            yield progress
        yield progress


@pytest.mark.long
@pytest.mark.ray
def test_processes_that_have_nothing_to_do_until_their_teacher_is_there_are_kept(
    store: Store, trifeature_root: Path
) -> None:
    """Guard: on two slots, students begin in the two processes that have imported everything already."""
    overrides = ["grid.seed=[0, 1]", f"placement.data_root={trifeature_root}"]
    file = parse_sweep(SYNTHETIC, source="synthetic.yaml", overrides=overrides)
    runner = RayRunner(placement=file.sweep.placement, worker=_named_worker, num_cpus=2)
    report = launch(file, store, runner=runner)
    assert (report.exit_code, report.num_trained) == (0, 5), report.warnings
    devices = Results(store).query("SELECT role, device FROM trials").to_pylist()
    assert len({row["device"] for row in devices if row["role"] == "distilled"}) == 2
    assert len({row["device"] for row in devices}) == 2


@pytest.mark.ray
def test_a_pack_that_fits_nowhere_is_refused_with_what_there_is(store: Store, trifeature_root: Path) -> None:
    file = tiny_sweep(trifeature_root, 'placement.teacher.resources_per_pack={"a100": 1}')
    with pytest.raises(
        InvalidInputError, match=r"placement\.teacher: a pack asks for 1 CPUs, 0 GPUs, 1 a100, which no node has"
    ):
        launch(file, store)
    assert list(store.entries("sweeps")) == []


@pytest.mark.parametrize("runner", LATER)
def test_one_failing_trial_costs_only_itself(runner: RunnerName, store: Store, trifeature_root: Path) -> None:
    overrides = (
        "training.optimizer.lr=null",
        "grid.training.optimizer.lr=[0.02, 1e30]",
        "grid.seed=[0]",
        "grid.temperature=[4]",
    )
    report = launch(tiny_sweep(trifeature_root, *overrides), store, runner=runner)
    assert report.exit_code == 1
    assert report.counts()[TrialState.COMPLETE] == 3
    failed = [trial for trial in report.trials if trial.state == TrialState.FAILED]
    assert len(failed) == 2
    assert all("NonFiniteLossError" in trial.why and "in epoch 1" in trial.why for trial in failed)
    assert all("Traceback" in (trial.traceback or "") for trial in failed)
    # Failed trials are retried only on request; then they fail again, and the others are left alone.
    before = record_times(store)
    errors = {trial.trial_id: store.get(f"trials/{trial.trial_id}/error.json") for trial in failed}
    assert launch(tiny_sweep(trifeature_root, *overrides), store, runner="local").exit_code == 1
    assert {trial_id: store.get(f"trials/{trial_id}/error.json") for trial_id in errors} == errors
    assert launch(tiny_sweep(trifeature_root, *overrides), store, runner="local", retry_failed=True).exit_code == 1
    assert all(store.get(f"trials/{trial_id}/error.json") != error for trial_id, error in errors.items())
    assert record_times(store) == before


@pytest.mark.parametrize("runner", LATER)
def test_a_failing_teacher_blocks_its_students_and_nothing_hangs(
    runner: RunnerName, store: Store, trifeature_root: Path
) -> None:
    report = launch(tiny_sweep(trifeature_root, "teacher.training.optimizer.lr=1e30"), store, runner=runner)
    assert report.exit_code == 1
    assert report.counts() == {"complete": 2, "running": 0, "failed": 1, "interrupted": 0, "pending": 4}
    assert all("blocked: its teacher" in trial.why for trial in report.trials if trial.state == TrialState.PENDING)


def test_only_runs_one_trial_and_its_teacher(store: Store, trifeature_root: Path) -> None:
    from kd_ray.results.launch_plan import plan

    file = tiny_sweep(trifeature_root)
    wanted = plan(file, store).planned[-1]
    report = launch(file, store, runner="local", only=wanted.trial_id[:10])
    assert wanted.spec.teacher
    assert {trial.trial_id for trial in report.trials} == {wanted.trial_id, wanted.spec.teacher.trial_id}
    assert report.counts()[TrialState.COMPLETE] == 2
    assert len(record_times(store)) == 2


def test_resume_needs_no_sweep_file(store: Store, undisturbed: Store, trifeature_root: Path) -> None:
    from kd_ray.results.launch_plan import plan

    file = tiny_sweep(trifeature_root)
    launch(file, store, runner="local", only=plan(file, store).planned[0].trial_id)
    resumed, weights = resume_file(store, "tiny")
    assert launch(resumed, store, runner="local", weights=weights).exit_code == 0
    assert_same_tables(store, undisturbed)


def has_checkpoint(store: Store) -> bool:
    return any("/checkpoint/" in item.key for item in store.entries("trials"))


def num_complete(store: Store) -> int:
    return len(record_times(store))


def in_the_middle(store: Store) -> set[str]:
    """Trials with a checkpoint and no record; that of a finished trial outlives its record by a moment."""
    keys = [item.key for item in store.entries("trials")]
    complete = {key.split("/")[1] for key in keys if key.endswith("record.parquet")}
    return {key.split("/")[1] for key in keys if "/checkpoint/" in key} - complete


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.parametrize("runner", ["local", "ray"])
def test_a_killed_driver_followed_by_launch_finishes_with_the_same_tables(
    runner: str, tmp_path: Path, undisturbed_long: Store, trifeature_root: Path
) -> None:
    """SIGKILL of the driver alone, while students are in the middle; Ray's workers are left to find out by themselves."""
    file = write_tiny_sweep(tmp_path, trifeature_root, *LONG)
    store = open_store(tmp_path / "store")
    arguments = ("launch", str(file), "--store", str(tmp_path / "store"), "--runner", runner)
    with started(*arguments, cwd=tmp_path) as process:
        freeze_when(lambda: num_complete(store) >= 2 and bool(in_the_middle(store)), process)
        os.kill(process.pid, signal.SIGKILL)
        done = set(record_times(store))
        assert len(done) < 11
        with started(*arguments, cwd=tmp_path) as second:
            output = output_of(second, timeout_s=240)
    assert second.returncode == 0, output
    assert_same_tables(store, undisturbed_long)
    if runner == "local":  # Ray's workers may have ended a student before they found out.
        restarts = Results(store).query("SELECT max(restarts) AS n FROM trials")["n"].to_pylist()[0]
        assert restarts >= 1


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_with_checkpoints_and_says_how_to_go_on(
    number: signal.Signals, tmp_path: Path, undisturbed_long: Store, trifeature_root: Path
) -> None:
    file = write_tiny_sweep(tmp_path, trifeature_root, *LONG, "placement.checkpoint_interval_s=3600")
    store = open_store(tmp_path / "store")
    with started("launch", str(file), "--store", str(tmp_path / "store"), cwd=tmp_path) as process:
        wait_until(lambda: num_complete(store) >= 1, process)
        os.kill(process.pid, number)
        output = output_of(process, timeout_s=60)
    assert process.returncode == 130, output
    assert output.splitlines()[-1].startswith("interrupted; continue with:  kd-ray resume tiny --store ")
    # No checkpoint was due by time, so these were written by the interrupt; no lease is left behind.
    assert has_checkpoint(store)
    file_, weights = resume_file(store, "tiny")
    from kd_ray.sweep.plan import expand

    ids = [trial.trial_id for trial in expand(file_, lambda path: "")]
    assert TrialState.RUNNING not in {status.state for status in scan(store, ids).values()}
    tables_hold = Results(store).query("SELECT count(*) AS n FROM trials")["n"].to_pylist()[0]
    assert tables_hold == num_complete(store)
    assert launch(file_, store, runner="local", weights=weights).exit_code == 0
    assert_same_tables(store, undisturbed_long)


@pytest.mark.long
def test_a_second_interrupt_stops_at_once_and_loses_nothing(
    tmp_path: Path, undisturbed_long: Store, trifeature_root: Path
) -> None:
    file = write_tiny_sweep(tmp_path, trifeature_root, *LONG)
    store = open_store(tmp_path / "store")
    with started("launch", str(file), "--store", str(tmp_path / "store"), "--runner", "local", cwd=tmp_path) as process:
        wait_until(lambda: num_complete(store) >= 1 and has_checkpoint(store), process)
        os.kill(process.pid, signal.SIGINT)
        os.kill(process.pid, signal.SIGINT)
        output = output_of(process, timeout_s=60)
    assert process.returncode == 130, output
    assert output.splitlines()[-1].startswith(
        ("stopped at once; no committed trial is lost", "interrupted; continue with")
    )
    assert launch(tiny_sweep(trifeature_root, *LONG), store, runner="local").exit_code == 0
    assert_same_tables(store, undisturbed_long)


@pytest.mark.long
@pytest.mark.ray
def test_a_killed_worker_is_replaced_within_the_same_launch(
    tmp_path: Path, undisturbed_long: Store, trifeature_root: Path
) -> None:
    file = write_tiny_sweep(tmp_path, trifeature_root, *LONG)
    store = open_store(tmp_path / "store")
    with started("launch", str(file), "--store", str(tmp_path / "store"), cwd=tmp_path) as process:
        wait_until(lambda: has_checkpoint(store), process)
        workers = [pid for pid in session_pids(process.pid) if "Trainable" in command_line(pid)]
        assert workers
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        output = output_of(process, timeout_s=240)
    assert process.returncode == 0, output
    assert_same_tables(store, undisturbed_long)


@pytest.mark.long
@pytest.mark.ray
def test_workers_do_not_import_what_lies_in_the_current_folder(tmp_path: Path, trifeature_root: Path) -> None:
    """Guard: `_InstalledCodeOnly`; every worker ran the script in place of the standard library's module, and died."""
    file = write_tiny_sweep(tmp_path, trifeature_root, "grid.seed=[0]", "grid.temperature=[1]")
    (tmp_path / "statistics.py").write_text("raise SystemExit('usage: statistics.py TABLE')\n")
    (tmp_path / "kd_ray" / "data").mkdir(parents=True)
    command = Path(sys.executable).with_name("kd-ray")
    done = subprocess.run(
        [command, "launch", str(file), "--store", "store"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "3 trained now" in done.stdout


@pytest.mark.ray
@pytest.mark.long
def test_the_error_of_a_worker_that_ends_itself_says_how(
    tmp_path: Path, trifeature_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: every trial failed as killed or out of memory, although a module said why it ended the process."""
    file = write_tiny_sweep(tmp_path, trifeature_root, "grid.seed=[0]", "grid.temperature=[1]")
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(
        "import sys\n\nif any('default_worker' in word for word in sys.orig_argv):\n"
        "    class Finder:\n        @staticmethod\n        def find_spec(name, path, target=None):\n"
        "            if name == 'kd_ray.distill.fit':\n                sys.exit('usage: fit.py TABLE')\n\n"
        "    sys.meta_path.insert(0, Finder)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(modules))
    done = run_cli("launch", str(file), "--store", "store", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "its worker process ended itself with 'usage: fit.py TABLE'" in done.stdout


@pytest.mark.long
def test_two_launches_at_once_train_every_trial_once(tmp_path: Path, undisturbed: Store, trifeature_root: Path) -> None:
    """Two drivers, one store, one sweep; the lease is the guard."""
    file = write_tiny_sweep(tmp_path, trifeature_root)
    store = open_store(tmp_path / "store")
    arguments = ("launch", str(file), "--store", str(tmp_path / "store"), "--runner", "local")
    with started(*arguments, cwd=tmp_path) as first, started(*arguments, cwd=tmp_path) as second:
        outputs = [output_of(process, timeout_s=240) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert_same_tables(store, undisturbed)
    weights = [item.key for item in store.entries("trials") if "/weights-" in item.key]
    assert len(weights) == 7, "a trial that was trained twice left two sets of weights"
    assert sum(int(n) for output in outputs for n in re.findall(r"(\d+) trained now", output)) == 7, outputs


def test_a_launch_does_not_count_what_another_one_trains_meanwhile(store: Store, trifeature_root: Path) -> None:
    """Guard: `_trained_elsewhere`; what became complete meanwhile was counted as trained."""
    file = tiny_sweep(trifeature_root)
    part = tiny_sweep(trifeature_root, "grid.seed=[0]")

    class Overtaken(LocalRunner):
        """Before this launch begins, another one trains some of its trials."""

        def run(self, queue: PackQueue, context: LaunchContext, observer: Observer, interrupts: Interrupts) -> None:
            if not open_store(store.url).exists(record_key(next(iter(queue.waiting)).trials[0].trial_id)):
                assert launch(part, store, runner="local").num_trained == 4
            super().run(queue, context, observer, interrupts)

    report = launch(file, store, runner=Overtaken())
    assert (report.exit_code, report.num_trained, report.num_trained_elsewhere) == (0, 3, 4)
    said = launch_report(report, Results(store), store=None)
    assert re.search(r"^sweep tiny: 7 of 7 trials complete, 3 trained now in \d+ s, 4 meanwhile by other", said, re.M)
