"""One pack, from leases to records: the life of the trials that one worker trains side by side.

    lease ──▶ load data and teachers ──▶ restore or start students ──▶ fit ──▶ evaluate ──▶ weights, then record (the commit point)

A trial that fails costs only itself; whatever ends the pack early, every trial still in training leaves a checkpoint behind if it can.
"""

import logging
import platform
import threading
import time
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from torch import nn

from kd_ray.distill import checkpoint
from kd_ray.distill.evaluate import evaluate
from kd_ray.distill.fit import FitProgress, Student, fit, new_student
from kd_ray.distill.worker import LoadedData, Worker, device_name, git_commit, package_versions
from kd_ray.errors import CorruptObjectError, DataError, StoreError
from kd_ray.models import count_parameters
from kd_ray.results import ledger
from kd_ray.results.ledger import LEASE_TTL_S, Lease
from kd_ray.results.record import Epoch, Provenance, Record, commit_record, sha256
from kd_ray.results.store import record_key, weights_key
from kd_ray.sweep.plan import Pack
from kd_ray.sweep.spec import TrialSpec

logger = logging.getLogger("kd_ray")


@dataclass(frozen=True, kw_only=True)
class PackProgress:
    """What a running pack tells its driver, at most about once a second."""

    pack_id: str
    epoch: int
    epochs: int
    accuracy: float | None
    images_per_s: float
    done: bool = False
    """Whether this is the pack's last word."""
    committed: tuple[str, ...] = ()
    """With the last word: trials that are complete now."""
    failed: tuple[str, ...] = ()
    """With the last word: trials that failed."""


def run_pack(pack: Pack, worker: Worker) -> Generator[PackProgress, None, None]:
    """Train and commit the trials of a pack; trials that are complete, or held by another launch, are left alone.

    Closing the iterator early stops the pack: its students write checkpoints and their leases are given back.

    Raises:
        StoreError: the store does not do as asked; nothing is said about the trials then, and the pack can be started again.
    """
    started_at = datetime.now(UTC)
    epochs = pack.trials[0].spec.epochs
    failed: tuple[str, ...] = ()
    with _Leases(worker) as leases:
        leases.acquire(pack)
        if leases.held:
            run = _Run(
                worker, [trial.spec for trial in pack.trials if trial.trial_id in leases.held], leases, started_at
            )
            for progress in run.train():
                leases.progress = {
                    "epoch": progress.epoch,
                    "epochs": epochs,
                    "accuracy": progress.accuracy,
                    "images_per_s": progress.images_per_s,
                }
                yield PackProgress(
                    pack_id=pack.pack_id,
                    epoch=progress.epoch,
                    epochs=epochs,
                    accuracy=progress.accuracy,
                    images_per_s=progress.images_per_s,
                )
            failed = tuple(run.failed)
    yield PackProgress(
        pack_id=pack.pack_id,
        epoch=epochs,
        epochs=epochs,
        accuracy=None,
        images_per_s=0.0,
        done=True,
        committed=tuple(t.trial_id for t in pack.trials if worker.store.exists(record_key(t.trial_id))),
        failed=failed,
    )


class _Leases:
    """The leases of a pack: renewed in the background, given back one by one and at the end.

    One lock around every renewal and every release keeps a late renewal from reviving a lease that was given back.
    """

    def __init__(self, worker: Worker) -> None:
        self.held: dict[str, Lease] = {}
        self.progress: dict[str, Any] | None = None
        self._store = worker.store
        self._launch_id = worker.launch_id
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="kd_ray-heartbeat", daemon=True)

    def __enter__(self) -> "_Leases":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for trial_id in list(self.held):
            self.release(trial_id)

    def acquire(self, pack: Pack) -> None:
        """Take the trials that are neither complete nor held by another launch."""
        for trial in pack.trials:
            if self._store.exists(record_key(trial.trial_id)):
                continue
            lease = ledger.acquire(self._store, trial.trial_id, launch_id=self._launch_id)
            if lease is None:
                continue
            with self._lock:
                self.held[trial.trial_id] = lease
            # Another holder may have committed between the look and the lease.
            if self._store.exists(record_key(trial.trial_id)):
                self.release(trial.trial_id)

    def release(self, trial_id: str) -> None:
        """Give a trial back, if it is held."""
        with self._lock:
            lease = self.held.pop(trial_id, None)
            if lease is not None:
                ledger.release(self._store, lease)

    def forget(self, trial_id: str) -> None:
        """A trial now belongs to another holder."""
        with self._lock:
            self.held.pop(trial_id, None)

    def _beat(self) -> None:
        while not self._stop.wait(LEASE_TTL_S / 3):
            for trial_id in list(self.held):
                with self._lock:
                    lease = self.held.get(trial_id)
                    if lease is not None:
                        self._renew(lease)

    def _renew(self, lease: Lease) -> None:
        try:
            ledger.renew(self._store, lease, self.progress)
        except StoreError as error:
            # The lease may run out; fencing keeps that harmless, and the next beat tries again.
            logger.warning("cannot renew the lease of %s: %s", lease.trial_id, error)


class _Run:
    """The trials of one pack that this worker holds."""

    def __init__(self, worker: Worker, specs: list[TrialSpec], leases: _Leases, started_at: datetime) -> None:
        self._worker = worker
        self._specs = specs
        self._leases = leases
        self._started_at = started_at
        self._num_trials = len(specs)
        self.failed: list[str] = []

    def train(self) -> Iterator[FitProgress]:
        """Train, commit, and give the leases back one by one."""
        try:
            data = self._worker.data(self._specs[0].dataset)
        except (DataError, CorruptObjectError) as error:
            for spec in self._specs:
                self._fail(spec, error)
            return
        students: list[Student] = []
        teachers: dict[str, nn.Module] = {}
        for spec in self._specs:
            with self._blame(spec):
                if spec.training is None:
                    self._commit(spec, self._worker.given(spec, data), data, _Past())
                    continue
                if spec.teacher:
                    teachers[spec.teacher.trial_id] = self._worker.teacher(spec.teacher.trial_id, data)
                saved = checkpoint.load_latest(self._worker.store, spec.trial_id)
                students.append(new_student(spec, spec.training, data.resident, self._worker.device, saved))
        yield from self._fit(students, teachers, data)

    @contextmanager
    def _blame(self, spec: TrialSpec) -> Iterator[None]:
        """Whatever goes wrong inside is this trial's own failure, unless the store is at fault."""
        try:
            yield
        except CorruptObjectError as error:
            self._fail(spec, error)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 (named in the store, with its traceback)
            self._fail(spec, error)

    def _fit(self, students: list[Student], teachers: dict[str, nn.Module], data: LoadedData) -> Iterator[FitProgress]:
        saved_at = time.monotonic()
        saved_step = {student.spec.trial_id: student.step for student in students}

        def save() -> None:
            for student in students:
                trial_id = student.spec.trial_id
                if student.step > saved_step[trial_id]:
                    checkpoint.save(
                        self._worker.store, trial_id, self._leases.held[trial_id].generation, student.state()
                    )
                    saved_step[trial_id] = student.step

        def failed(student: Student, error: Exception) -> None:
            self._fail(student.spec, error)

        try:
            for progress in fit(students, teachers, data.resident, on_failure=failed):
                done = progress.epoch == progress.epochs
                if not done and time.monotonic() - saved_at >= self._worker.placement.checkpoint_interval_s:
                    save()
                    saved_at = time.monotonic()
                yield progress
        except (GeneratorExit, KeyboardInterrupt):
            save()
            raise
        for student in students:
            past = _Past(history=tuple(student.history), elapsed_s=student.elapsed_s, restarts=student.restarts)
            with self._blame(student.spec):
                self._commit(student.spec, student.model, data, past)

    def _commit(self, spec: TrialSpec, model: nn.Module, data: LoadedData, past: "_Past") -> None:
        """Evaluate a trial and write its weights, then its record; a trial that was taken over is left to its new holder."""
        store, lease = self._worker.store, self._leases.held[spec.trial_id]
        result = evaluate(model, data.resident.test, data.pairs)
        if ledger.is_superseded(store, lease):
            logger.warning("trial %s was taken over; generation %d leaves it alone", spec.trial_id, lease.generation)
            self._leases.forget(spec.trial_id)
            return
        weights = checkpoint.to_weights(model.state_dict())
        key = weights_key(spec.trial_id, lease.generation)
        store.put(key, weights)
        record = Record(
            spec=spec,
            epochs=past.history,
            scalars=result.scalars,
            predictions_N=result.predictions_N,
            confidences_N=result.confidences_N,
            true_probabilities_N=result.true_probabilities_N,
            weights_key=key,
            weights_sha256=sha256(weights),
            num_parameters=count_parameters(model),
            provenance=self._provenance(lease, past, len(data.resident.train)),
        )
        if commit_record(store, record):
            ledger.clear_error(store, spec.trial_id)
            checkpoint.delete_all(store, spec.trial_id)
        else:
            store.delete(key)
        self._leases.release(spec.trial_id)

    def _provenance(self, lease: Lease, past: "_Past", images_per_epoch: int) -> Provenance:
        images = len(past.history) * images_per_epoch
        return Provenance(
            launch_id=self._worker.launch_id,
            generation=lease.generation,
            restarts=past.restarts,
            host=platform.node(),
            device=device_name(self._worker.device),
            threads=self._worker.placement.cpus_per_pack,
            pack_size=self._num_trials,
            started_at=self._started_at,
            finished_at=datetime.now(UTC),
            elapsed_s=past.elapsed_s,
            images_per_s=images / past.elapsed_s if past.elapsed_s else 0.0,
            git_commit=git_commit(),
            versions=package_versions(),
        )

    def _fail(self, spec: TrialSpec, error: Exception) -> None:
        """Name the failure in the store, and give the trial back."""
        self.failed.append(spec.trial_id)
        ledger.write_error(
            self._worker.store,
            spec.trial_id,
            cause=f"{type(error).__name__}: {error}",
            traceback="".join(traceback.format_exception(error)),
            host=platform.node(),
            launch_id=self._worker.launch_id,
        )
        self._leases.release(spec.trial_id)


@dataclass(frozen=True, kw_only=True)
class _Past:
    """What a record says of a trial's training."""

    history: tuple[Epoch, ...] = ()
    elapsed_s: float = 0.0
    restarts: int = 0
