"""Runs packs one after another in this process, without Ray: for debugging, and for a first cell."""

from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from kd_ray import telemetry
from kd_ray.cluster.queue import PackQueue
from kd_ray.cluster.runner import Interrupts, Job, Observer, WorkerFactory, probe_students, training_worker
from kd_ray.distill.pack_run import run_pack
from kd_ray.distill.worker_protocol import PackWorker
from kd_ray.results.probe import Probe
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.spec import TrialSpec


@dataclass(frozen=True, kw_only=True)
class LocalRunner:
    """See the module."""

    worker: WorkerFactory = training_worker
    """Makes the worker; benchmarks of the machinery give another one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def slots(self) -> int:
        """One: this process."""
        return 1

    def probe(self, spec: TrialSpec, placement: Placement) -> Probe:
        """See `Runner`."""
        return probe_students(spec, placement, 1)

    def run(self, queue: PackQueue, job: Job, observer: Observer, interrupts: Interrupts) -> None:
        """Run the packs in the order of the queue."""
        workers: dict[bool, PackWorker] = {}
        while not interrupts.requested() and (pack := queue.take()) is not None:
            observer.started(pack)
            key = pack.is_teacher and job.placement.teacher is not None
            if key not in workers:
                workers[key] = self.worker(replace(job, placement=job.placement.of(is_teacher=pack.is_teacher)))
            telemetry.work_on(trial_ids=[trial.trial_id for trial in pack.trials])
            steps = run_pack(pack, workers[key])
            try:
                for progress in steps:
                    observer.progressed(progress)
                    if progress.done:
                        queue.end(
                            pack,
                            committed=progress.committed,
                            failed=progress.failed,
                            crashed=False,
                            is_too_large=progress.is_too_large,
                        )
                        observer.ended(pack, len(progress.committed), len(progress.failed))
                    elif interrupts.requested():
                        break
            finally:
                steps.close()
                telemetry.work_on(trial_ids=())
