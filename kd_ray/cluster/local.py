"""Runs packs one after another in this process, without Ray: for debugging, and for a first cell."""

from types import TracebackType
from typing import Self

from kd_ray.cluster.queue import PackQueue
from kd_ray.cluster.runner import Interrupts, Job, Observer
from kd_ray.distill.pack import run_pack
from kd_ray.distill.worker import Worker


class LocalRunner:
    """See the module."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def run(self, queue: PackQueue, job: Job, observer: Observer, interrupts: Interrupts) -> None:
        """Run the packs in the order of the queue."""
        worker = Worker(job.store, job.placement, launch_id=job.launch_id)
        while not interrupts.requested() and (pack := queue.take()) is not None:
            observer.started(pack)
            steps = run_pack(pack, worker)
            try:
                for progress in steps:
                    observer.progressed(progress)
                    if progress.done:
                        queue.end(pack, committed=progress.committed, failed=progress.failed, crashed=False)
                        observer.ended(pack, len(progress.committed), len(progress.failed))
                    elif interrupts.requested():
                        break
            finally:
                steps.close()
