"""Out of memory: Ray's monitor ends a worker that takes too much, a pack that is too large is halved, and the sweep continues."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from kd_ray.cluster.launch import launch
from kd_ray.cluster.local import LocalRunner
from kd_ray.cluster.ray_tune.ray_runner import RayRunner
from kd_ray.cluster.runner import LaunchContext
from kd_ray.distill.worker_protocol import LoadState, OnFailure, PackTraining, PackWorker
from kd_ray.results.query import Results
from kd_ray.results.store import Store
from kd_ray.sweep.spec import TrialSpec, TrialState
from tests.benchmarks.synthetic import SyntheticWorker, packs_of_ten, synthetic_sweep, synthetic_worker
from tests.limits import memory_cgroup

pytestmark = pytest.mark.alone

GREED_BYTES = 5 << 30
"""What the worker takes."""
REST_BYTES = 3 << 30
"""What is free below the threshold when Ray starts; Ray and its workers take one to two GiB of it."""


def greedy_worker(context: LaunchContext) -> PackWorker:
    """The first worker of the sweep takes memory until it is ended."""
    if context.store.put_new("greedy", str(os.getpid()).encode()):
        taken = np.ones(GREED_BYTES // 8)
        threading.Event().wait(120)
        del taken
    return synthetic_worker(context)


GROUP = "KD_RAY_TEST_CGROUP"
LIMIT_BYTES = 200 << 20


class _LimitedWorker(SyntheticWorker):
    """Enters a group with a limit, and takes more, as soon as it trains the hungry trial."""

    def begin(self, specs: Sequence[TrialSpec], load_state: LoadState, on_failure: OnFailure) -> PackTraining:
        if any(spec.temperature == 2.0 for spec in specs):
            Path(os.environ[GROUP]).write_text(str(os.getpid()))
            self.taken = np.ones(4 * LIMIT_BYTES // 8)
        return super().begin(specs, load_state, on_failure)


def limited_worker(context: LaunchContext) -> PackWorker:
    """A worker of a container with little memory."""
    return _LimitedWorker(context.store, context.placement, context.launch_id)


@pytest.mark.long
@pytest.mark.ray
def test_a_limit_of_a_control_group_ends_one_trial_and_the_sweep_can_go_on(
    store: Store, trifeature_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: a process that the kernel ends is told from an error, and named; with more memory the same sweep completes."""
    file = synthetic_sweep(11, str(trifeature_root))
    with memory_cgroup(LIMIT_BYTES) as procs:
        monkeypatch.setenv(GROUP, str(procs))
        report = launch(file, store, runner=RayRunner(placement=file.sweep.placement, worker=limited_worker))
    assert report.exit_code == 1
    (failed,) = [trial for trial in report.trials if trial.state == TrialState.FAILED]
    assert "T=2" in failed.description
    assert failed.why.startswith("WorkerDied: its worker process died (killed, or out of memory)")
    assert report.counts()["complete"] == 10
    again = launch(file, store, runner=LocalRunner(worker=synthetic_worker), retry_failed=True)
    assert (again.exit_code, again.num_trained) == (0, 1)


def _memory_bytes() -> tuple[int, int]:
    """(total, available) of this machine."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemTotal"].split()[0]) * 1024, int(lines["MemAvailable"].split()[0]) * 1024


@pytest.mark.long
@pytest.mark.ray
def test_a_worker_that_ray_ends_for_its_memory_costs_only_a_retry(
    store: Store, trifeature_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards: the cause is told by Ray's exception, and the pack continues."""
    total, available = _memory_bytes()
    if available < GREED_BYTES + REST_BYTES:
        pytest.skip(f"needs {(GREED_BYTES + REST_BYTES) >> 30} GiB of free memory")
    monkeypatch.setenv("RAY_memory_usage_threshold", str(round(1 - (available - REST_BYTES) / total, 4)))
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "50")
    file = packs_of_ten(21, str(trifeature_root))
    report = launch(file, store, runner=RayRunner(placement=file.sweep.placement, worker=greedy_worker))
    assert store.exists("greedy")
    assert (report.exit_code, report.num_trained) == (0, 21), report.warnings
    assert any("the node was running out of memory" in warning for warning in report.warnings), report.warnings


@pytest.mark.long
def test_a_pack_that_is_too_large_for_the_memory_goes_on_in_halves(store: Store, tmp_path: Path) -> None:
    """Guards: torch's error is known for what it is, the process lives, nothing counts as a death, and no trial fails."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.starving", store.url, str(tmp_path / "data"), "330"],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["exit_code"] == 0, said["warnings"]
    assert any("x8 is too large: " in warning and "can't allocate memory" in warning for warning in said["warnings"]), (
        said["warnings"]
    )
    trials = Results(store).query("SELECT pack_size, retries FROM trials WHERE role = 'distilled'").to_pylist()
    assert len(trials) == 8
    assert {trial["retries"] for trial in trials} == {0}
    assert max(trial["pack_size"] for trial in trials) < 8
