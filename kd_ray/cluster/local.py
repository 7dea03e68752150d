"""Runs packs one after another in this process, without Ray: for debugging, and to try one cell of a grid first."""

from dataclasses import dataclass, replace
from typing import Self

from kd_ray import telemetry
from kd_ray.cluster.interrupts import Interrupts
from kd_ray.cluster.pack_queue import PackQueue
from kd_ray.cluster.runner import LaunchContext, Observer, WorkerFactory, probe_students, training_worker
from kd_ray.distill.pack_run import run_pack
from kd_ray.distill.worker_protocol import PackWorker
from kd_ray.results.probe import Probe
from kd_ray.sweep.spec import TrialSpec


@dataclass(frozen=True, kw_only=True)
class LocalRunner:
    """The runner of this process."""

    worker: WorkerFactory = training_worker
    """Makes the worker; benchmarks of the scheduling use one that does not train."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def slots(self) -> int:
        """1: this process."""
        return 1

    def kinds(self) -> tuple[str, ...]:
        """See `Runner`."""
        return ("",)

    def notes(self) -> tuple[str, ...]:
        """See `Runner`."""
        return ()

    def probe(self, spec: TrialSpec, context: LaunchContext, kind: str) -> Probe:
        """See `Runner`."""
        del kind
        return probe_students(spec, context, 1)

    def run(self, queue: PackQueue, context: LaunchContext, observer: Observer, interrupts: Interrupts) -> None:
        """Run the packs in the order of the queue."""
        workers: dict[bool, PackWorker] = {}
        while not interrupts.requested() and (pack := queue.take()) is not None:
            observer.started(pack)
            uses_teacher_placement = pack.is_teacher and context.placement.teacher is not None
            if uses_teacher_placement not in workers:
                placement = context.placement.of(is_teacher=pack.is_teacher)
                workers[uses_teacher_placement] = self.worker(replace(context, placement=placement))
            telemetry.work_on(trial_ids=[trial.trial_id for trial in pack.trials])
            steps = run_pack(pack, workers[uses_teacher_placement])
            try:
                for progress in steps:
                    observer.progressed(pack, progress)
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
