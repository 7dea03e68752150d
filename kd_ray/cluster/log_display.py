"""Monitoring of a launch: measurements for Prometheus, and log lines."""

import logging
import threading
import time
from collections.abc import Collection
from typing import Self

from kd_ray import telemetry
from kd_ray.cluster.display import LINE_EVERY_S, QuietDisplay, SweepProgress
from kd_ray.distill.worker_protocol import PackProgress
from kd_ray.results.launch_plan import Plan
from kd_ray.sweep.packs import Pack
from kd_ray.sweep.plan import PlannedTrial

logger = logging.getLogger("kd_ray")

_MEASURE_EVERY_S = 2.0
"""Ray exports each value of a gauge only once, so gauges are set at this interval, also while no pack reports."""


class SweepMetrics:
    """Measurements of a whole sweep for Prometheus, from the events of its packs."""

    def __init__(self) -> None:
        self._progress = SweepProgress()
        self._began_at = time.monotonic()
        self._num_completed = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_measuring, name="kd_ray-metrics", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def begin(self, plan: Plan, todo: Collection[PlannedTrial]) -> None:
        """Start measuring, if there are trials to run."""
        with self._lock:
            self._progress.begin(plan, todo)
        if todo and not self._thread.is_alive():
            self._began_at = time.monotonic()
            self._thread.start()

    def started(self, pack: Pack) -> None:
        """A worker has begun a pack."""
        with self._lock:
            self._progress.started(pack)

    def progressed(self, pack: Pack, progress: PackProgress) -> None:
        """A running pack reports its progress."""
        with self._lock:
            self._progress.progressed(pack, progress)

    def ended(self, pack: Pack, committed: int, failed: int) -> None:
        """A pack has ended, with these numbers of complete and failed trials."""
        with self._lock:
            self._progress.ended(pack, committed, failed)
            self._num_completed += committed
        telemetry.record(telemetry.TRIALS_ENDED, committed, outcome="complete")
        telemetry.record(telemetry.TRIALS_ENDED, failed, outcome="failed")

    def _keep_measuring(self) -> None:
        while not self._stop.wait(_MEASURE_EVERY_S):
            with self._lock:
                progress = self._progress
                states = {
                    "complete": progress.complete,
                    "running": progress.num_running,
                    "pending": progress.pending,
                    "failed": progress.failed,
                }
                images_per_s = progress.images_per_s
                hours = (time.monotonic() - self._began_at) / 3600
            for state, count in states.items():
                telemetry.record(telemetry.TRIALS, count, state=state)
            telemetry.record(telemetry.IMAGES_PER_S, images_per_s)
            telemetry.record(telemetry.TRIALS_PER_HOUR, self._num_completed / hours)


class LogDisplay(QuietDisplay):
    """Writes one log line per event, for log collectors."""

    def __init__(self) -> None:
        self._logged_at: dict[str, float] = {}

    def begin(self, plan: Plan, todo: Collection[PlannedTrial]) -> None:
        logger.info("sweep %s: %d trials, %d to run", plan.sweep, len(plan.trials), len(todo))

    def nothing_to_run(self, sweep: str, num_trials: int) -> None:
        logger.info("sweep %s: %d trials, 0 to run", sweep, num_trials)

    def waiting(self, num_held: int) -> None:
        if self._is_due("waiting"):
            logger.info("waiting for %d trials that another launch holds", num_held)

    def warn(self, warning: str) -> None:
        logger.warning("%s", warning)

    def started(self, pack: Pack) -> None:
        logger.info("pack %s has a worker", pack.pack_id, extra=_of(pack))

    def progressed(self, pack: Pack, progress: PackProgress) -> None:
        if not progress.done and self._is_due(pack.pack_id):
            words = "pack %s: epoch %d of %d, %.0f images/s"
            logger.info(words, pack.pack_id, progress.epoch, progress.epochs, progress.images_per_s, extra=_of(pack))

    def ended(self, pack: Pack, committed: int, failed: int) -> None:
        self._logged_at.pop(pack.pack_id, None)
        logger.info("pack %s ended: %d complete, %d failed", pack.pack_id, committed, failed, extra=_of(pack))

    def _is_due(self, what: str) -> bool:
        """Whether `LINE_EVERY_S` has passed since the last line of this kind; if so, the time starts again."""
        now = time.monotonic()
        if now - self._logged_at.get(what, -LINE_EVERY_S) < LINE_EVERY_S:
            return False
        self._logged_at[what] = now
        return True


def _of(pack: Pack) -> dict[str, list[str]]:
    return {"trial_ids": [trial.trial_id for trial in pack.trials]}
