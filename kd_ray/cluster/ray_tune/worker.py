"""One Ray actor: trains pack after pack."""

import gc
import pickle
import signal
import traceback
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import ray
from ray import tune

from kd_ray import telemetry
from kd_ray.cluster.ray_tune.metrics import RayMetrics, watch_gpu
from kd_ray.cluster.runner import Job, WorkerFactory
from kd_ray.distill.pack_run import PackProgress, run_pack
from kd_ray.distill.worker_protocol import PackWorker
from kd_ray.errors import StoreError
from kd_ray.sweep.plan import Pack, PlannedTrial

ENDED = "ended"
"""In a result that is to be booked as a pack's last one, although Tune does not know yet that it is."""
_TRIALS_PER_CHUNK = 500
_GRACE_S = 30
"""How long a worker that is told to end may take for the step it is in; about what clouds and Kubernetes give a machine that goes."""


@contextmanager
def _no_collection() -> Iterator[None]:
    """Within, no garbage is collected: looking for it among modules that are being imported is a third of torch's import."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Shelf:
    """The trials of a launch, in Ray's object store: a worker fetches the chunks it needs, and neither it nor Tune carries all of them."""

    def __init__(self, trials: Sequence[PlannedTrial]) -> None:
        """Trials of a chunk are pickled together, so that what they share is there once."""
        starts = range(0, len(trials), _TRIALS_PER_CHUNK)
        self._chunks = [ray.put(pickle.dumps(trials[i : i + _TRIALS_PER_CHUNK])) for i in starts]
        self._place = {trial.trial_id: i for i, trial in enumerate(trials)}
        """Place of each trial, known to the driver only."""
        self._open: tuple[int, Sequence[PlannedTrial]] = (-1, ())
        """The chunk that was read last, with its number; known to a worker only."""

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_place": {}}

    def order(self, pack: Pack) -> dict[str, Any]:
        """What Tune carries to a worker to name a pack."""
        places = " ".join(str(self._place[trial.trial_id]) for trial in pack.trials)
        return {
            "places": places,
            "retries": pack.retries,
            "crashes": pack.crashes,
            "is_teacher": pack.is_teacher,
        }

    def pack(self, order: Mapping[str, Any]) -> Pack:
        """The pack that was named."""
        trials = tuple(self._trial(int(place)) for place in order["places"].split())
        return Pack(trials=trials, retries=order["retries"], crashes=order["crashes"])

    def _trial(self, place: int) -> PlannedTrial:
        number, i = divmod(place, _TRIALS_PER_CHUNK)
        if self._open[0] != number:
            self._open = (number, pickle.loads(ray.get(self._chunks[number])))  # noqa: S301 (from our own driver)
        return self._open[1][i]


class PackTrainable(tune.Trainable):
    """One Ray actor: trains pack after pack.

    An exception that ends a pack is its last result, with its traceback, and leaves the actor alive. SIGTERM ends the actor after its step,
    with checkpoints: a machine that is announced to go loses nothing, if it passes the notice on to its processes.
    """

    def setup(  # type: ignore[override]  # with_parameters adds the others
        self, config: dict[str, Any], job: Job, shelf: Shelf, worker: WorkerFactory
    ) -> None:
        """Called once per actor."""
        self._job = job
        self._shelf = shelf
        self._make_worker = worker
        self._worker: PackWorker | None = None
        self._steps: Generator[PackProgress, None, None] | None = None
        self._is_in_step = False
        self._is_told_to_go = False
        self._exit = signal.signal(signal.SIGTERM, self._told_to_go)
        """Ray's own handler, which ends the process and says why."""
        telemetry.measure_into(RayMetrics())
        telemetry.log_as(job.log_format)
        telemetry.work_on(sweep=job.sweep)
        self._begin(config)

    def _begin(self, config: dict[str, Any]) -> None:
        """Packs with a teacher and those with students share actors only where they ask for the same resources."""
        self._pack = self._shelf.pack(config)
        self._last: dict[str, Any] | None = None
        telemetry.work_on(trial_ids=[trial.trial_id for trial in self._pack.trials])

    def step(self) -> dict[str, Any]:
        """About a second of training, or an epoch.

        A teacher's last result is told twice: Tune ends an actor for which no pack waits, and those that wait for the teacher do not
        before its end is known.
        """
        if self._last is not None:
            return self._last
        self._is_in_step = True
        result = self._step()
        self._is_in_step = False
        if self._is_told_to_go and not result["done"]:
            self._go()
        if result["done"] and self._pack.is_teacher and "cause" not in result:
            self._last = result
            return {**result, "done": False, ENDED: True}
        return result

    def _step(self) -> dict[str, Any]:
        try:
            if self._worker is None:
                placement = self._job.placement.of(is_teacher=self._pack.is_teacher)
                with _no_collection():
                    self._worker = self._make_worker(replace(self._job, placement=placement))
            if self._steps is None:
                self._steps = run_pack(self._pack, self._worker)
            progress = next(self._steps)
            watch_gpu(self._worker.placement)
            return _result_of(progress)
        except Exception as error:  # noqa: BLE001 (handed to the driver, which counts it and names it)
            cause = f"{type(error).__name__}: {error}"
            crash = PackProgress(
                pack_id=self._pack.pack_id, epoch=0, epochs=0, accuracy=None, images_per_s=0.0, done=True
            )
            is_store = isinstance(error, StoreError)
            return {**_result_of(crash), "cause": cause, "store": is_store, "traceback": traceback.format_exc()}

    def _told_to_go(self, number: int, frame: FrameType | None) -> None:
        # Ray may say it twice; whoever loses patience has SIGKILL.
        if self._is_told_to_go:
            return
        self._is_told_to_go = True
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_GRACE_S)
        # In the middle of a step there is nothing to go on from.
        if not self._is_in_step:
            self._go()

    def _go(self) -> None:
        self.cleanup()
        assert callable(self._exit)
        self._exit(signal.SIGTERM, None)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The next pack for the same actor."""
        if self._is_told_to_go:
            self._go()
        self.cleanup()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        """Stopped early: checkpoints are written and leases given back."""
        if self._steps is not None:
            self._steps.close()
        self._steps = None


def _result_of(progress: PackProgress) -> dict[str, Any]:
    """What Tune carries to the driver: a handful of scalars."""
    return {
        "done": progress.done,
        "pack_id": progress.pack_id,
        "epoch": progress.epoch,
        "epochs": progress.epochs,
        "accuracy": progress.accuracy,
        "images_per_s": progress.images_per_s,
        "warning": progress.warning,
        "committed": " ".join(progress.committed),
        "failed": " ".join(progress.failed),
        "is_too_large": progress.is_too_large,
    }


def progress_of(result: Mapping[str, Any]) -> PackProgress:
    """What a worker has told its driver."""
    return PackProgress(
        pack_id=result["pack_id"],
        epoch=result["epoch"],
        epochs=result["epochs"],
        accuracy=result["accuracy"],
        images_per_s=result["images_per_s"],
        warning=result["warning"],
        done=result["done"],
        committed=tuple(result["committed"].split()),
        failed=tuple(result["failed"].split()),
        is_too_large=result["is_too_large"],
    )
