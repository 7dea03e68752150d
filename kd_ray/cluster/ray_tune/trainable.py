"""One Ray actor, which trains pack after pack."""

import gc
import signal
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

from ray import tune

from kd_ray import telemetry
from kd_ray.cluster.ray_tune.prometheus import RayMetrics, watch_gpu
from kd_ray.cluster.ray_tune.trial_chunks import TrialChunks
from kd_ray.cluster.runner import LaunchContext, WorkerFactory
from kd_ray.distill.pack_run import run_pack
from kd_ray.distill.worker_protocol import PackProgress, PackWorker
from kd_ray.errors import StoreError

ENDED = "ended"
"""Key of a result after which the pack is over, although Tune still counts it as running (see `PackTrainable.step`)."""
_GRACE_S = 30
"""Longest time for the running step after SIGTERM; clouds and Kubernetes give a machine about this much before they stop it."""


@contextmanager
def no_collection() -> Iterator[None]:
    """Garbage collection is off inside: its scans take a third of the time of torch's import."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class PackTrainable(tune.Trainable):
    """One Ray actor, which trains pack after pack.

    An exception that ends a pack becomes the pack's last result, with its traceback, and the actor stays alive. SIGTERM ends the actor
    after the running step, and checkpoints are written first: no training is lost when a machine is shut down with notice.
    """

    def setup(  # type: ignore[override]  # with_parameters adds the others
        self, config: dict[str, Any], context: LaunchContext, trial_chunks: TrialChunks, worker: WorkerFactory
    ) -> None:
        """Called once per actor."""
        self._context = context
        self._trial_chunks = trial_chunks
        self._make_worker = worker
        self._worker: PackWorker | None = None
        self._steps: Generator[PackProgress, None, None] | None = None
        self._is_in_step = False
        self._has_sigterm = False
        self._ray_handler = signal.signal(signal.SIGTERM, self._on_sigterm)
        """Ray's own handler: it ends the process and reports the reason."""
        telemetry.measure_into(RayMetrics())
        telemetry.log_as(context.log_format)
        telemetry.work_on(sweep=context.sweep)
        self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        """Take a pack. Teachers and students share an actor only where both ask for the same resources."""
        self._pack = self._trial_chunks.pack(config)
        self._final_result: dict[str, Any] | None = None
        telemetry.work_on(trial_ids=[trial.trial_id for trial in self._pack.trials])

    def step(self) -> dict[str, Any]:
        """Train for about a second, or one epoch.

        The last result of a teacher is returned twice, first with `ENDED` instead of `done`. Tune stops an actor when no pack waits for
        one. The students of this teacher may start after the first of the two results, so one of them gets this actor.
        """
        if self._final_result is not None:
            return self._final_result
        self._is_in_step = True
        result = self._step()
        self._is_in_step = False
        if self._has_sigterm and not result["done"]:
            self._exit()
        if result["done"] and self._pack.is_teacher and "cause" not in result:
            self._final_result = result
            return {**result, "done": False, ENDED: True}
        return result

    def _step(self) -> dict[str, Any]:
        try:
            if self._worker is None:
                placement = self._context.placement.of(is_teacher=self._pack.is_teacher)
                with no_collection():
                    self._worker = self._make_worker(replace(self._context, placement=placement))
            if self._steps is None:
                most = self._context.most_students.get(self._worker.device_name)
                self._steps = run_pack(self._pack, self._worker, most=most)
            progress = next(self._steps)
            watch_gpu(self._worker.placement)
        except Exception as error:  # noqa: BLE001 (the driver counts and reports it)
            return {
                "progress": PackProgress(epoch=0, epochs=0, done=True),
                "done": True,
                "cause": f"{type(error).__name__}: {error}",
                "store": isinstance(error, StoreError),
                "traceback": traceback.format_exc(),
            }
        return {"progress": progress, "done": progress.done}

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        # Ray may send it twice.
        if self._has_sigterm:
            return
        self._has_sigterm = True
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_GRACE_S)
        # A checkpoint can be written only between two steps.
        if not self._is_in_step:
            self._exit()

    def _exit(self) -> None:
        self.cleanup()
        assert callable(self._ray_handler)
        self._ray_handler(signal.SIGTERM, None)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next pack in the same actor."""
        if self._has_sigterm:
            self._exit()
        self.cleanup()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """End the pack. If it was stopped early, checkpoints are written and leases are released."""
        if self._steps is not None:
            self._steps.close()
        self._steps = None
